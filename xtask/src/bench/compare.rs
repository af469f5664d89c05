//! Pairs of samples become ratios. Each round gives one ratio, so that what changes from minute to
//! minute falls out of it; the median of the rounds is the result, and the quartiles are its spread.

use serde::Serialize;

use super::rounds::Sample;

/// One variant against the first one, at one kind of work.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// The kind of work.
    pub(super) load: &'static str,
    /// What is measured.
    pub(super) variant: String,
    /// What it is measured against.
    pub(super) baseline: String,
    /// Work per second, relative to the baseline.
    pub(super) rate: Ratio,
    /// The whole machine's processor time per piece of work, relative to the baseline.
    pub(super) cpu: Ratio,
    /// The same of the rig's processes alone, which others on the machine distort less.
    pub(super) own_cpu: Ratio,
    /// Samples, of both, in which somebody else was in the way.
    pub(super) spoilt: usize,
    /// Samples of both.
    pub(super) samples: usize,
}

impl Comparison {
    /// Compares the samples of two variants, round by round.
    pub(super) fn new(
        load: &'static str,
        [baseline, variant]: [&str; 2],
        pairs: &[(Sample, Sample)],
    ) -> Self {
        let ratio = |of: fn(&Sample) -> f64| {
            Ratio::of(pairs.iter().map(|(base, other)| of(other) / of(base)).collect())
        };
        let samples = || pairs.iter().flat_map(|(base, other)| [base, other]);
        Self {
            load,
            variant: variant.to_owned(),
            baseline: baseline.to_owned(),
            rate: ratio(Sample::rate),
            cpu: ratio(Sample::cpu_per_unit),
            own_cpu: ratio(Sample::own_cpu_per_unit),
            spoilt: samples().filter(|sample| sample.cost.is_spoilt()).count(),
            samples: samples().count(),
        }
    }
}

/// A median and its quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ratio {
    pub(super) median: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
}

impl Ratio {
    /// Of any number of values; all zero without one.
    pub(super) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share| quantile(&values, share);
        Self { median: at(0.5), lower: at(0.25), upper: at(0.75) }
    }
}

/// Linear between the two nearest values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cpu::Cost;

    fn sample(units: f64, busy: f64) -> Sample {
        let cost = Cost { busy, own: busy / 2.0, steal: 0.0, foreign: 0.0 };
        Sample { units, seconds: 2.0, cost }
    }

    #[test]
    fn the_median_lies_between_the_middle_values_and_the_quartiles_beside_it() {
        let ratio = Ratio::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(ratio, Ratio { median: 2.5, lower: 1.75, upper: 3.25 });
        assert_eq!(Ratio::of(vec![7.0]), Ratio { median: 7.0, lower: 7.0, upper: 7.0 });
        assert_eq!(Ratio::of(Vec::new()).median, 0.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_not_between_sums() {
        // The machine was ten times as fast in the second round; the ratio is the same.
        let pairs =
            [(sample(100.0, 1.0), sample(90.0, 1.0)), (sample(1000.0, 1.0), sample(900.0, 1.0))];
        let found = Comparison::new("load", ["without", "with"], &pairs);
        assert!((found.rate.median - 0.9).abs() < 1e-9, "{found:?}");
        assert!((found.cpu.median - 1.0 / 0.9).abs() < 1e-9, "{found:?}");
        assert_eq!((found.samples, found.spoilt), (4, 0));
    }
}
