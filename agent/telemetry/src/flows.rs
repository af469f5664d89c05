//! The newest lines of the access log, kept in memory for whoever asks what is happening now.
//!
//! A follower asks again from where it stopped, so the agent keeps nothing per follower, and a
//! connection never waits for one. What was overwritten in between is counted, not hidden.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Flow records, the newest of them; the oldest goes when there is no room.
#[derive(Debug)]
pub struct Flows {
    capacity: usize,
    /// What numbers begin after. Those of a former agent are lower.
    base: u64,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Arc<str>>,
    /// Records that were ever pushed.
    pushed: u64,
}

/// What one question found.
#[derive(Debug, PartialEq, Eq)]
pub struct FlowPage {
    /// Lines of the access log, oldest first.
    pub lines: Vec<Arc<str>>,
    /// Records after the one asked for that were overwritten before the question came.
    pub lost: u64,
    /// Number of the newest record: what to ask `after` next.
    pub next: u64,
}

impl Flows {
    /// Keeps up to `capacity` records; none where that is 0. Their numbers begin with the time, in
    /// microseconds, so that no two agents of a node give the same.
    pub fn new(capacity: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::numbered(capacity, u64::try_from(now.as_micros()).unwrap_or_default())
    }

    fn numbered(capacity: usize, base: u64) -> Self {
        Self { capacity, base, ring: Mutex::default() }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.capacity > 0
    }

    /// What is kept of the records after number `after`; everything that is kept for `None`. A
    /// number that was not given out is one of another agent, and stands for `None`.
    pub fn after(&self, after: Option<u64>) -> FlowPage {
        let ring = self.lock();
        let newest = self.base + ring.pushed;
        let oldest = newest - ring.lines.len() as u64;
        let given = self.base..=newest;
        let from = after.filter(|after| given.contains(after)).unwrap_or(oldest);
        let skip = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        FlowPage {
            lines: ring.lines.iter().skip(skip).cloned().collect(),
            lost: oldest.saturating_sub(from),
            next: newest,
        }
    }

    pub(crate) fn push(&self, line: &str) {
        let line = Arc::from(line);
        let mut ring = self.lock();
        ring.pushed += 1;
        let overwritten =
            if ring.lines.len() >= self.capacity { ring.lines.pop_front() } else { None };
        ring.lines.push_back(line);
        drop(ring);
        // Freed without the lock.
        drop(overwritten);
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(capacity: usize, records: u64) -> Flows {
        let flows = Flows::numbered(capacity, 0);
        (1..=records).for_each(|number| flows.push(&number.to_string()));
        flows
    }

    fn text(page: &FlowPage) -> Vec<&str> {
        page.lines.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn the_oldest_record_goes_when_there_is_no_room() {
        let page = filled(3, 5).after(None);
        assert_eq!((text(&page), page.lost, page.next), (vec!["3", "4", "5"], 0, 5));
    }

    #[test]
    fn a_follower_gets_what_is_new_and_only_that() {
        let flows = filled(3, 2);
        let page = flows.after(Some(1));
        assert_eq!((text(&page), page.lost, page.next), (vec!["2"], 0, 2));
        let page = flows.after(Some(2));
        assert_eq!((text(&page), page.lost, page.next), (vec![], 0, 2));
    }

    #[test]
    fn a_slow_follower_is_told_how_many_records_it_lost() {
        let page = filled(3, 10).after(Some(4));
        assert_eq!((text(&page), page.lost, page.next), (vec!["8", "9", "10"], 3, 10));
    }

    #[test]
    fn a_number_of_another_agent_starts_from_the_oldest_record() {
        for other in [99, 900] {
            let flows = Flows::numbered(3, 100);
            flows.push("1");
            flows.push("2");
            let page = flows.after(Some(other));
            assert_eq!((text(&page), page.lost, page.next), (vec!["1", "2"], 0, 102));
        }
        assert!(Flows::new(1).after(None).next > 1_600_000_000_000_000);
    }
}
