//! What is given up when the node's proxy runs out of something, in which order, and when it is taken up again.
//!
//! Whoever can read them hands in how much of each resource is used; here it is decided. What is established is
//! never given up: a connection that was let in lives as long as it would have, and so do the requests on it.

mod heartbeat;
mod ladder;
mod metrics;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::runtime::Handle;

use crate::{error::Failure, pod::Pod};
pub(crate) use heartbeat::Heartbeat;
use ladder::Ladder;
pub use ladder::Step;
pub(crate) use metrics::OverloadMetrics;
use metrics::Shed;

/// An agent that has just begun is late by what it has to do itself: programs, configuration, connections that it takes
/// over. It says nothing of load, and to refuse connections for it would cost some with every upgrade.
const SETTLING: Duration = Duration::from_secs(10);

/// How much of what the agent needs is used: 0 is nothing, and 1 all there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pressure {
    /// Memory, of the nearest limit.
    pub memory: f64,
    /// File descriptors, of RLIMIT_NOFILE.
    pub descriptors: f64,
    /// How late the threads that carry connections get to what they have to do, of what is bearable.
    pub delay: f64,
}

/// What the admin pages say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverloadStatus {
    /// What is given up.
    pub step: Step,
    /// As of the last look.
    pub pressure: Pressure,
}

/// How much it matters that a pod is served: label `undermesh.io/priority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

impl Priority {
    /// As the labels of a pod say.
    pub(crate) fn of(labels: &std::collections::BTreeMap<String, String>) -> Self {
        match labels.get("undermesh.io/priority").map(String::as_str) {
            Some("low") => Self::Low,
            Some("high") => Self::High,
            _ => Self::Normal,
        }
    }
}

/// What a new connection asks of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// To look at its requests.
    Requests,
    /// To carry its bytes.
    Bytes,
}

/// The state of the node's proxy.
pub(crate) struct Overload {
    /// The step as a number, for the path of every request.
    step: AtomicU8,
    ladder: Mutex<(Ladder, Pressure)>,
    epoch: Instant,
    heartbeat: Heartbeat,
    metrics: OverloadMetrics,
}

impl Pressure {
    /// The resource that is used most, by name.
    fn highest(&self) -> (&'static str, f64) {
        let all = self.each();
        all.into_iter().max_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap_or(all[0])
    }

    /// What of it counts, of an agent of this age.
    fn counted(self, age: Duration) -> Self {
        if age < SETTLING { Self { delay: 0.0, ..self } } else { self }
    }

    fn each(&self) -> [(&'static str, f64); 3] {
        [("memory", self.memory), ("descriptors", self.descriptors), ("delay", self.delay)]
    }
}

impl Overload {
    pub(crate) fn new(metrics: OverloadMetrics, runtime: &Handle) -> Self {
        Self {
            step: AtomicU8::new(0),
            ladder: Mutex::default(),
            epoch: Instant::now(),
            heartbeat: Heartbeat::start(runtime),
            metrics,
        }
    }

    /// How late the threads that carry connections are.
    pub(crate) fn delay(&self) -> Duration {
        self.heartbeat.delay()
    }

    /// Takes note of how things stand.
    pub(crate) fn observe(&self, pressure: Pressure) -> Step {
        let mut state = self.ladder.lock().unwrap_or_else(PoisonError::into_inner);
        let (ladder, known) = &mut *state;
        let before = ladder.step();
        let age = self.epoch.elapsed();
        let (resource, highest) = pressure.counted(age).highest();
        let step = ladder.observe(highest, age);
        *known = pressure;
        drop(state);
        self.step.store(step as u8, Ordering::Relaxed);
        self.metrics.observe(&pressure.each(), step);
        if step > before {
            tracing::warn!(resource, pressure = highest, step = %step, sheds = step.sheds(), "overloaded");
        } else if step < before {
            tracing::info!(resource, pressure = highest, step = %step, sheds = step.sheds(), "less overloaded");
        }
        step
    }

