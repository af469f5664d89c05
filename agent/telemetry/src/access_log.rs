//! The access log: one JSON object per line, written by a thread of its own, so that a slow disk
//! costs lines and never a connection.
//!
//! To wake that thread for a line would cost more than the line: it writes at most every
//! [`GATHER`], and whoever logs only appends to what it will write next.

mod queue;
mod sinks;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use queue::{Queue, Sender};
use sinks::LineSink;

/// Time between two writes. The first line after a pause does not wait.
const GATHER: Duration = Duration::from_millis(10);

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

/// A handle to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Option<Arc<Sender>>,
    progress: Arc<Progress>,
}

/// How far the writer is.
#[derive(Debug, Default)]
struct Progress {
    /// Lines that have entered the queue.
    queued: AtomicU64,
    /// Lines that were lost.
    dropped: AtomicU64,
    /// Lines that have left the queue, written or lost.
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
            return Ok(Self { lines: None, progress });
        };
        let (sender, queue) = queue::queue();
        let shared = Arc::clone(&progress);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(sink, &queue, &shared))?;
        Ok(Self { lines: Some(Arc::new(sender)), progress })
    }

    /// Lines lost so far, to a full queue or a failing sink.
    pub fn dropped(&self) -> u64 {
        self.progress.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines logged so far have been handed to the sink, and says whether that
    /// happened in time. Blocks; meant for the end of the process, which would lose them.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let Some(lines) = &self.lines else { return true };
        let target = self.progress.queued.load(Ordering::Relaxed);
        lines.hurry();
        let done = self.progress.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.progress.advanced.wait_timeout_while(done, timeout, |done| *done < target);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Whether lines go anywhere.
    pub(crate) fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Logs a line.
    pub(crate) fn push(&self, line: &str) {
        let Some(lines) = &self.lines else { return };
        if !lines.push(line, &self.progress.queued) {
            self.progress.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Progress {
    fn advance(&self, lines: u64) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) += lines;
        self.advanced.notify_all();
    }
}

/// Writes what is there in one go, until the last handle is gone.
fn write_lines(mut sink: Box<dyn LineSink>, queue: &Queue, progress: &Progress) {
    let mut failing = false;
    let mut batch = String::new();
    let mut not_before = Instant::now();
    while let Some(count) = queue.take(&mut batch, not_before) {
        let written = sink.write(&batch);
        if written.is_err() {
            progress.dropped.fetch_add(count, Ordering::Relaxed);
        }
        report(&written, &mut failing);
        progress.advance(count);
        not_before = Instant::now() + GATHER;
    }
}

/// Says once that lines are being lost, and once that they no longer are.
fn report(written: &io::Result<()>, failing: &mut bool) {
    match written {
        Err(error) if !*failing => {
            tracing::error!(%error, "the access log cannot be written; its lines are being lost");
        }
        Ok(()) if *failing => tracing::info!("the access log can be written again"),
        _ => {}
    }
    *failing = written.is_err();
}

#[cfg(test)]
mod tests;
