//! What replies say about a name over time: whether it changes, and when to ask again. No I/O.

use std::{net::IpAddr, time::Duration};

/// A name is not asked for more often than this, whatever its records say.
pub(super) const LEAST: Duration = Duration::from_secs(5);
/// Nor less often.
const MOST: Duration = Duration::from_secs(300);
/// First wait after a failure; doubled with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(30);
/// Addresses of one family that are used.
const MAX_ADDRESSES: usize = 64;

/// The reply about one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Addresses, in the server's order, and how long that holds.
    Found(Vec<IpAddr>, Duration),
    /// There are none, says somebody who knows.
    Nothing,
    /// Nobody who knows has answered.
    Failed(String),
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    v4: Family,
    v6: Family,
    /// Times in a row that led to nothing.
    fruitless: u32,
}

#[derive(Clone, Debug, Default)]
struct Family {
    addresses: Vec<IpAddr>,
    /// The last reply said that there are none.
    doubted: bool,
}

/// What a reply has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// When to ask again.
    pub(super) again: Duration,
    /// For metrics: `found`, `nothing` or `failed`.
    pub(super) result: &'static str,
    /// Why there is no answer.
    pub(super) error: Option<String>,
}

impl Answer {
    /// All addresses, IPv4 first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.addresses.iter().chain(&self.v6.addresses).copied()
    }

    /// Takes the replies for both families over.
    ///
    /// **Invariant**: what was known is given up for a reply, never for the want of one, and for a reply
    /// that there is nothing only once it was given twice: resolvers that have just started say so too.
    pub(super) fn take(&mut self, v4: Reply, v6: Reply) -> Taken {
        let ttl = [&v4, &v6].into_iter().filter_map(Reply::ttl).min();
        let error = [&v4, &v6].into_iter().find_map(Reply::error).cloned();
        self.v4.take(v4);
        self.v6.take(v6);
        if let Some(ttl) = ttl {
            self.fruitless = 0;
            let again = if self.is_doubted() { LEAST } else { ttl.clamp(LEAST, MOST) };
            // One family is enough: there are servers that cannot be asked for the other.
            return Taken { again, result: "found", error: None };
        }
        let again = FIRST_RETRY.saturating_mul(1 << self.fruitless.min(8)).min(LAST_RETRY);
        self.fruitless += 1;
        let again = if self.is_doubted() { LEAST } else { again };
        let result = if error.is_some() { "failed" } else { "nothing" };
        Taken { again, result, error }
    }

    fn is_doubted(&self) -> bool {
        [&self.v4, &self.v6].iter().any(|one| one.doubted && !one.addresses.is_empty())
    }
}

impl Family {
    fn take(&mut self, reply: Reply) {
        match reply {
            Reply::Found(mut addresses, _) => {
                addresses.truncate(MAX_ADDRESSES);
                *self = Self { addresses, doubted: false };
            }
            Reply::Nothing if self.doubted => self.addresses.clear(),
            Reply::Nothing => self.doubted = true,
            Reply::Failed(_) => {}
        }
    }
}

impl Reply {
    fn ttl(&self) -> Option<Duration> {
        match self {
            Self::Found(_, ttl) => Some(*ttl),
            Self::Nothing | Self::Failed(_) => None,
        }
    }

    fn error(&self) -> Option<&String> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Found(..) | Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: &str, seconds: u64) -> Reply {
        Reply::Found(vec![address.parse().unwrap()], Duration::from_secs(seconds))
    }

    fn failed() -> Reply {
        Reply::Failed("no".to_owned())
    }

    fn known(answer: &Answer) -> Vec<String> {
        answer.addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn records_are_kept_for_their_time_within_bounds() {
        let seconds = |a, b| Answer::default().take(a, b).again.as_secs();
        assert_eq!(seconds(found("192.0.2.1", 60), Reply::Nothing), 60);
        assert_eq!(seconds(found("192.0.2.1", 0), Reply::Nothing), 5);
        assert_eq!(seconds(found("192.0.2.1", 86_400), Reply::Nothing), 300);
        assert_eq!(seconds(found("192.0.2.1", 60), found("2001:db8::1", 20)), 20);
    }

    #[test]
    fn both_families_count_and_one_is_enough() {
        let mut answer = Answer::default();
        answer.take(found("192.0.2.1", 60), found("2001:db8::1", 60));
        assert_eq!(known(&answer), ["192.0.2.1", "2001:db8::1"]);
        let taken = answer.take(found("192.0.2.2", 60), failed());
        assert_eq!((taken.result, taken.error), ("found", None));
        assert_eq!(known(&answer), ["192.0.2.2", "2001:db8::1"]);
    }

    #[test]
    fn failures_keep_what_is_known_and_are_retried_ever_later() {
        let mut answer = Answer::default();
        answer.take(found("192.0.2.1", 60), Reply::Nothing);
        let waits: Vec<_> =
            (0..7).map(|_| answer.take(failed(), failed()).again.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(known(&answer), ["192.0.2.1"]);
        answer.take(found("192.0.2.1", 60), Reply::Nothing);
        assert_eq!(answer.take(failed(), failed()).again.as_secs(), 1);
    }

    #[test]
    fn a_name_without_addresses_has_none_only_when_that_was_said_twice() {
        let mut answer = Answer::default();
        answer.take(found("192.0.2.1", 60), Reply::Nothing);
        let taken = answer.take(Reply::Nothing, Reply::Nothing);
        assert_eq!((taken.result, taken.again), ("nothing", LEAST));
        assert_eq!(known(&answer), ["192.0.2.1"]);
        answer.take(failed(), failed());
        assert_eq!(known(&answer), ["192.0.2.1"]);
        answer.take(Reply::Nothing, Reply::Nothing);
        assert_eq!(known(&answer), Vec::<String>::new());
    }

    #[test]
    fn no_answer_is_too_long() {
        let many = (0..1000_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        let mut answer = Answer::default();
        answer.take(Reply::Found(many, Duration::from_secs(60)), Reply::Nothing);
        assert_eq!(answer.addresses().count(), MAX_ADDRESSES);
    }
}
