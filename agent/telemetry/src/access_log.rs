//! The access log: one JSON object per line, written by a thread of its own, so that a slow disk
//! costs lines and never a connection.

mod sinks;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use serde::Serialize;

use sinks::LineSink;

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;

/// Lines that are written in one go.
const BATCH: usize = 256;

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
    lines: Option<SyncSender<String>>,
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
        let (sender, receiver) = sync_channel(QUEUE);
        let shared = Arc::clone(&progress);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(sink, &receiver, &shared))?;
        Ok(Self { lines: Some(sender), progress })
    }

    /// Lines lost so far, to a full queue or a failing sink.
    pub fn dropped(&self) -> u64 {
        self.progress.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines logged so far have been handed to the sink, and says whether that
    /// happened in time. Blocks; meant for the end of the process, which would lose them.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let target = self.progress.queued.load(Ordering::Relaxed);
        let done = self.progress.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.progress.advanced.wait_timeout_while(done, timeout, |done| *done < target);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Whether lines go anywhere.
    pub(crate) fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    pub(crate) fn write(&self, line: &impl Serialize) {
        if self.is_on() {
            self.write_text(serde_json::to_string(line).ok());
        }
    }

    /// The same with the line's text, or the loss of a line that has none.
    pub(crate) fn write_text(&self, text: Option<String>) {
        let Some(lines) = &self.lines else { return };
        let sent = text.is_some_and(|text| lines.try_send(text).is_ok());
        let counter = if sent { &self.progress.queued } else { &self.progress.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Progress {
    fn advance(&self, lines: u64) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) += lines;
        self.advanced.notify_all();
    }
}

/// Writes what is there in one go, until the last handle is gone.
fn write_lines(mut sink: Box<dyn LineSink>, lines: &Receiver<String>, progress: &Progress) {
    let mut failing = false;
    while let Ok(first) = lines.recv() {
        let (batch, count) = batch(first, lines);
        let written = sink.write(&batch);
        if written.is_err() {
            progress.dropped.fetch_add(count, Ordering::Relaxed);
        }
        report(&written, &mut failing);
        progress.advance(count);
    }
}

/// `first` and what else is waiting, and how many lines that is.
fn batch(first: String, lines: &Receiver<String>) -> (String, u64) {
    let mut batch = first + "\n";
    let mut count = 1;
    for line in lines.try_iter().take(BATCH - 1) {
        batch.push_str(&line);
        batch.push('\n');
        count += 1;
    }
    (batch, count)
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
