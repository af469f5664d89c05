//! A token bucket in one number: the moment at which it will be full again.
//!
//! Source: the generic cell rate algorithm (ITU-T I.371, annex A).

use undermesh_model::Rate;

/// How a bucket fills up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Nanoseconds in which one comes back.
    interval: u64,
    /// Nanoseconds in which all come back.
    capacity: u64,
}

/// Whether there was one to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Yes {
        /// What is left.
        remaining: u64,
        /// Nanoseconds until the bucket is full.
        full_in: u64,
    },
    No {
        /// Nanoseconds until there is one.
        wait: u64,
    },
}

/// A bucket. It is full at the moment that it holds, and empty a capacity before that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Budget(u64);

impl Pace {
    pub(super) fn new(rate: Rate) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: never more than is allowed.
        let interval = per.div_ceil(u64::from(rate.count.get())).max(1);
        Self { interval, capacity: interval.saturating_mul(u64::from(rate.burst.get())) }
    }
}

impl Budget {
    /// Takes one, if there is one.
    pub(super) fn take(&mut self, pace: Pace, now: u64) -> Taken {
        let full_at = self.0.max(now).saturating_add(pace.interval);
        let full_in = full_at - now;
        if full_in > pace.capacity {
            return Taken::No { wait: full_in - pace.capacity };
        }
        self.0 = full_at;
        Taken::Yes { remaining: (pace.capacity - full_in) / pace.interval, full_in }
    }

    /// What is left, and nanoseconds until the bucket is full or, where nothing is left, until there is one.
    pub(super) fn left(self, pace: Pace, now: u64) -> (u64, u64) {
        let full_in = self.0.saturating_sub(now);
        match pace.capacity.saturating_sub(full_in) / pace.interval {
            0 => (0, full_in.saturating_add(pace.interval).saturating_sub(pace.capacity)),
            remaining => (remaining, full_in),
        }
    }

    /// Takes back that one was taken.
    pub(super) fn give_back(&mut self, pace: Pace) {
        self.0 = self.0.saturating_sub(pace.interval);
    }

    /// Full, so that nothing is lost if it is forgotten.
    pub(super) fn is_full(self, now: u64) -> bool {
        self.0 <= now
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn pace(count: u32, per: Duration, burst: u32) -> Pace {
        let number = |number| NonZeroU32::new(number).unwrap();
        Pace::new(Rate { count: number(count), per, burst: number(burst) })
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_may_come_at_once_and_then_one_by_one() {
        let pace = pace(2, Duration::from_secs(1), 3);
        let mut budget = Budget::default();
        let now = 5 * SECOND;
        for remaining in [2, 1, 0] {
            let Taken::Yes { remaining: left, .. } = budget.take(pace, now) else { panic!() };
            assert_eq!(left, remaining);
        }
        assert_eq!(budget.take(pace, now), Taken::No { wait: SECOND / 2 });
        assert_eq!(budget.take(pace, now + SECOND / 4), Taken::No { wait: SECOND / 4 });
        let later = budget.take(pace, now + SECOND / 2);
        assert_eq!(later, Taken::Yes { remaining: 0, full_in: 3 * SECOND / 2 });
        assert!(!budget.is_full(now + SECOND) && budget.is_full(now + 2 * SECOND));
    }

    #[test]
    fn whoever_only_looks_takes_nothing_and_sees_what_whoever_takes_gets() {
        let pace = pace(2, Duration::from_secs(1), 3);
        let mut budget = Budget::default();
        let now = 5 * SECOND;
        assert_eq!(budget.left(pace, now), (3, 0));
        for _ in 0..3 {
            let Taken::Yes { remaining, full_in } = budget.take(pace, now) else { panic!() };
            let left = if remaining == 0 { (0, SECOND / 2) } else { (remaining, full_in) };
            assert_eq!((budget.left(pace, now), budget.left(pace, now)), (left, left));
        }
        let Taken::No { wait } = budget.take(pace, now + 1) else { panic!() };
        assert_eq!(budget.left(pace, now + 1), (0, wait));
        assert_eq!(budget.left(pace, now + 1 + wait).0, 1);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let pace = pace(1, Duration::from_secs(1), 1);
        let mut budget = Budget::default();
        assert!(matches!(budget.take(pace, 0), Taken::Yes { .. }));
        budget.give_back(pace);
        assert!(matches!(budget.take(pace, 0), Taken::Yes { .. }));
        assert!(matches!(budget.take(pace, 0), Taken::No { .. }));
    }

    #[test]
    fn the_largest_numbers_are_no_overflow() {
        let pace = pace(1, Duration::MAX, u32::MAX);
        let mut budget = Budget(u64::MAX);
        let _ = budget.take(pace, u64::MAX);
        budget.give_back(pace);
        let mut budget = Budget::default();
        let _ = budget.take(pace, u64::MAX);
    }

    proptest! {
        #[test]
        fn no_window_has_more_than_the_burst_and_the_rate(
            count in 1u32..50,
            per in 1u64..5_000_000_000,
            burst in 1u32..50,
            steps in prop::collection::vec(0u64..500_000_000, 1..200),
        ) {
            let pace = pace(count, Duration::from_nanos(per), burst);
            let mut budget = Budget::default();
            let mut now = SECOND;
            let mut taken = Vec::new();
            for step in steps {
                now += step;
                if matches!(budget.take(pace, now), Taken::Yes { .. }) {
                    taken.push(now);
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let most = u128::from(burst)
                        + u128::from(to - from) * u128::from(count) / u128::from(per);
                    prop_assert!((last - first + 1) as u128 <= most);
                }
            }
        }

        #[test]
        fn whoever_waits_as_long_as_was_said_gets_one(
            count in 1u32..50, burst in 1u32..50, gaps in prop::collection::vec(0u64..50_000_000, 1..100),
        ) {
            let pace = pace(count, Duration::from_secs(1), burst);
            let mut budget = Budget::default();
            let mut now = SECOND;
            for gap in gaps {
                now += gap;
                if let Taken::No { wait } = budget.take(pace, now) {
                    let before = budget.take(pace, now + wait - 1);
                    prop_assert_eq!(before, Taken::No { wait: 1 });
                    now += wait;
                    let taken = matches!(budget.take(pace, now), Taken::Yes { .. });
                    prop_assert!(taken);
                }
            }
        }
    }
}
