//! Where the access log's writer puts its lines.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::AccessLogSink;

/// Rights of a log file that does not exist yet: it names who talks to whom.
const MODE: u32 = 0o640;

/// Takes whole lines, each with its line feed.
pub(super) trait LineSink: Send {
    fn write(&mut self, batch: &str) -> io::Result<()>;
}

/// The sink that was asked for; `None` where nothing is to be written.
pub(super) fn open(sink: AccessLogSink) -> io::Result<Option<Box<dyn LineSink>>> {
    Ok(match sink {
        AccessLogSink::Off => None,
        AccessLogSink::Stdout => Some(Box::new(Stdout)),
        AccessLogSink::File(path) => Some(Box::new(LogFile::open(path)?)),
        AccessLogSink::Memory(lines) => Some(Box::new(Memory(lines))),
    })
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
    id: FileId,
    /// A write has failed, perhaps in the middle of a line.
    torn: bool,
}

/// Which file a name stands for: device and inode.
type FileId = (u64, u64);

fn id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(MODE).open(&path)?;
        let id = id(&file.metadata()?);
        Ok(Self { path, file, id, torn: false })
    }

    fn was_moved(&self) -> bool {
        self.path.metadata().map_or(true, |metadata| id(&metadata) != self.id)
    }
}

impl LineSink for LogFile {
    fn write(&mut self, batch: &str) -> io::Result<()> {
        if self.was_moved() {
            *self = Self::open(self.path.clone())?;
        }
        if self.torn {
            // What was cut off must not swallow the line that follows it.
            self.file.write_all(b"\n")?;
        }
        let written = self.file.write_all(batch.as_bytes());
        self.torn = written.is_err();
        written
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
