//! A file that is replaced by an empty one when it is large, and its predecessors.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Rights of a file that does not exist yet: it names who may do what.
const MODE: u32 = 0o640;

pub(super) struct Rotated {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    file: File,
    /// Device and inode.
    id: (u64, u64),
    bytes: u64,
}

impl Rotated {
    pub(super) fn open(path: PathBuf, max_bytes: u64, keep: u32) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).append(true).mode(MODE).open(&path)?;
        let metadata = file.metadata()?;
        let bytes = metadata.len();
        if bytes > 0 && !ends_with_line(&path, bytes)? {
            // A crash in the middle of a line must not swallow the next one.
            file.write_all(b"\n")?;
        }
        let id = (metadata.dev(), metadata.ino());
        Ok(Self { path, max_bytes, keep, file, id, bytes })
    }

    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let there = self.path.metadata().ok().map(|it| (it.dev(), it.ino()));
        if there != Some(self.id) {
            // Somebody else has moved it away.
            *self = Self::open(self.path.clone(), self.max_bytes, self.keep)?;
        }
        let length = line.len() as u64;
        if self.bytes > 0 && self.bytes + length > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.bytes += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            fs::remove_file(&self.path)?;
        } else {
            for number in (1..self.keep).rev() {
                match fs::rename(self.older(number), self.older(number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::rename(&self.path, self.older(1))?;
        }
        *self = Self::open(self.path.clone(), self.max_bytes, self.keep)?;
        Ok(())
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

fn ends_with_line(path: &Path, bytes: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, bytes - 1)?;
    Ok(last == *b"\n")
}
