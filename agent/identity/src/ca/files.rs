//! The files of a CA directory: written whole or not at all, keys readable by their owner only.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rcgen::KeyPair;

use crate::AuthorityError;

pub(super) fn create_private_dir(path: &Path) -> Result<(), AuthorityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(AuthorityError::file("create directory", path))
}

/// Files that are put in place together. All of them are on disk before the first one takes its
/// name, so that a full disk changes nothing and a crash has next to no time to come in between.
#[derive(Default)]
pub(super) struct Batch(Vec<Staged>);

/// A file that waits beside the name that it shall have; dropped, it is gone.
struct Staged {
    beside: PathBuf,
    path: PathBuf,
}

impl Batch {
    pub(super) fn add(&mut self, path: PathBuf, text: &str) -> Result<(), AuthorityError> {
        self.stage(path, text, 0o644)
    }

    pub(super) fn add_key(&mut self, path: PathBuf, key: &KeyPair) -> Result<(), AuthorityError> {
        self.stage(path, &key.serialize_pem(), 0o600)
    }

    fn stage(&mut self, path: PathBuf, text: &str, mode: u32) -> Result<(), AuthorityError> {
        let mut name = path.clone().into_os_string();
        name.push(".new");
        let staged = Staged { beside: name.into(), path };
        let written = write_new(&staged.beside, text, mode);
        written.map_err(AuthorityError::file("write", &staged.beside))?;
        self.0.push(staged);
        Ok(())
    }

    /// Puts the files in place, in the order in which they were added.
    pub(super) fn commit(self) -> Result<(), AuthorityError> {
        for Staged { beside, path } in &self.0 {
            fs::rename(beside, path).map_err(AuthorityError::file("write", path))?;
        }
        let Some(directory) = self.0.first().and_then(|staged| staged.path.parent()) else {
            return Ok(());
        };
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(AuthorityError::file("write", directory))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Not found once it has been put in place; otherwise the next attempt replaces it.
        let _ = fs::remove_file(&self.beside);
    }
}

/// Replaces one file; a reader sees the old text or the new one.
pub(super) fn write(path: PathBuf, text: &str) -> Result<(), AuthorityError> {
    let mut batch = Batch::default();
    batch.add(path, text)?;
    batch.commit()
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // What a crash has left behind.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Refuses a key that anybody but its owner can read.
pub(super) fn check_private(path: &Path) -> Result<(), AuthorityError> {
    let metadata = path.metadata().map_err(AuthorityError::file("read", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(AuthorityError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

pub(super) fn read_text(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(AuthorityError::file("read", path))
}

pub(super) fn read_key(path: &Path) -> Result<KeyPair, AuthorityError> {
    check_private(path)?;
    // The library's error is left out: it may quote the file.
    KeyPair::from_pem(&read_text(path)?)
        .map_err(|_| AuthorityError::content(path, "it is not a private key in PEM"))
}
