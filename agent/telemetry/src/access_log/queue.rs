//! Lines that wait to be written: appended by whoever logs, taken all at once by the writer.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Lines that may wait for the writer.
const MOST: u64 = 16_384;
/// Bytes of such lines, which say what clients have asked for.
const MOST_BYTES: usize = 16 << 20;
/// A buffer that has grown beyond this, in bytes, is not kept.
const KEPT: usize = 256 << 10;

/// The writer's end.
pub(super) struct Queue(Arc<Shared>);

/// The end of those who log. The queue ends with it.
#[derive(Debug)]
pub(super) struct Sender(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, each with its line feed.
    text: String,
    lines: u64,
    /// The writer waits for a line, whatever the time.
    idle: bool,
    /// The writer is not to wait for more lines.
    hurry: bool,
    /// Nobody logs any more.
    closed: bool,
}

/// Both ends.
pub(super) fn queue() -> (Sender, Queue) {
    let shared = Arc::<Shared>::default();
    (Sender(Arc::clone(&shared)), Queue(shared))
}

impl Sender {
    /// Appends a line and counts it in `queued`; `false` where there is no room for it.
    pub(super) fn push(&self, line: &str, queued: &AtomicU64) -> bool {
        let mut state = self.0.lock();
        let before = state.text.len();
        if state.lines >= MOST || before + line.len() >= MOST_BYTES {
            return false;
        }
        state.text.push_str(line);
        state.text.push('\n');
        state.lines += 1;
        // Under the lock: what the writer has taken is counted.
        queued.fetch_add(1, Ordering::Relaxed);
        // The writer is woken once, not by every line until it has come.
        let passed = before < MOST_BYTES / 2 && state.text.len() >= MOST_BYTES / 2;
        let half_full = state.lines == MOST / 2 || passed;
        state.hurry |= half_full;
        let wake = std::mem::take(&mut state.idle) || half_full;
        drop(state);
        if wake {
            self.0.news.notify_one();
        }
        true
    }

    /// Has the writer take what there is at once.
    pub(super) fn hurry(&self) {
        self.0.lock().hurry = true;
        self.0.news.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.news.notify_one();
    }
}

impl Queue {
    /// Waits for a line, and until `not_before` for others; puts all of them into `batch`, instead of
    /// what is there, and says how many that were. `None` when there will be no more.
    pub(super) fn take(&self, batch: &mut String, not_before: Instant) -> Option<u64> {
        if batch.capacity() > KEPT {
            *batch = String::new();
        }
        batch.clear();
        let mut state = self.0.lock();
        while state.lines == 0 {
            if state.closed {
                return None;
            }
            state.idle = true;
            state = self.0.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle = false;
        while !state.hurry && !state.closed {
            let left = not_before.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.0.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.hurry = false;
        std::mem::swap(&mut state.text, batch);
        Some(std::mem::take(&mut state.lines))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn push(sender: &Sender, line: &str) -> bool {
        sender.push(line, &AtomicU64::new(0))
    }

    #[test]
    fn lines_are_taken_together_and_in_order() {
        let (sender, queue) = queue();
        assert!(push(&sender, "a") && push(&sender, "b"));
        let mut batch = "left over".to_owned();
        assert_eq!(queue.take(&mut batch, Instant::now()), Some(2));
        assert_eq!(batch, "a\nb\n");
    }

    #[test]
    fn a_full_queue_takes_nothing_more_until_it_is_emptied() {
        let (sender, queue) = queue();
        assert!((0..MOST).all(|_| push(&sender, "x")));
        assert!(!push(&sender, "x"));
        // Half full, it does not wait for more.
        assert_eq!(queue.take(&mut String::new(), Instant::now() + LONG), Some(MOST));
        assert!(push(&sender, "x"));
    }

    #[test]
    fn long_lines_fill_it_as_well() {
        let (sender, queue) = queue();
        let line = "x".repeat(MOST_BYTES / 4);
        assert!((0..3).all(|_| push(&sender, &line)));
        assert!(!push(&sender, &line));
        assert!(push(&sender, "short"));
        assert_eq!(queue.take(&mut String::new(), Instant::now() + LONG), Some(4));
    }

    #[test]
    fn what_was_logged_before_the_end_is_still_taken() {
        let (sender, queue) = queue();
        assert!(push(&sender, "last"));
        drop(sender);
        let later = Instant::now() + LONG;
        assert_eq!(queue.take(&mut String::new(), later), Some(1));
        assert_eq!(queue.take(&mut String::new(), later), None);
    }

    #[test]
    fn the_writer_gathers_until_its_time_unless_it_is_to_hurry() {
        let (sender, queue) = queue();
        assert!(push(&sender, "a"));
        thread::scope(|scope| {
            let taken = scope.spawn(|| queue.take(&mut String::new(), Instant::now() + LONG));
            assert!(push(&sender, "b"));
            sender.hurry();
            assert!(taken.join().unwrap().is_some());
        });
        assert!(push(&sender, "c"));
        let until = Instant::now() + Duration::from_millis(20);
        assert!(queue.take(&mut String::new(), until).is_some());
        assert!(Instant::now() >= until);
    }
}
