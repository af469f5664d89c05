//! How long to wait before something is tried again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Longer with each failure, and never the same for two agents: a server that comes back must not meet all
/// of them at once.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Something has worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait; at least what the server has asked for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        jittered(doubled).max(asked.unwrap_or_default().min(self.longest))
    }
}

/// Between half of it and all of it.
pub(crate) fn jittered(span: Duration) -> Duration {
    // Whoever makes one gets other keys.
    let random = RandomState::new().hash_one(0) as u32;
    span / 2 + (span / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_differ() {
        let (first, longest) = (Duration::from_millis(500), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, longest);
        let mut most = first;
        for _ in 0..40 {
            let wait = backoff.next(None);
            assert!(wait >= most / 2 && wait <= most, "{wait:?} of {most:?}");
            most = (most * 2).min(longest);
        }
        backoff.reset();
        assert!(backoff.next(None) <= first);
        assert!(backoff.next(Some(Duration::from_secs(7))) >= Duration::from_secs(7));
        assert!(backoff.next(Some(Duration::from_secs(7_000))) <= longest);
        let waits: Vec<_> = (0..8).map(|_| jittered(longest)).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }
}
