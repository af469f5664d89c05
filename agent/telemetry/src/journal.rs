//! The journal: what was told, in one ring, each record once. Whoever asks for flow records is shown the newest, and
//! the writer of the access log follows from where it was; neither is waited for.
//!
//! A record is kept as it was told, with its neighbours on a [`Page`], and becomes a line when somebody reads
//! it. To write lines while requests are served costs these more than the writing: the code and the memory that it takes
//! are not in the processor's caches there.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{ends::Connection, line::Lines, page::Page, told::Told};

/// Records that may wait for the writer.
const MOST: u64 = 16_384;
/// Bytes of their texts, without what their connections have in common.
const MOST_BYTES: usize = 16 << 20;

/// The ring. Records have numbers, from 0.
#[derive(Debug)]
pub(crate) struct Journal {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pages: VecDeque<Arc<Page>>,
    /// Number of the record that comes next.
    next: u64,
    /// The newest that are kept for whoever asks.
    kept: u64,
    writer: Option<Writer>,
    /// An old page, to be filled anew.
    spare: Option<Page>,
}

/// What the writer has before it.
#[derive(Debug, Default)]
struct Writer {
    /// The first record that it has not taken.
    from: u64,
    /// Bytes from there.
    bytes: usize,
    /// Records that had to go before it took them.
    lost: u64,
    /// It waits for a record, whatever the time.
    idle: bool,
    /// It is not to wait for more records.
    hurry: bool,
    /// Nobody tells anything any more.
    closed: bool,
}

/// Records that somebody reads. Those that come meanwhile do not change them.
#[derive(Debug)]
pub(crate) struct Excerpt {
    pages: Vec<Arc<Page>>,
    numbers: Range<u64>,
}

impl Journal {
    /// An empty one, whose records are written or are not.
    pub(crate) fn new(written: bool) -> Self {
        let writer = written.then(Writer::default);
        let state = State { writer, ..State::default() };
        Self { state: Mutex::new(state), news: Condvar::new() }
    }

    /// Keeps so many of the newest records for whoever asks.
    pub(crate) fn keep(&self, records: usize) {
        self.lock().kept = records as u64;
    }

    /// Adds a record of what has just happened.
    pub(crate) fn push(&self, connection: &Arc<Connection>, told: &Told<'_>) {
        let mut state = self.lock();
        let bytes = state.add(connection, told);
        let wake = state.announce(bytes);
        let old = [state.evict(), state.evict()];
        drop(state);
        if wake {
            self.news.notify_one();
        }
        // Connections that are gone by now are freed without the lock.
        let spare = old.into_iter().flatten().filter_map(Arc::into_inner).find_map(Page::emptied);
        if spare.is_some() {
            self.lock().spare = spare;
        }
    }

    /// Of the records that are kept for whoever asks those from the number on that `choose` finds right, given the
    /// numbers of all.
    pub(crate) fn read(&self, choose: impl FnOnce(&Range<u64>) -> u64) -> Excerpt {
        let state = self.lock();
        let kept = state.next.saturating_sub(state.kept)..state.next;
        let from = choose(&kept).clamp(kept.start, kept.end);
        state.excerpt(from)
    }

