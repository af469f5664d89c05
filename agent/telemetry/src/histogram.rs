//! A histogram that is counted in without a lock, and that can be read other than by a scrape.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

/// How often what was observed, in buckets. Clones count in the same place.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Highest value of each bucket but the last, ascending.
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    /// The sum, as the bits of a number.
    sum: AtomicU64,
}

impl Histogram {
    /// With buckets up to each of `bounds`, which ascend, and one for what is above all of them.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets { bounds, counts, sum: AtomicU64::new(0.0_f64.to_bits()) }))
    }

    /// Counts one value.
    pub fn observe(&self, value: f64) {
        let Buckets { bounds, counts, sum } = &*self.0;
        let bucket = bounds.partition_point(|bound| *bound < value);
        counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value).to_bits());
        // It never refuses.
        let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// How many values are in each bucket, not those of the buckets before it; the last is of what is
    /// above all bounds.
    pub fn counts(&self) -> Vec<u64> {
        self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Of all values.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Ordering::Relaxed))
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // The count is that of the buckets as they were read, so that the two agree in every scrape.
        let counts = self.counts();
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let count = counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it_and_the_last_bucket_has_no_end() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        for value in [0.0, 1.0, 1.5, 2.0, 2.5, 1e300] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts(), [2, 2, 2]);
        histogram.observe(f64::NAN);
        assert_eq!(histogram.counts().iter().sum::<u64>(), 7);
    }

    #[test]
    fn a_scrape_has_cumulative_buckets_and_their_count() {
        let histogram = Histogram::new(&[1.0, 2.0]);
        [0.5, 1.5, 9.0].iter().for_each(|value| histogram.observe(*value));
        let mut registry = Registry::default();
        registry.register("h", "Help", histogram);
        let mut text = String::new();
        text::encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE h histogram",
            "h_sum 11.0",
            "h_count 3",
            "h_bucket{le=\"1.0\"} 1",
            "h_bucket{le=\"2.0\"} 2",
            "h_bucket{le=\"+Inf\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }

    #[test]
    fn nothing_is_lost_when_many_count_at_once() {
        let histogram = Histogram::new(&[1.0]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| histogram.observe(2.0)));
            }
        });
        assert_eq!((histogram.counts(), histogram.sum()), (vec![0, 40_000], 80_000.0));
    }
}
