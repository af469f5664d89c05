//! The journal: what was told, in one ring, each record once. Whoever asks for flow records is shown the newest, and
//! the writer of the access log follows from where it was; neither is waited for.
//!
//! A record is kept as it was told, with its neighbours on a [`Page`], and becomes a line when somebody reads
//! it. To write lines while requests are served costs these more than the writing: the code and the memory that it takes
//! are not in the processor's caches there. For the same reason each thread has a page of its own to put records down
//! on, which goes into the ring when it is full, or when somebody reads.
//!
//! ```text
//! push -> a desk's page --- full, or somebody reads ---> ring -> excerpt -> lines, in the order of time
//! ```

mod excerpt;
mod ring;

use std::{
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use crate::{ends::Connection, page::Page, told::Told};
pub(crate) use excerpt::Excerpt;
use ring::Ring;

/// Most desks. More threads than that share them.
const MAX_DESKS: usize = 128;
/// Old pages that go when a new one comes: who serves a request does not clear up after all others.
const CLEARED: usize = 4;

/// The ring, and what is not in it yet.
///
/// Who holds a desk's lock may take that of the ring, and never the other way round.
#[derive(Debug)]
pub(crate) struct Journal {
    desks: Box<[Desk]>,
    ring: Mutex<Ring>,
    news: Condvar,
    /// The writer waits for a record, whatever the time. It is set before the writer looks at the desks for the last
    /// time, and looked at after a record was put down on one.
    idle: AtomicBool,
}

/// Where a thread puts records down. No two of them share what processors move between their caches.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Desk(Mutex<Page>);

impl Journal {
    /// An empty one, whose records are written or are not.
    pub(crate) fn new(written: bool) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let desks = (2 * threads).min(MAX_DESKS);
        Self {
            desks: (0..desks).map(|_| Desk::default()).collect(),
            ring: Mutex::new(Ring::new(written)),
            news: Condvar::new(),
            idle: AtomicBool::new(false),
        }
    }

    /// Keeps so many of the newest records for whoever asks.
    pub(crate) fn keep(&self, records: usize) {
        self.lock().keep(records as u64);
    }

    /// Adds a record of what has just happened.
    pub(crate) fn push(&self, connection: &Arc<Connection>, told: &Told<'_>) {
        let mut page = self.desks[desk() % self.desks.len()].lock();
        page.add(connection, told);
        if page.is_full() {
            self.hand_in(CLEARED, |ring| ring.add(&mut page));
        }
        drop(page);
        if self.idle.load(Ordering::Relaxed) {
            self.wake(|_| ());
        }
    }

    /// Of the records that are kept for whoever asks those from the number on that `choose` finds right, given the
    /// numbers of all.
    pub(crate) fn read(&self, choose: impl FnOnce(&Range<u64>) -> u64) -> Excerpt {
        self.gather();
        self.lock().read(choose)
    }

    /// For the writer: waits for a record, and until `not_before` for others; all that it has not taken. `None` when
    /// there will be no more.
    pub(crate) fn take(&self, not_before: Instant) -> Option<Excerpt> {
        loop {
            // What is told before the end is on a desk by then.
            let is_closed = self.lock().writer()?.closed;
            self.gather();
            let mut ring = self.lock();
            let (is_empty, writer) = (ring.is_taken(), ring.writer()?);
            let left = not_before.saturating_duration_since(Instant::now());
            if is_empty && is_closed {
                return None;
            } else if is_empty && !self.idle.swap(true, Ordering::SeqCst) {
                // Once more: what comes from now on wakes it.
            } else if is_empty {
                let is_idle = |_: &mut Ring| self.idle.load(Ordering::SeqCst);
                drop(self.news.wait_while(ring, is_idle).unwrap_or_else(PoisonError::into_inner));
            } else if writer.hurry || writer.closed || left.is_zero() {
                self.idle.store(false, Ordering::SeqCst);
                return ring.take();
            } else {
                self.idle.store(false, Ordering::SeqCst);
                drop(self.news.wait_timeout(ring, left).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// Has the writer take what there is at once. Says what number comes next.
    pub(crate) fn hurry(&self) -> u64 {
        self.gather();
        self.wake(|ring| {
            if let Some(writer) = ring.writer() {
                writer.hurry = true;
            }
            ring.next()
        })
    }

    /// Nobody tells anything any more.
    pub(crate) fn close(&self) {
        self.wake(|ring| {
            if let Some(writer) = ring.writer() {
                writer.closed = true;
            }
        });
    }

    /// Records that had to go before the writer took them.
    pub(crate) fn lost(&self) -> u64 {
        self.lock().writer().map_or(0, |writer| writer.lost)
    }

    /// Puts into the ring what is on the desks.
    fn gather(&self) {
        for desk in &self.desks {
            let mut page = desk.lock();
            if !page.is_empty() {
                self.hand_in(CLEARED, |ring| ring.copy(&mut page));
            }
        }
        self.hand_in(usize::MAX, |_| false);
    }

    /// Puts records into the ring, and frees old pages. `put` says whether the writer has to be woken.
    fn hand_in(&self, cleared: usize, put: impl FnOnce(&mut Ring) -> bool) {
        let mut ring = self.lock();
        let wake = put(&mut ring);
        let old = ring.evict(cleared);
        drop(ring);
        if wake {
            self.news.notify_one();
        }
        // Connections that are gone by now are freed without the ring's lock.
        let spare = old.into_iter().filter_map(Arc::into_inner).filter_map(Page::emptied).last();
        if let Some(spare) = spare {
            self.lock().spare(spare);
        }
    }

    /// Changes something that the writer has to know.
    fn wake<T>(&self, change: impl FnOnce(&mut Ring) -> T) -> T {
        let mut ring = self.lock();
        let changed = change(&mut ring);
        // It waits with the lock, so it has either begun to or sees this before.
        self.idle.store(false, Ordering::SeqCst);
        drop(ring);
        self.news.notify_one();
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of this thread's desk. Those have the same that began to tell when there was none left.
fn desk() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    OWN.with(|own| *own)
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::{
        ring::{MOST, MOST_BYTES},
        *,
    };
    use crate::{
        RequestInfo,
        page::TOGETHER,
        told::samples::{self, details, tell},
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
    fn what_several_threads_tell_is_read_in_the_order_of_time() {
        let journal = journal(1000);
        for number in 0..200_u64 {
            thread::scope(|scope| scope.spawn(|| tell(&journal, &number.to_string())).join())
                .unwrap();
            if number == 100 {
                assert_eq!(details(journal.read(|all| all.start).lines()), texts(0..101));
            }
        }
        assert_eq!(details(journal.read(|all| all.start).lines()), texts(0..200));
        assert_eq!(taken(&journal), texts(0..200));
    }

    #[test]
    fn nothing_is_lost_of_what_many_threads_tell_while_it_is_written() {
        let journal = journal(0);
        // No more than may wait.
        let each = MOST / 4;
        let (told, mut taken) = (4 * each as usize, Vec::new());
        thread::scope(|scope| {
            for begin in 0..4 {
                let journal = &journal;
                scope.spawn(move || fill(journal, begin * each..(begin + 1) * each));
            }
            // It waits each time, with nothing that would wake it but what is told.
            while taken.len() + (journal.lost() as usize) < told {
                taken.extend(details(journal.take(Instant::now()).unwrap().lines()));
            }
        });
        assert_eq!(journal.lost(), 0);
        taken.sort_by_key(|number| number.parse::<u64>().unwrap());
        assert_eq!(taken, texts(0..told as u64));
    }

    #[test]
    fn what_nobody_is_to_see_any_more_is_gone() {
        let journal = journal(10);
        fill(&journal, 0..1000);
        assert!(journal.lock().pages().len() > 10, "the writer has not taken them");
        drop(journal.take(Instant::now()));
        fill(&journal, 1000..1040);
        assert_eq!(details(journal.read(|all| all.start).lines()), texts(1030..1040));
        assert!(journal.lock().pages().len() <= 2);
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
        drop(journal.read(|all| all.start));
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
        let connection = Arc::new(Connection::new(0, &samples::connection()));
        let name: Arc<str> = "x".repeat(u16::MAX.into()).into();
        let long =
            RequestInfo { route_name: Some(&name), detail: Some("long"), ..Default::default() };
        let most = MOST_BYTES / name.len();
        for number in 0..most {
            // Unlike the one before.
            let long = RequestInfo { generation: number as u64, ..long };
            journal.push(&connection, &Told::Request(&long));
        }
        assert!(journal.lost() > 0 && journal.lost() as usize <= 2 * TOGETHER);
        assert!(journal.lock().writer().unwrap().bytes <= MOST_BYTES);
        let kept = most + 1 - journal.lost() as usize;
        assert_eq!(taken(&journal), vec!["long"; kept]);
        assert_eq!(journal.lock().writer().unwrap().bytes, 0);
    }

    #[test]
    fn an_old_page_is_used_again() {
        let journal = journal(0);
        for round in 0..3 {
            fill(&journal, 0..2 * TOGETHER as u64);
            assert_eq!(taken(&journal), texts(0..2 * TOGETHER as u64), "{round}");
        }
        drop(journal.read(|all| all.start));
        assert!(journal.lock().has_spare());
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
