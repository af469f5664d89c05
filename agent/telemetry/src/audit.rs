//! The audit log: what has changed who may do what, as JSON lines. Certificates, configuration, refusals.
//!
//! A thread of its own writes, so that a slow disk keeps nobody waiting; what does not fit into its queue is
//! lost and counted. A file is written to the disk's buffers line by line, and replaced when it is large.

mod event;
mod rotation;

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub use event::{Asker, AuditEvent, AuditObject};
use rotation::Rotated;

/// Lines that may wait to be written.
const QUEUE: usize = 8192;

/// Where the lines go.
#[derive(Clone, Debug)]
pub enum AuditSink {
    /// Standard output.
    Stdout,
    /// A file, and so many older ones beside it, none of them much larger than this.
    File {
        /// Where it is.
        path: PathBuf,
        /// The size at which another one is begun, in bytes.
        max_bytes: u64,
        /// Older files that are kept: `PATH.1` is the newest of them.
        keep: u32,
    },
    /// Nowhere.
    Off,
    /// Memory, for tests.
    Memory(Arc<Mutex<Vec<String>>>),
}

/// A handle to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    lines: Option<SyncSender<Order>>,
    component: &'static str,
    lost: Arc<AtomicU64>,
}

/// Writes a line, its line feed included.
type Writer = Box<dyn FnMut(&str) -> io::Result<()> + Send>;

enum Order {
    Line(String),
    Flush(SyncSender<()>),
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    component: &'static str,
    #[serde(flatten)]
    event: &'a AuditEvent,
}

impl Audit {
    /// Starts the writer for one part of the mesh, `controller` or `agent`.
    ///
    /// # Errors
    /// Where the file cannot be opened or the thread cannot be started.
    pub fn start(component: &'static str, sink: AuditSink) -> io::Result<Self> {
        let lost = Arc::new(AtomicU64::new(0));
        let writer: Writer = match sink {
            AuditSink::Off => return Ok(Self { lines: None, component, lost }),
            AuditSink::Stdout => Box::new(|line| {
                let mut out = io::stdout().lock();
                out.write_all(line.as_bytes())?;
                out.flush()
            }),
            AuditSink::File { path, max_bytes, keep } => {
                let mut file = Rotated::open(path, max_bytes, keep)?;
                Box::new(move |line| file.write(line))
            }
            AuditSink::Memory(lines) => Box::new(move |line| {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(line.trim_end().to_owned());
                Ok(())
            }),
        };
        let (sender, queue) = sync_channel(QUEUE);
        let counted = Arc::clone(&lost);
        thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || write_lines(writer, &queue, &counted))?;
        Ok(Self { lines: Some(sender), component, lost })
    }

    /// Writes what has happened. Never waits.
    pub fn record(&self, event: &AuditEvent) {
        let Some(lines) = &self.lines else { return };
        let time = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        let line = Line { time, component: self.component, event };
        let sent = serde_json::to_string(&line)
            .is_ok_and(|text| lines.try_send(Order::Line(text + "\n")).is_ok());
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines lost so far, to a full queue or a failing sink.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was recorded so far is written, and says whether that happened in time. Blocks; meant
    /// for the end of the process.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let Some(lines) = &self.lines else { return true };
        let (done, written) = sync_channel(1);
        lines.try_send(Order::Flush(done)).is_ok() && written.recv_timeout(timeout).is_ok()
    }
}

fn write_lines(mut write: Writer, queue: &Receiver<Order>, lost: &AtomicU64) {
    let mut failing = false;
    while let Ok(order) = queue.recv() {
        match order {
            Order::Flush(done) => drop(done.try_send(())),
            Order::Line(line) => {
                let written = write(&line);
                match &written {
                    Err(error) if !failing => {
                        tracing::error!(%error, "the audit log cannot be written; lines are lost");
                    }
                    Ok(()) if failing => tracing::info!("the audit log can be written again"),
                    _ => {}
                }
                failing = written.is_err();
                lost.fetch_add(u64::from(failing), Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests;
