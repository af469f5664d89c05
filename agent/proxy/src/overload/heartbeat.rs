//! How late the threads that carry connections get to what they have to do: a task of theirs that wants to run
//! every so often, and sees when it does.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

/// How often it wants to run.
const BEAT: Duration = Duration::from_millis(100);
/// Beats that have to be late: a single one is chance.
const BEATS: usize = 5;

/// The task's traces.
pub(crate) struct Heartbeat(Arc<Beats>);

struct Beats {
    epoch: Instant,
    /// Milliseconds of the last beat, since the epoch.
    last: AtomicU64,
    /// How late the last beats were, in milliseconds.
    late: [AtomicU64; BEATS],
}

impl Heartbeat {
    /// The task ends with the value.
    pub(crate) fn start(runtime: &Handle) -> Self {
        let beats = Arc::new(Beats {
            epoch: Instant::now(),
            last: AtomicU64::new(0),
            late: Default::default(),
        });
        runtime.spawn(beat(Arc::downgrade(&beats)));
        Self(beats)
    }

    /// The least delay of the last beats, the one that is due included.
    pub(crate) fn delay(&self) -> Duration {
        self.0.delay(self.0.now())
    }
}

impl Beats {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn delay(&self, now: u64) -> Duration {
        let least = self.late.iter().map(|late| late.load(Ordering::Relaxed)).min();
        // Where nothing runs at all, no beat is there to say so.
        let window = BEAT.as_millis() as u64 * BEATS as u64;
        let silent = now.saturating_sub(self.last.load(Ordering::Relaxed)).saturating_sub(window);
        Duration::from_millis(least.unwrap_or_default().max(silent))
    }

    fn note(&self, number: usize, late: Duration) {
        let late = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
        self.late[number % BEATS].store(late, Ordering::Relaxed);
        self.last.store(self.now(), Ordering::Relaxed);
    }
}

async fn beat(beats: Weak<Beats>) {
    for number in 0_usize.. {
        let asleep = Instant::now();
        tokio::time::sleep(BEAT).await;
        let Some(beats) = beats.upgrade() else { return };
        beats.note(number, asleep.elapsed().saturating_sub(BEAT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats() -> Beats {
        Beats { epoch: Instant::now(), last: AtomicU64::new(0), late: Default::default() }
    }

    #[test]
    fn one_late_beat_is_chance_and_several_in_a_row_are_none() {
        let beats = beats();
        for number in 0..BEATS {
            assert_eq!(beats.delay(0), Duration::ZERO, "after {number}");
            beats.note(number, Duration::from_millis(300 + number as u64));
        }
        assert_eq!(beats.delay(0), Duration::from_millis(300));
        beats.note(BEATS, Duration::ZERO);
        assert_eq!(beats.delay(0), Duration::ZERO);
    }

    #[test]
    fn a_heart_that_has_stopped_is_noticed() {
        assert_eq!(beats().delay(10_500), Duration::from_secs(10));
    }
}
