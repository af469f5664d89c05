//! The steps of overload, up and down. Pure: time is handed in.

use std::{fmt, time::Duration};

use serde::Serialize;

/// What is given up; each step includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// Nothing.
    #[default]
    None,
    /// Idle connections, and those made in advance.
    Trim,
    /// Requests of low priority.
    Requests,
    /// New connections whose requests would be looked at.
    Routed,
    /// All new connections that need the proxy.
    Connections,
}

/// How long it has to be calm before a step is taken back.
const CALM: Duration = Duration::from_secs(2);

/// Each step, the pressure that it begins at, and that below which it may end.
const STEPS: [(Step, f64, f64); 4] = [
    (Step::Trim, 0.80, 0.70),
    (Step::Requests, 0.90, 0.85),
    (Step::Routed, 0.95, 0.92),
    (Step::Connections, 0.98, 0.96),
];

impl Step {
    /// In words, for the log.
    pub(crate) const fn sheds(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Trim => "idle connections",
            Self::Requests => "idle connections, requests of low priority",
            Self::Routed => {
                "idle connections, requests of low priority, new connections with requests"
            }
            Self::Connections => "idle connections, requests of low priority, all new connections",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Trim => "trim",
            Self::Requests => "requests",
            Self::Routed => "routed",
            Self::Connections => "connections",
        })
    }
}

/// Where the proxy stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ladder {
    step: Step,
    /// Since when the step could be taken back.
    calm_since: Option<Duration>,
}

impl Ladder {
    pub(super) fn step(&self) -> Step {
        self.step
    }

    /// Goes up at once, as far as need be, and down one step at a time, after a while of calm.
    pub(super) fn observe(&mut self, pressure: f64, now: Duration) -> Step {
        let wanted = STEPS.iter().rev().find(|(_, begins, _)| pressure >= *begins);
        let wanted = wanted.map_or(Step::None, |(step, ..)| *step);
        if wanted >= self.step {
            // Only a step up is news; the same step starts a calm anew if it was not one.
            if wanted > self.step || !self.may_end(pressure) {
                self.calm_since = None;
            }
            self.step = wanted;
            return self.step;
        }
        if !self.may_end(pressure) {
            self.calm_since = None;
            return self.step;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_sub(since) >= CALM {
            self.step = below(self.step);
            self.calm_since = Some(now);
        }
        self.step
    }

    fn may_end(&self, pressure: f64) -> bool {
        let current = STEPS.iter().find(|(step, ..)| *step == self.step);
        current.is_some_and(|(_, _, ends)| pressure < *ends)
    }
}

fn below(step: Step) -> Step {
    let lower = STEPS.iter().rev().find(|(other, ..)| *other < step);
    lower.map_or(Step::None, |(step, ..)| *step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn pressure_is_answered_at_once_and_as_far_as_need_be() {
        for (pressure, step) in [
            (0.0, Step::None),
            (0.79, Step::None),
            (0.80, Step::Trim),
            (0.90, Step::Requests),
            (0.95, Step::Routed),
            (0.98, Step::Connections),
            (7.0, Step::Connections),
            (f64::NAN, Step::None),
        ] {
            assert_eq!(Ladder::default().observe(pressure, Duration::ZERO), step, "{pressure}");
        }
    }

    #[test]
    fn steps_are_taken_back_one_by_one_after_a_while_of_calm() {
        let mut ladder = Ladder::default();
        ladder.observe(0.99, seconds(0.0));
        for (at, pressure, step) in [
            (1.0, 0.97, Step::Connections), // not low enough
            (2.0, 0.5, Step::Connections),
            (3.0, 0.5, Step::Connections),
            (4.0, 0.5, Step::Routed),
            (5.0, 0.93, Step::Routed), // the calm is over
            (6.0, 0.5, Step::Routed),
            (7.9, 0.5, Step::Routed),
            (8.0, 0.5, Step::Requests),
            (10.0, 0.5, Step::Trim),
            (12.0, 0.5, Step::None),
            (12.1, 0.91, Step::Requests),
        ] {
            assert_eq!(ladder.observe(pressure, seconds(at)), step, "{at}");
        }
    }

    #[test]
    fn a_pressure_that_swings_around_a_threshold_changes_nothing() {
        let mut ladder = Ladder::default();
        ladder.observe(0.91, Duration::ZERO);
        for tick in 1..100 {
            let pressure = if tick % 2 == 0 { 0.91 } else { 0.86 };
            assert_eq!(ladder.observe(pressure, seconds(f64::from(tick))), Step::Requests);
        }
    }

    proptest! {
        #[test]
        fn no_step_is_skipped_on_the_way_down(pressures in prop::collection::vec(0.0..1.2f64, 1..200)) {
            let mut ladder = Ladder::default();
            let mut before = Step::None;
            for (tick, pressure) in pressures.into_iter().enumerate() {
                let step = ladder.observe(pressure, seconds(tick as f64));
                prop_assert!(step >= below(before));
                before = step;
            }
        }
    }
}
