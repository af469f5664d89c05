//! The access log: one JSON object per line, written by a thread of its own, so that a slow disk
//! costs lines and never a connection.
//!
//! To wake that thread for a line would cost more than the line: it writes at most every
//! [`GATHER`], and whoever logs only adds to the [`Journal`], which it follows.

mod sinks;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    behind,
    journal::{Excerpt, Journal},
    line::Lines,
};
use sinks::LineSink;

/// Time between two writes. The first line after a pause does not wait. Each time begins with code and memory that are in
/// no cache: ten times as often, writing lines costs three times as much (`docs/performance.md`).
const GATHER: Duration = Duration::from_millis(100);
/// Bytes that are written at once, and as many as a line has. A quarter of it costs a third more: a file system takes
/// little pages where a write does not begin at one.
const BATCH: usize = 128 << 10;

/// Where the lines go.
#[derive(Clone, Debug)]
pub enum AccessLogSink {
    /// Standard output.
    Stdout,
    /// A file, appended to, and opened anew when it has been moved away.
    File(PathBuf),
    /// Nowhere.
    Off,
    /// Memory, for tests.
    Memory(Arc<Mutex<Vec<String>>>),
}

/// A handle to the writer, and to what it follows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    journal: Arc<Journal>,
    /// Nothing where nothing is written.
    writer: Option<Arc<Open>>,
    progress: Arc<Progress>,
}

/// Closes the journal when the last handle goes: the writer ends with it.
#[derive(Debug)]
struct Open(Arc<Journal>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How far the writer is.
#[derive(Debug, Default)]
struct Progress {
    /// Lines that a sink has not taken.
    failed: AtomicU64,
    /// Number of the first line that is neither written nor lost.
    done: Mutex<u64>,
    advanced: Condvar,
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// Where the file cannot be opened or the thread cannot be started.
    pub fn start(sink: AccessLogSink) -> io::Result<Self> {
        let progress = Arc::new(Progress::default());
        let Some(sink) = sinks::open(sink)? else {
            return Ok(Self { journal: Arc::new(Journal::new(false)), writer: None, progress });
        };
        let journal = Arc::new(Journal::new(true));
        let writer = Writer { sink, progress: Arc::clone(&progress), gathered: 0, failing: false };
        let followed = Arc::clone(&journal);
        behind::spawn("access-log", move || writer.follow(&followed))?;
        let open = Arc::new(Open(Arc::clone(&journal)));
        Ok(Self { journal, writer: Some(open), progress })
    }

    /// Lines lost so far, to a writer that is too slow or a failing sink.
    pub fn dropped(&self) -> u64 {
        self.journal.lost() + self.progress.failed.load(Ordering::Relaxed)
    }

    /// Waits until the lines logged so far have been handed to the sink, and says whether that
    /// happened in time. Blocks; meant for the end of the process, which would lose them.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        if !self.is_on() {
            return true;
        }
        let target = self.journal.hurry();
        let done = self.progress.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.progress.advanced.wait_timeout_while(done, timeout, |done| *done < target);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What the writer follows.
    pub(crate) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Whether lines go anywhere.
    pub(crate) fn is_on(&self) -> bool {
        self.writer.is_some()
    }
}

impl Progress {
    fn advance(&self, written: &Excerpt) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = written.numbers().end;
        self.advanced.notify_all();
    }
}

/// The thread's own.
struct Writer {
    sink: Box<dyn LineSink>,
    progress: Arc<Progress>,
    /// Lines that are written next.
    gathered: u64,
    failing: bool,
}

impl Writer {
    /// Writes what there is in one go, until the last handle is gone.
    fn follow(mut self, journal: &Journal) {
        let mut lines = Lines::default();
        let mut batch = String::new();
        let mut not_before = Instant::now();
        while let Some(found) = journal.take(not_before) {
            found.each(&mut lines, &mut batch, |batch| {
                batch.push('\n');
                self.gathered += 1;
                if batch.len() >= BATCH {
                    self.hand_over(batch);
                }
            });
            self.hand_over(&mut batch);
            self.progress.advance(&found);
            not_before = Instant::now() + GATHER;
        }
    }

    /// Gives whole lines to the sink.
    fn hand_over(&mut self, batch: &mut String) {
        if batch.is_empty() {
            return;
        }
        let written = self.sink.write(batch);
        if written.is_err() {
            self.progress.failed.fetch_add(self.gathered, Ordering::Relaxed);
        }
        self.report(&written);
        batch.clear();
        batch.shrink_to(2 * BATCH);
        self.gathered = 0;
    }

    /// Says once that lines are being lost, and once that they no longer are.
    fn report(&mut self, written: &io::Result<()>) {
        match written {
            Err(error) if !self.failing => {
                tracing::error!(%error, "the access log cannot be written; its lines are being lost");
            }
            Ok(()) if self.failing => tracing::info!("the access log can be written again"),
            _ => {}
        }
        self.failing = written.is_err();
    }
}

#[cfg(test)]
mod tests;
