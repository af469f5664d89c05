//! The newest records of what is told, as the access log has them, kept in memory for whoever asks what is happening now.
//!
//! A follower asks again from where it stopped, so the agent keeps nothing per follower, and a
//! connection never waits for one. What was overwritten in between is counted, not hidden.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::journal::{Excerpt, Journal};

/// Flow records, the newest of them.
#[derive(Debug)]
pub struct Flows {
    journal: Arc<Journal>,
    capacity: usize,
    /// What numbers begin after. Those of a former agent are lower.
    base: u64,
}

/// What one question found.
#[derive(Debug)]
pub struct FlowPage {
    found: Excerpt,
    /// Records after the one asked for that were overwritten before the question came.
    pub lost: u64,
    /// Number of the newest record: what to ask `after` next.
    pub next: u64,
}

impl FlowPage {
    /// Lines of the access log, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.found.lines()
    }
}

impl Flows {
    /// Keeps up to `capacity` records of the journal; none where that is 0. Their numbers begin with the time, in
    /// microseconds, so that no two agents of a node give the same.
    pub(crate) fn new(journal: &Arc<Journal>, capacity: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::numbered(journal, capacity, u64::try_from(now.as_micros()).unwrap_or_default())
    }

    fn numbered(journal: &Arc<Journal>, capacity: usize, base: u64) -> Self {
        journal.keep(capacity);
        Self { journal: Arc::clone(journal), capacity, base }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.capacity > 0
    }

    /// What is kept of the records after number `after`; everything that is kept for `None`. A
    /// number that was not given out is one of another agent, and stands for `None`.
    pub fn after(&self, after: Option<u64>) -> FlowPage {
        let base = self.base;
        let mut lost = 0;
        let found = self.journal.read(|kept| {
            let asked = after.and_then(|after| after.checked_sub(base));
            let from = asked.filter(|from| *from <= kept.end).unwrap_or(kept.start);
            lost = kept.start.saturating_sub(from);
            from
        });
        let next = base + found.numbers().end;
        FlowPage { found, lost, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::told::samples::{details, tell};

    fn flows(capacity: usize, base: u64) -> Flows {
        Flows::numbered(&Arc::new(Journal::new(false)), capacity, base)
    }

    fn filled(capacity: usize, records: u64) -> Flows {
        let flows = flows(capacity, 0);
        (1..=records).for_each(|number| tell(&flows.journal, &number.to_string()));
        flows
    }

    fn found(page: &FlowPage) -> (String, u64, u64) {
        (details(page.lines()).join(" "), page.lost, page.next)
    }

    #[test]
    fn the_oldest_record_goes_when_there_is_no_room() {
        let page = filled(3, 5).after(None);
        assert_eq!(found(&page), ("3 4 5".to_owned(), 0, 5));
    }

    #[test]
    fn a_follower_gets_what_is_new_and_only_that() {
        let flows = filled(3, 2);
        let page = flows.after(Some(1));
        assert_eq!(found(&page), ("2".to_owned(), 0, 2));
        let page = flows.after(Some(2));
        assert_eq!(found(&page), ("".to_owned(), 0, 2));
    }

    #[test]
    fn a_slow_follower_is_told_how_many_records_it_lost() {
        let page = filled(3, 10).after(Some(4));
        assert_eq!(found(&page), ("8 9 10".to_owned(), 3, 10));
    }

    #[test]
    fn a_number_of_another_agent_starts_from_the_oldest_record() {
        for other in [99, 900] {
            let flows = flows(3, 100);
            tell(&flows.journal, "1");
            tell(&flows.journal, "2");
            let page = flows.after(Some(other));
            assert_eq!(found(&page), ("1 2".to_owned(), 0, 102));
        }
        assert!(
            Flows::new(&Arc::new(Journal::new(false)), 1).after(None).next > 1_600_000_000_000_000
        );
    }
}
