//! How long a new configuration takes to be in force, and which one is, by sink.

use std::time::Duration;

use undermesh_telemetry::{
    Histogram, Metric,
    prometheus_client::{
        metrics::{
            family::{Family, MetricConstructor},
            gauge::Gauge,
        },
        registry::Registry,
    },
};

static GENERATION: Metric = Metric::gauge(
    "undermesh_snapshot_generation",
    &["sink"],
    "generation of the configuration that is in force, in the `proxy` and in the `kernel`'s \
     maps. They differ for the moment between the two, or as long as maps cannot be written",
);
static APPLY: Metric = Metric::histogram(
    "undermesh_snapshot_apply_seconds",
    &["sink"],
    "time from the arrival of a state until it is in force there, compiling included",
);

/// In seconds: a small cluster's compiles in one millisecond, ten thousand pods in hundreds.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What a snapshot is handed to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sink {
    Proxy,
    Kernel,
}

impl Sink {
    const fn label(self) -> [(&'static str, &'static str); 1] {
        match self {
            Self::Proxy => [("sink", "proxy")],
            Self::Kernel => [("sink", "kernel")],
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(&BUCKETS)
    }
}

type Label = [(&'static str, &'static str); 1];

/// The two families.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotMetrics {
    generation: Family<Label, Gauge>,
    apply: Family<Label, Histogram, Buckets>,
}

impl Default for SnapshotMetrics {
    fn default() -> Self {
        let apply = Family::new_with_constructor(Buckets);
        Self { generation: Family::default(), apply }
    }
}

impl SnapshotMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        GENERATION.register(registry, metrics.generation.clone());
        APPLY.register(registry, metrics.apply.clone());
        metrics
    }

    /// A generation has come into force, so long after its state came.
    pub(crate) fn applied(&self, sink: Sink, generation: u64, after: Duration) {
        let label = sink.label();
        self.apply.get_or_create(&label).observe(after.as_secs_f64());
        let generation = i64::try_from(generation).unwrap_or(i64::MAX);
        self.generation.get_or_create(&label).set(generation);
    }
}

#[cfg(test)]
mod tests {
    use undermesh_telemetry::prometheus_client::encoding::text;

    use super::*;

    #[test]
    fn each_sink_has_its_generation_and_its_lag() {
        let mut registry = Registry::default();
        let metrics = SnapshotMetrics::register(&mut registry);
        metrics.applied(Sink::Proxy, 7, Duration::from_millis(2));
        metrics.applied(Sink::Proxy, 8, Duration::from_millis(2));
        metrics.applied(Sink::Kernel, 7, Duration::from_millis(700));
        let mut found = String::new();
        text::encode(&mut found, &registry).unwrap();
        for line in [
            "undermesh_snapshot_generation{sink=\"proxy\"} 8",
            "undermesh_snapshot_generation{sink=\"kernel\"} 7",
            "undermesh_snapshot_apply_seconds_bucket{le=\"0.0025\",sink=\"proxy\"} 2",
            "undermesh_snapshot_apply_seconds_bucket{le=\"0.5\",sink=\"kernel\"} 0",
            "undermesh_snapshot_apply_seconds_count{sink=\"kernel\"} 1",
        ] {
            assert!(found.lines().any(|it| it == line), "no {line} in {found}");
        }
    }
}
