//! What Undermesh is to reach, and whether it has: ratios within one run.

use serde::Serialize;

use super::{
    measured::{Measured, Memory, Sample},
    way::Way,
    work::{Latency, Work},
};
use crate::bench::compare::Ratio;

const MEBIBYTE: f64 = (1 << 20) as f64;
const KIBIBYTE: f64 = 1024.0;

/// A target, and what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Judged {
    pub(super) target: &'static str,
    pub(super) bound: Bound,
    pub(super) measured: f64,
    pub(super) met: bool,
}

/// Where what is good begins.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

use Bound::{AtLeast, AtMost};

/// Judges what has been measured; targets whose parts were not are left out.
pub(super) fn judge(measured: &Measured) -> Vec<Judged> {
    let is = Find(measured);
    let rate = |work, pair| is.ratio(work, pair, Sample::rate);
    let cpu = |work, pair| is.ratio(work, pair, Sample::cpu);
    let local = [Way::Local, Way::NoMeshLocal];
    let (l4, floor) = ([Way::L4, Way::EnvoyL4], [Way::L4, Way::Floor]);
    let l7 = [Way::L7, Way::EnvoyL7];
    let services = [Way::L4Services, Way::L4];
    let (requests, new) = (Work::KeepAlive32, Work::NewConnections);
    let all = [
        ("local: rate / no mesh", AtLeast(0.95), rate(requests, local)),
        ("local: bulk / no mesh", AtLeast(0.95), rate(Work::Bulk1, local)),
        ("local: CPU per request / no mesh", AtMost(1.05), cpu(requests, local)),
        ("L4: rate / Envoy", AtLeast(1.2), rate(requests, l4)),
        ("L4: CPU per request / Envoy", AtMost(0.8), cpu(requests, l4)),
        ("L4: rate / relay floor", AtLeast(0.8), rate(requests, floor)),
        ("L4: bulk / Envoy", AtLeast(1.2), rate(Work::Bulk1, l4)),
        ("L4: new connections / relay floor", AtLeast(1.0), rate(new, floor)),
        ("L4: new connections / Envoy", AtLeast(3.5), rate(new, l4)),
        ("L4: added p50 at 500 req/s / Envoy", AtMost(0.8), is.added(l4, |it| it.p50)),
        ("L4: rate with 1,024 connections / 32", AtLeast(0.9), is.holds(Way::L4)),
        ("L4: rate with 1,000 services / few", AtLeast(0.95), rate(new, services)),
        ("L4: CPU per connection, 1,000 services / few", AtMost(1.05), cpu(new, services)),
        ("L7: rate / Envoy", AtLeast(2.0), rate(requests, l7)),
        ("L7: CPU per request / Envoy", AtMost(0.55), cpu(requests, l7)),
        ("L7: p99 at 500 req/s / Envoy", AtMost(0.6), is.p99(l7)),
        ("L7: rate with 1,024 connections / 32", AtLeast(0.9), is.holds(Way::L7)),
        ("agents: resident MiB, both, 32 connections", AtMost(40.0), is.resident()),
        ("agents: KiB per idle L4 connection, both", AtMost(6.0), is.idle(Way::L4)),
        ("agents: failed pieces of work", AtMost(0.0), is.failed()),
    ];
    all.into_iter()
        .filter_map(|(target, bound, found)| {
            let measured = found?;
            Some(Judged { target, bound, measured, met: bound.holds(measured) })
        })
        .collect()
}

/// Finds what targets are about.
struct Find<'a>(&'a Measured);

