//! A clock that a test moves: hours of a process pass in seconds.
//!
//! The process runs under libfaketime, which adds what a file says to all its clocks. Rust's `Instant` and
//! `SystemTime` are seen so, and with them timers, back-offs and lifetimes of certificates; the kernel,
//! and what is compared with times of the kernel's programs, is not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::controller::certificates::replace_file;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// How far a process' clocks are ahead of the machine's.
#[derive(Clone, Debug)]
pub struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// One that is not ahead yet; its file goes to `dir`.
    ///
    /// # Errors
    /// Where libfaketime is not installed, or the directory cannot be written to.
    pub fn new(dir: &Path) -> Result<Self> {
        let mut libraries =
            fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path().join(LIBRARY));
        let library = libraries
            .find(|path| path.exists())
            .with_context(|| format!("no /usr/lib/*/{LIBRARY}; `apt-get install faketime`"))?;
        let clock = Self { file: dir.join("clock"), library };
        clock.set_ahead(Duration::ZERO)?;
        Ok(clock)
    }

    /// Says how far it is ahead of the machine's, in whole seconds, at once for all who run by it. A
    /// process that waits for a time that has passed sees that when anything wakes it.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn set_ahead(&self, by: Duration) -> Result<()> {
        replace_file(&self.file, &format!("+{}\n", by.as_secs()))
    }

    /// Has a process run by it.
    pub(crate) fn drive(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1");
    }
}