    pub(crate) fn status(&self) -> OverloadStatus {
        let state = self.ladder.lock().unwrap_or_else(PoisonError::into_inner);
        OverloadStatus { step: state.0.step(), pressure: state.1 }
    }

    /// Nothing is kept in store.
    pub(crate) fn trims(&self) -> bool {
        self.has_reached(Step::Trim)
    }

    fn has_reached(&self, step: Step) -> bool {
        self.step.load(Ordering::Relaxed) >= step as u8
    }

    /// Whether a request of, or for, a pod of this priority is answered; counted where it is not.
    pub(crate) fn admits_request(&self, priority: Priority) -> bool {
        let sheds = priority == Priority::Low && self.has_reached(Step::Requests);
        if sheds {
            self.metrics.shed(Shed::Request);
        }
        !sheds
    }

    fn admits(&self, carried: Carried, priority: Priority) -> bool {
        let requests = carried == Carried::Requests && priority != Priority::High;
        let shed = match carried {
            _ if self.has_reached(Step::Connections) => Shed::Connection,
            Carried::Requests if requests && self.has_reached(Step::Routed) => Shed::Routed,
            _ => return true,
        };
        self.metrics.shed(shed);
        false
    }
}

impl Pod {
    /// Whether there is room for another connection of, or to, this pod.
    pub(crate) fn has_room(&self, carried: Carried) -> Result<(), Failure> {
        let admits = self.shared.overload.admits(carried, self.priority);
        if admits { Ok(()) } else { Err(Failure::Overloaded) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure(descriptors: f64) -> Pressure {
        Pressure { descriptors, ..Pressure::default() }
    }

    #[test]
    fn an_agent_that_has_just_begun_is_not_overloaded_by_being_late() {
        let late = Pressure { delay: 9.0, descriptors: 0.5, memory: 0.4 };
        assert_eq!(late.counted(Duration::ZERO).highest(), ("descriptors", 0.5));
        assert_eq!(late.counted(SETTLING).highest(), ("delay", 9.0));
        let short = Pressure { memory: 0.99, ..late };
        assert_eq!(short.counted(Duration::ZERO).highest(), ("memory", 0.99));
    }

    #[tokio::test]
    async fn what_matters_least_is_shed_first_and_connections_last() {
        let overload = Overload::new(OverloadMetrics::default(), &Handle::current());
        let admitted = |overload: &Overload| {
            let requests = [Priority::Low, Priority::Normal, Priority::High]
                .map(|priority| overload.admits_request(priority));
            let routed = [Priority::Low, Priority::Normal, Priority::High]
                .map(|priority| overload.admits(Carried::Requests, priority));
            let bytes = overload.admits(Carried::Bytes, Priority::Low);
            (requests, routed, bytes)
        };
        let (all, none) = ([true; 3], [false; 3]);
        for (used, step, expected, trims) in [
            (0.5, Step::None, (all, all, true), false),
            (0.85, Step::Trim, (all, all, true), true),
            (0.91, Step::Requests, ([false, true, true], all, true), true),
            (0.96, Step::Routed, ([false, true, true], [false, false, true], true), true),
            (0.99, Step::Connections, ([false, true, true], none, false), true),
        ] {
            assert_eq!(overload.observe(pressure(used)), step);
            assert_eq!((admitted(&overload), overload.trims()), (expected, trims), "{used}");
        }
    }

    #[tokio::test]
    async fn the_scarcest_resource_decides() {
        for pressure in [
            Pressure { memory: 0.99, ..Pressure::default() },
            Pressure { descriptors: 0.99, ..Pressure::default() },
            Pressure { delay: 3.0, ..Pressure::default() },
        ] {
            let mut overload = Overload::new(OverloadMetrics::default(), &Handle::current());
            overload.epoch -= SETTLING;
            assert_eq!(overload.observe(pressure), Step::Connections, "{pressure:?}");
            assert_eq!(overload.status().pressure, pressure);
        }
    }
}
