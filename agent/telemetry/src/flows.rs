//! The newest lines of the access log, kept in memory for whoever asks what is happening now.
//!
//! A follower asks again from where it stopped, so the agent keeps nothing per follower, and a
//! connection never waits for one. What was overwritten in between is counted, not hidden.

use std::{
    collections::VecDeque,
    fmt,
    ops::{Deref, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// Records that are kept together, and go together.
const TOGETHER: usize = 64;
/// Bytes of such records, at which no more are put to them.
const TOGETHER_BYTES: usize = 64 << 10;

/// Flow records, the newest of them; the oldest go when there is no room.
#[derive(Debug)]
pub struct Flows {
    capacity: usize,
    /// What numbers begin after. Those of a former agent are lower.
    base: u64,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    pages: VecDeque<Arc<Page>>,
    /// Records in them: as many as may be, and up to a page of others.
    kept: usize,
    /// Records that were ever pushed.
    pushed: u64,
    /// An old page, to be filled anew: records come and go without a room of their own.
    spare: Option<Page>,
}

/// Records that have come one after the other.
#[derive(Debug, Default)]
struct Page {
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
}

/// A record, as the line of the access log that it is.
#[derive(Clone)]
pub struct FlowLine {
    page: Arc<Page>,
    range: Range<usize>,
}

/// What one question found.
#[derive(Debug)]
pub struct FlowPage {
    /// Lines of the access log, oldest first.
    pub lines: Vec<FlowLine>,
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
        let kept = ring.kept.min(self.capacity);
        let oldest = newest - kept as u64;
        let given = self.base..=newest;
        let from = after.filter(|after| given.contains(after)).unwrap_or(oldest);
        let passed = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        FlowPage {
            lines: ring.newest(kept.saturating_sub(passed)),
            lost: oldest.saturating_sub(from),
            next: newest,
        }
    }

    pub(crate) fn push(&self, line: &str) {
        if self.is_on() {
            self.lock().push(line, self.capacity);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, line: &str, capacity: usize) {
        // One that somebody reads is not written to any more.
        let last = self.pages.back_mut().and_then(Arc::get_mut);
        match last.filter(|page| page.has_room(line)) {
            Some(page) => page.push(line),
            None => {
                let mut page = self.spare.take().unwrap_or_default();
                page.push(line);
                self.pages.push_back(Arc::new(page));
            }
        }
        self.pushed += 1;
        self.kept += 1;
        while let Some(oldest) = self.pages.front()
            && self.kept - oldest.ends.len() >= capacity
        {
            self.kept -= oldest.ends.len();
            self.spare = self.pages.pop_front().and_then(Arc::into_inner).and_then(Page::emptied);
        }
    }

    /// The last so many records.
    fn newest(&self, count: usize) -> Vec<FlowLine> {
        let skip = self.kept - count;
        let records = self.pages.iter().flat_map(|page| {
            let begins = std::iter::once(0).chain(page.ends.iter().copied());
            let ranges = begins.zip(&page.ends).map(|(begin, end)| begin..*end);
            ranges.map(|range| FlowLine { page: Arc::clone(page), range })
        });
        records.skip(skip).collect()
    }
}

impl Page {
    fn has_room(&self, line: &str) -> bool {
        self.ends.len() < TOGETHER && self.text.len() + line.len() <= TOGETHER_BYTES
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.ends.push(self.text.len());
    }

    /// The same room, unless one line has made it large.
    fn emptied(mut self) -> Option<Self> {
        self.text.clear();
        self.ends.clear();
        (self.text.capacity() <= 2 * TOGETHER_BYTES).then_some(self)
    }
}

impl Deref for FlowLine {
    type Target = str;

    fn deref(&self) -> &str {
        &self.page.text[self.range.clone()]
    }
}

impl fmt::Debug for FlowLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
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
        page.lines.iter().map(|line| &**line).collect()
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

    #[test]
    fn as_many_are_kept_as_may_be_whatever_stands_together() {
        for capacity in [1, TOGETHER - 1, TOGETHER, 3 * TOGETHER + 1] {
            let flows = filled(capacity, 0);
            for number in 1..=(5 * TOGETHER) {
                flows.push(&number.to_string());
                let page = flows.after(None);
                let wanted: Vec<String> = (number.saturating_sub(capacity) + 1..=number)
                    .map(|it| it.to_string())
                    .collect();
                assert_eq!(text(&page), wanted, "{capacity}");
            }
            assert!(flows.lock().kept < capacity + TOGETHER);
        }
    }

    #[test]
    fn what_somebody_reads_stays_as_it_is() {
        let flows = filled(2, 2);
        let page = flows.after(None);
        for number in 3..300 {
            flows.push(&number.to_string());
        }
        assert_eq!(text(&page), ["1", "2"]);
        assert_eq!(text(&flows.after(None)), ["298", "299"]);
    }

    #[test]
    fn long_records_do_not_stand_together_and_leave_no_room_behind() {
        let flows = filled(1, 0);
        flows.push(&"x".repeat(TOGETHER_BYTES - 1));
        flows.push("yy");
        assert_eq!(flows.lock().pages.len(), 1);
        flows.push(&"x".repeat(3 * TOGETHER_BYTES));
        flows.push("y");
        assert!(flows.lock().spare.is_none());
    }
}
