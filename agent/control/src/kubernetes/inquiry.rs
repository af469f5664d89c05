//! When a server is asked which kinds it has: now and then, and for a while often, since its discovery lags
//! behind definitions that come and go.

use std::time::{Duration, Instant};

use super::{Timing, backoff::jittered};

/// Discovery is asked again this often after kinds have come or gone.
const EAGER: u32 = 4;

/// The questions, one at a time.
#[derive(Clone, Debug)]
pub(crate) struct Inquiry {
    timing: Timing,
    /// An answer is awaited.
    asked: bool,
    /// How often it is still to be asked soon.
    eager: u32,
    at: Instant,
}

impl Inquiry {
    /// The first is due at once.
    pub(crate) fn new(timing: Timing) -> Self {
        Self { timing, asked: false, eager: 0, at: Instant::now() }
    }

    /// Whether to ask now; who is told so asks.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = !self.asked && Instant::now() >= self.at;
        self.asked |= due;
        due
    }

    /// When the next is due; none while an answer is awaited.
    pub(crate) fn next(&self) -> Option<Instant> {
        (!self.asked).then_some(self.at)
    }

    /// Kinds have come or gone, or seem to have.
    pub(crate) fn soon(&mut self) {
        self.eager = EAGER;
        self.at = self.at.min(Instant::now() + self.timing.first_retry);
    }

    /// The server has answered.
    pub(crate) fn answered(&mut self) {
        let wait = match self.eager {
            0 => jittered(self.timing.discovery),
            _ => self.timing.first_retry * 2,
        };
        self.eager = self.eager.saturating_sub(1);
        self.again(wait);
    }

    /// It has not, and is asked again after this.
    pub(crate) fn failed(&mut self, wait: Duration) {
        self.again(wait);
    }

    fn again(&mut self, wait: Duration) {
        self.asked = false;
        self.at = Instant::now() + wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(500);

    fn wait(inquiry: &Inquiry) -> Duration {
        inquiry.next().unwrap().saturating_duration_since(Instant::now())
    }

    #[test]
    fn one_is_asked_at_a_time_and_the_next_is_far_off() {
        let timing = Timing { first_retry: MOMENT, ..Timing::default() };
        let mut inquiry = Inquiry::new(timing);
        assert!(inquiry.is_due());
        assert!(!inquiry.is_due() && inquiry.next().is_none(), "an answer is awaited");
        inquiry.answered();
        assert!(!inquiry.is_due() && wait(&inquiry) > timing.discovery / 3);
        inquiry.failed(Duration::ZERO);
        assert!(inquiry.is_due());
    }

    #[test]
    fn after_a_change_it_is_asked_soon_some_times() {
        let timing = Timing { first_retry: MOMENT, ..Timing::default() };
        let mut inquiry = Inquiry::new(timing);
        inquiry.answered();
        inquiry.soon();
        assert!(wait(&inquiry) <= MOMENT);
        for _ in 0..EAGER {
            inquiry.answered();
            assert!(wait(&inquiry) <= MOMENT * 2);
        }
        inquiry.answered();
        assert!(wait(&inquiry) > MOMENT * 2);
    }
}