impl Find<'_> {
    fn ratio(&self, work: Work, pair: [Way; 2], of: fn(&Sample) -> f64) -> Option<f64> {
        self.0.ratio(work, pair, of).map(|found| found.median)
    }

    fn latency(&self, way: Way, of: fn(&Latency) -> f64) -> Option<f64> {
        let found = self.0.value(Work::OpenLoop, way, |sample| sample.latency(of));
        found.map(|found| found.median)
    }

    /// What each adds to the latency without a mesh, of what the other adds.
    fn added(&self, [way, other]: [Way; 2], of: fn(&Latency) -> f64) -> Option<f64> {
        let none = self.latency(Way::NoMesh, of)?;
        Some((self.latency(way, of)? - none) / (self.latency(other, of)? - none))
    }

    fn p99(&self, [way, other]: [Way; 2]) -> Option<f64> {
        Some(self.latency(way, |it| it.p99)? / self.latency(other, |it| it.p99)?)
    }

    /// What is left of the rate when there are more connections, round by round.
    fn holds(&self, way: Way) -> Option<f64> {
        let [few, many] = [Work::KeepAlive32, Work::KeepAlive1024];
        let pairs = self.0.samples(many, way).iter().zip(self.0.samples(few, way));
        let ratios: Vec<f64> = pairs.map(|(many, few)| many.rate() / few.rate()).collect();
        (!ratios.is_empty()).then(|| Ratio::of(ratios).median)
    }

    /// The most that both agents of a way have occupied.
    fn resident(&self) -> Option<f64> {
        let routes = |memory: &&Memory| matches!(memory.variant, Way::L4 | Way::L7);
        let most = self.0.memory.iter().filter(routes).map(|memory| memory.working).max()?;
        Some(most as f64 / MEBIBYTE)
    }

    fn idle(&self, way: Way) -> Option<f64> {
        let found = self.0.memory.iter().find(|memory| memory.variant == way)?;
        Some(found.per_connection() / KIBIBYTE)
    }

    fn failed(&self) -> Option<f64> {
        let ways = Way::ALL.into_iter().filter(|way| way.is_undermesh());
        let all: Vec<u64> =
            ways.flat_map(|way| self.0.of_way(way).map(|(_, sample)| sample.failed)).collect();
        (!all.is_empty()).then(|| all.iter().sum::<u64>() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::mesh::measured::tests::sample;

    fn found(measured: &Measured, target: &str) -> Judged {
        let judged = judge(measured);
        *judged.iter().find(|judged| judged.target == target).unwrap()
    }

    #[test]
    fn a_target_is_met_or_missed_by_what_was_measured() {
        let mut measured = Measured::default();
        assert_eq!(judge(&measured), []);
        measured.add(Work::KeepAlive32, Way::L4, sample(130.0, 1.0, 1.0));
        measured.add(Work::KeepAlive32, Way::EnvoyL4, sample(100.0, 0.9, 1.0));
        let rate = found(&measured, "L4: rate / Envoy");
        assert!(rate.met && (rate.measured - 1.3).abs() < 1e-9, "{rate:?}");
        let cpu = found(&measured, "L4: CPU per request / Envoy");
        assert!(!cpu.met && (cpu.measured - 1.0 / 130.0 / (0.9 / 100.0)).abs() < 1e-9, "{cpu:?}");
    }

    #[test]
    fn latency_is_judged_by_what_is_added_to_that_without_a_mesh() {
        let mut measured = Measured::default();
        for (way, p50) in [(Way::NoMesh, 1.0), (Way::L4, 1.5), (Way::EnvoyL4, 2.0)] {
            measured.add(Work::OpenLoop, way, sample(1.0, 1.0, p50));
        }
        let judged = found(&measured, "L4: added p50 at 500 req/s / Envoy");
        assert_eq!((judged.measured, judged.met), (0.5, true));
    }

    #[test]
    fn memory_and_failures_are_those_of_the_agents() {
        let mut measured = Measured::default();
        let failing = Sample { failed: 2, ..sample(1.0, 1.0, 1.0) };
        measured.add(Work::Http2, Way::EnvoyL7, failing);
        assert_eq!(judge(&measured), []);
        measured.add(Work::KeepAlive1024, Way::L7, failing);
        for (variant, working) in [(Way::L7, 10 << 20), (Way::EnvoyL7, 90 << 20)] {
            let (before, during) = (0, 7 << 10);
            measured.memory.push(Memory { variant, working, connections: 1, before, during });
        }
        let resident = found(&measured, "agents: resident MiB, both, 32 connections");
        assert_eq!((resident.measured, resident.met), (10.0, true));
        let failed = found(&measured, "agents: failed pieces of work");
        assert_eq!((failed.measured, failed.met), (2.0, false));
        measured.memory[0].variant = Way::L4;
        assert!(!found(&measured, "agents: KiB per idle L4 connection, both").met);
    }
}
