//! How often something happens: an average over the last seconds that forgets.

use std::time::{Duration, Instant};

/// An event counts for half of this long, roughly.
const MEMORY: Duration = Duration::from_secs(2);
/// Opens that may come while a connection is being made: those of this long.
const LEAD: f64 = 0.1;
/// Fewer opens than this in memory are no pattern.
const HOT: f64 = 1.5;

/// The recent rate of one kind of event.
#[derive(Debug)]
pub(super) struct Rate {
    /// Events in memory, each fading with its age.
    weight: f64,
    at: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { weight: 0.0, at: now }
    }

    /// Something has happened.
    pub(super) fn note(&mut self, now: Instant) {
        self.weight = self.weight_at(now) + 1.0;
        self.at = now;
    }

    /// Connections to hold ready, at most `most`.
    pub(super) fn ready(&self, now: Instant, most: usize) -> usize {
        let weight = self.weight_at(now);
        if weight < HOT {
            return 0;
        }
        let expected = weight / MEMORY.as_secs_f64() * LEAD;
        (expected.ceil() as usize).clamp(1, most.max(1)).min(most)
    }

    /// True when nothing that has happened counts any more.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.weight_at(now) < 0.05
    }

    fn weight_at(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at);
        self.weight * (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_ready_follows_the_rate_and_is_bounded() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        rate.note(start);
        assert_eq!(rate.ready(start, 8), 0, "once is no pattern");
        rate.note(start);
        assert_eq!(rate.ready(start, 8), 1);
        for _ in 0..50 {
            rate.note(start);
        }
        assert_eq!(rate.ready(start, 8), 3);
        for _ in 0..5000 {
            rate.note(start);
        }
        assert_eq!(rate.ready(start, 8), 8);
        assert_eq!(rate.ready(start, 0), 0);
    }

    #[test]
    fn silence_is_forgotten() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for _ in 0..100 {
            rate.note(start);
        }
        let later = start + Duration::from_secs(20);
        assert_eq!(rate.ready(later, 8), 0);
        assert!(rate.is_forgotten(later) && !rate.is_forgotten(start));
    }
}
