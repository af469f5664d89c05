//! The access log: one JSON object per line, written by a thread of its own, so that a slow disk
//! costs lines and never a connection.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use serde::Serialize;

/// Lines that may wait for the writer.
const QUEUE: usize = 16_384;

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
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Starts the writer.
    ///
    /// # Errors
    /// Where the file cannot be opened or the thread cannot be started.
    pub fn start(sink: AccessLogSink) -> io::Result<Self> {
        let dropped = Arc::new(AtomicU64::new(0));
        let writer: Box<dyn LineSink> = match sink {
            AccessLogSink::Off => return Ok(Self { lines: None, dropped }),
            AccessLogSink::Stdout => Box::new(Stdout),
            AccessLogSink::File(path) => Box::new(LogFile::open(path)?),
            AccessLogSink::Memory(lines) => Box::new(Memory(lines)),
        };
        let (sender, receiver) = sync_channel(QUEUE);
        let lost = Arc::clone(&dropped);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(writer, &receiver, &lost))?;
        Ok(Self { lines: Some(sender), dropped })
    }

    /// Lines lost so far, to a full queue or a failing sink.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn write(&self, line: &impl Serialize) {
        let Some(lines) = &self.lines else { return };
        let sent = serde_json::to_string(line).is_ok_and(|text| lines.try_send(text).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

trait LineSink: Send {
    fn write(&mut self, batch: &str) -> io::Result<()>;
}

/// Writes what is there in one go, until the last handle is gone.
fn write_lines(mut sink: Box<dyn LineSink>, lines: &Receiver<String>, dropped: &AtomicU64) {
    const BATCH: usize = 256;
    while let Ok(first) = lines.recv() {
        let mut batch = first + "\n";
        let mut count = 1;
        while count < BATCH {
            let Ok(line) = lines.try_recv() else { break };
            batch.push_str(&line);
            batch.push('\n');
            count += 1;
        }
        if sink.write(&batch).is_err() {
            dropped.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

struct Stdout;

impl LineSink for Stdout {
    fn write(&mut self, batch: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(batch.as_bytes())?;
        out.flush()
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    inode: u64,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let inode = file.metadata()?.ino();
        Ok(Self { path, file, inode })
    }

    fn was_moved(path: &Path, inode: u64) -> bool {
        path.metadata().map_or(true, |metadata| metadata.ino() != inode)
    }
}

impl LineSink for LogFile {
    fn write(&mut self, batch: &str) -> io::Result<()> {
        if Self::was_moved(&self.path, self.inode) {
            *self = Self::open(self.path.clone())?;
        }
        self.file.write_all(batch.as_bytes())
    }
}

struct Memory(Arc<Mutex<Vec<String>>>);

impl LineSink for Memory {
    fn write(&mut self, batch: &str) -> io::Result<()> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend(batch.lines().map(str::to_owned));
        Ok(())
    }
}
