//! Everything that has been measured, and what is asked of it: medians, spread, and ratios within a
//! round.

use std::collections::BTreeMap;

use super::{
    way::Way,
    work::{Latency, Work},
};
use crate::bench::{compare::Ratio, cpu::Cost};

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Pieces of work.
    pub(super) units: f64,
    /// In what time.
    pub(super) seconds: f64,
    /// At what cost.
    pub(super) cost: Cost,
    /// How long each took.
    pub(super) latency: Option<Latency>,
    /// How many failed.
    pub(super) failed: u64,
    /// Bytes that the mesh's processes have occupied together, at most.
    pub(super) resident: u64,
}

impl Sample {
    pub(super) fn rate(&self) -> f64 {
        self.units / self.seconds
    }

    /// The whole machine's processor microseconds per piece of work.
    pub(super) fn cpu(&self) -> f64 {
        self.cost.busy * 1e6 / self.units
    }

    /// Those of the rig's processes.
    pub(super) fn own_cpu(&self) -> f64 {
        self.cost.own * 1e6 / self.units
    }

    /// A percentile of latency in milliseconds; not a number where none was measured.
    pub(super) fn latency(&self, of: fn(&Latency) -> f64) -> f64 {
        self.latency.as_ref().map_or(f64::NAN, of)
    }
}

/// Memory of one way's mesh, from its start: under work, and with idle connections.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    pub(super) variant: Way,
    /// The most bytes that were resident while work was done on 32 connections.
    pub(super) working: u64,
    /// How many connections were held.
    pub(super) connections: u64,
    /// Bytes resident before, and while they were held.
    pub(super) before: u64,
    pub(super) during: u64,
}

impl Memory {
    /// Bytes for each connection, of all processes of the mesh together.
    pub(super) fn per_connection(&self) -> f64 {
        (self.during as f64 - self.before as f64) / self.connections.max(1) as f64
    }
}

/// All samples, in the order of rounds.
#[derive(Debug, Default)]
pub(super) struct Measured {
    samples: BTreeMap<(Work, Way), Vec<Sample>>,
    pub(super) memory: Vec<Memory>,
}

impl Measured {
    pub(super) fn add(&mut self, work: Work, way: Way, sample: Sample) {
        self.samples.entry((work, way)).or_default().push(sample);
    }

    pub(super) fn samples(&self, work: Work, way: Way) -> &[Sample] {
        self.samples.get(&(work, way)).map_or(&[], Vec::as_slice)
    }

    /// All samples of a way, with their work.
    pub(super) fn of_way(&self, way: Way) -> impl Iterator<Item = (Work, &Sample)> {
        let own = self.samples.iter().filter(move |((_, of), _)| *of == way);
        own.flat_map(|((work, _), samples)| samples.iter().map(|sample| (*work, sample)))
    }

    /// The median and the quartiles of something; `None` where it was not measured.
    pub(super) fn value(&self, work: Work, way: Way, of: impl Fn(&Sample) -> f64) -> Option<Ratio> {
        spread(self.samples(work, way).iter().map(of).collect())
    }

    /// The same relative to another way, round by round.
    pub(super) fn ratio(
        &self,
        work: Work,
        [way, to]: [Way; 2],
        of: impl Fn(&Sample) -> f64,
    ) -> Option<Ratio> {
        let pairs = self.samples(work, way).iter().zip(self.samples(work, to));
        spread(pairs.map(|(one, other)| of(one) / of(other)).collect())
    }
}

fn spread(values: Vec<f64>) -> Option<Ratio> {
    let known = !values.is_empty() && values.iter().all(|value| value.is_finite());
    known.then(|| Ratio::of(values))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A sample of a second.
    pub(in crate::bench::mesh) fn sample(units: f64, cpu: f64, p50: f64) -> Sample {
        let cost = Cost { busy: cpu, own: cpu, steal: 0.0, foreign: 0.0 };
        let latency = Latency { p50, p90: p50, p99: p50 * 2.0, p999: p50 * 3.0 };
        Sample { units, seconds: 1.0, cost, latency: Some(latency), failed: 0, resident: 10 << 20 }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut measured = Measured::default();
        for (fast, slow) in [(100.0, 50.0), (1000.0, 500.0), (10.0, 6.0)] {
            measured.add(Work::KeepAlive32, Way::NoMesh, sample(fast, 1.0, 1.0));
            measured.add(Work::KeepAlive32, Way::L4, sample(slow, 1.0, 1.0));
        }
        let pair = [Way::L4, Way::NoMesh];
        let found = measured.ratio(Work::KeepAlive32, pair, Sample::rate).unwrap();
        assert_eq!(found.median, 0.5);
        assert!(measured.ratio(Work::Http2, pair, Sample::rate).is_none());
    }

    #[test]
    fn what_was_not_measured_is_no_number() {
        let mut measured = Measured::default();
        let without = Sample { latency: None, ..sample(1.0, 1.0, 1.0) };
        measured.add(Work::Bulk1, Way::L4, without);
        let p50 = |sample: &Sample| sample.latency(|latency| latency.p50);
        assert!(measured.value(Work::Bulk1, Way::L4, p50).is_none());
        assert!(measured.value(Work::Bulk1, Way::L4, Sample::rate).is_some());
    }

    #[test]
    fn idle_connections_cost_what_they_add() {
        let (before, during) = (10_000, 3_010_000);
        let found = Memory { variant: Way::L4, working: 0, connections: 1000, before, during };
        assert_eq!(found.per_connection(), 3000.0);
    }
}
