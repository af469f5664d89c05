//! Tells when something has been mounted or unmounted: a named network namespace is a mount, and is
//! one only a moment after its file has been created.

use std::fs::File;

use tokio::io::{Interest, unix::AsyncFd};

use crate::{DatapathError, sys};

const MOUNTS: &str = "/proc/self/mountinfo";

/// This process's mount table.
#[derive(Debug)]
pub struct Mounts(AsyncFd<File>);

impl Mounts {
    /// Begins to listen.
    ///
    /// # Errors
    /// Where the kernel has no mount table to show.
    pub fn open() -> Result<Self, DatapathError> {
        let file = File::open(MOUNTS).map_err(DatapathError::file("open", MOUNTS))?;
        let interest = Interest::PRIORITY | Interest::ERROR;
        sys::async_fd(file, interest).map(Self).map_err(DatapathError::file("poll", MOUNTS))
    }

    /// Waits until the table has changed (proc(5): a change is an exceptional condition of the file).
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub async fn changed(&mut self) -> Result<(), DatapathError> {
        let mut ready = self
            .0
            .ready(Interest::PRIORITY | Interest::ERROR)
            .await
            .map_err(DatapathError::file("poll", MOUNTS))?;
        ready.clear_ready();
        Ok(())
    }
}