    /// For the writer: waits for a record, and until `not_before` for others; all that it has not taken. `None` when
    /// there will be no more.
    pub(crate) fn take(&self, not_before: Instant) -> Option<Excerpt> {
        let mut state = self.lock();
        loop {
            let next = state.next;
            let writer = state.writer.as_mut()?;
            let left = not_before.saturating_duration_since(Instant::now());
            writer.idle = writer.from == next;
            if writer.idle && writer.closed {
                return None;
            }
            if writer.idle {
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if writer.hurry || writer.closed || left.is_zero() {
                break;
            } else {
                let waited = self.news.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let next = state.next;
        let writer = state.writer.as_mut()?;
        (writer.hurry, writer.bytes) = (false, 0);
        let from = std::mem::replace(&mut writer.from, next);
        Some(state.excerpt(from))
    }

    /// Has the writer take what there is at once. Says what number comes next.
    pub(crate) fn hurry(&self) -> u64 {
        let mut state = self.lock();
        if let Some(writer) = &mut state.writer {
            writer.hurry = true;
        }
        self.news.notify_one();
        state.next
    }

    /// Nobody tells anything any more.
    pub(crate) fn close(&self) {
        if let Some(writer) = &mut self.lock().writer {
            writer.closed = true;
        }
        self.news.notify_one();
    }

    /// Records that had to go before the writer took them.
    pub(crate) fn lost(&self) -> u64 {
        self.lock().writer.as_ref().map_or(0, |writer| writer.lost)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Says how many bytes of text it has.
    fn add(&mut self, connection: &Arc<Connection>, told: &Told<'_>) -> usize {
        let number = self.next;
        self.next += 1;
        // One that somebody reads is not written to any more.
        let last = self.pages.back_mut().and_then(Arc::get_mut);
        if let Some(page) = last.filter(|page| page.has_room()) {
            return page.add(connection, told);
        }
        let mut page = self.spare.take().unwrap_or_default().from(number);
        let bytes = page.add(connection, told);
        self.pages.push_back(Arc::new(page));
        bytes
    }

    /// Tells the writer of a record of so many bytes; whether it has to be woken. It is woken once, not by every
    /// record until it has come.
    fn announce(&mut self, bytes: usize) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        writer.bytes += bytes;
        let waiting = self.next - writer.from;
        let before = writer.bytes - bytes;
        let passed = before < MOST_BYTES / 2 && writer.bytes >= MOST_BYTES / 2;
        let half_full = waiting == MOST / 2 || passed;
        writer.hurry |= half_full;
        while self.next - writer.from > MOST || writer.bytes > MOST_BYTES {
            // The oldest go, a page of them, but never the newest.
            let oldest = self.pages.iter().find(|page| page.end() > writer.from);
            let Some(page) = oldest.filter(|page| page.end() < self.next) else { break };
            writer.lost += page.end() - writer.from;
            writer.bytes = writer.bytes.saturating_sub(page.bytes_from(writer.from));
            writer.from = page.end();
        }
        std::mem::take(&mut writer.idle) || half_full
    }

    /// The oldest page, if nobody is to see it any more.
    fn evict(&mut self) -> Option<Arc<Page>> {
        let asked = self.next.saturating_sub(self.kept);
        let needed = self.writer.as_ref().map_or(asked, |writer| asked.min(writer.from));
        let is_old = self.pages.front().is_some_and(|page| page.end() <= needed);
        if is_old { self.pages.pop_front() } else { None }
    }

    fn excerpt(&self, from: u64) -> Excerpt {
        let pages = self.pages.iter().filter(|page| page.end() > from).cloned().collect();
        Excerpt { pages, numbers: from..self.next }
    }
}

impl Excerpt {
    /// Their numbers.
    pub(crate) fn numbers(&self) -> &Range<u64> {
        &self.numbers
    }

    /// Writes the line of one after the other to the end of `text`, and shows it.
    pub(crate) fn each(
        &self,
        lines: &mut Lines,
        text: &mut String,
        mut see: impl FnMut(&mut String),
    ) {
        for page in &self.pages {
            page.each(lines, text, |number| self.numbers.contains(&number), &mut see);
        }
    }

    /// The line of each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.each(&mut Lines::default(), &mut String::new(), |text| all.push(std::mem::take(text)));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;
    use crate::{
        RequestInfo,
        page::TOGETHER,
        told::samples::{details, tell},
    };

    const LONG: Duration = Duration::from_secs(3600);

    fn journal(kept: usize) -> Journal {
        let journal = Journal::new(true);
        journal.keep(kept);
        journal
    }

    fn fill(journal: &Journal, numbers: Range<u64>) {
        numbers.for_each(|number| tell(journal, &number.to_string()));
    }

    fn taken(journal: &Journal) -> Vec<String> {
        details(journal.take(Instant::now()).unwrap().lines())
    }

    fn texts(numbers: Range<u64>) -> Vec<String> {
        numbers.map(|number| number.to_string()).collect()
    }

    #[test]
    fn records_are_taken_together_and_in_order_and_once() {
        let journal = journal(0);
        fill(&journal, 0..100);
        assert_eq!(taken(&journal), texts(0..100));
        fill(&journal, 100..103);
        assert_eq!(taken(&journal), texts(100..103));
    }

    #[test]
    fn the_newest_are_kept_whatever_stands_together() {
        for kept in [1, TOGETHER as u64 - 1, TOGETHER as u64, 3 * TOGETHER as u64 + 1] {
            let journal = Journal::new(false);
            journal.keep(kept as usize);
            for number in 0..5 * TOGETHER as u64 {
                tell(&journal, &number.to_string());
                let read = journal.read(|all| all.start);
                assert_eq!(
                    details(read.lines()),
                    texts((number + 1).saturating_sub(kept)..number + 1)
                );
            }
        }
    }

    #[test]
    fn what_nobody_is_to_see_any_more_is_gone() {
        let journal = journal(10);
        fill(&journal, 0..1000);
        assert!(journal.lock().pages.len() > 10, "the writer has not taken them");
        drop(journal.take(Instant::now()));
        fill(&journal, 1000..1040);
        assert!(journal.lock().pages.len() <= 2);
    }

    #[test]
    fn what_somebody_reads_stays_as_it_is() {
        let journal = Journal::new(false);
        journal.keep(2);
        fill(&journal, 0..2);
        let read = journal.read(|all| all.start);
        fill(&journal, 2..300);
        assert_eq!(details(read.lines()), texts(0..2));
        assert_eq!(details(journal.read(|all| all.start).lines()), texts(298..300));
    }

    #[test]
    fn a_slow_writer_loses_the_oldest_and_is_told_how_many() {
        let journal = journal(0);
        fill(&journal, 0..MOST);
        assert_eq!(journal.lost(), 0);
        fill(&journal, MOST..MOST + 1);
        assert_eq!(journal.lost(), TOGETHER as u64);
        // Half full, it does not wait for more.
        let found = journal.take(Instant::now() + LONG).unwrap();
        assert_eq!(details(found.lines()), texts(TOGETHER as u64..MOST + 1));
        tell(&journal, "x");
        assert_eq!(taken(&journal), ["x"]);
        assert_eq!(journal.lost(), TOGETHER as u64);
    }

    #[test]
    fn long_records_fill_it_as_well() {
        let journal = journal(0);
        tell(&journal, "short");
        let connection = Arc::clone(journal.lock().pages[0].connection());
        let name = "x".repeat(u16::MAX.into());
        let long = RequestInfo { route_name: &name, detail: Some("long"), ..Default::default() };
        let most = MOST_BYTES / name.len();
        for number in 0..most {
            // Unlike the one before.
            let long = RequestInfo { generation: number as u64, ..long };
            journal.push(&connection, &Told::Request(&long));
        }
        assert!(journal.lost() > 0 && journal.lost() as usize <= 2 * TOGETHER);
        assert!(journal.lock().writer.as_ref().unwrap().bytes <= MOST_BYTES);
        let kept = most + 1 - journal.lost() as usize;
        assert_eq!(taken(&journal), vec!["long"; kept]);
        assert_eq!(journal.lock().writer.as_ref().unwrap().bytes, 0);
    }

    #[test]
    fn an_old_page_is_used_again() {
        let journal = journal(0);
        for round in 0..3 {
            fill(&journal, 0..2 * TOGETHER as u64);
            assert_eq!(taken(&journal), texts(0..2 * TOGETHER as u64), "{round}");
        }
        tell(&journal, "one more");
        assert!(journal.lock().spare.as_ref().is_some_and(Page::is_to_be_filled));
    }

    #[test]
    fn what_was_told_before_the_end_is_still_taken() {
        let journal = journal(0);
        tell(&journal, "last");
        journal.close();
        let later = Instant::now() + LONG;
        assert_eq!(details(journal.take(later).unwrap().lines()), ["last"]);
        assert!(journal.take(later).is_none());
    }

    #[test]
    fn the_writer_gathers_until_its_time_unless_it_is_to_hurry() {
        let journal = journal(0);
        tell(&journal, "a");
        thread::scope(|scope| {
            let taken = scope.spawn(|| journal.take(Instant::now() + LONG));
            tell(&journal, "b");
            assert_eq!(journal.hurry(), 2);
            assert_eq!(details(taken.join().unwrap().unwrap().lines()), ["a", "b"]);
        });
        tell(&journal, "c");
        let until = Instant::now() + Duration::from_millis(20);
        assert!(journal.take(until).is_some());
        assert!(Instant::now() >= until);
    }
}
