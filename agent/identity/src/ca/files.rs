//! The files of a CA directory: written whole or not at all, keys readable by their owner only.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
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

pub(super) fn write(path: &Path, text: &str) -> Result<(), AuthorityError> {
    replace(path, text, 0o644)
}

pub(super) fn write_key(path: &Path, key: &KeyPair) -> Result<(), AuthorityError> {
    replace(path, &key.serialize_pem(), 0o600)
}

/// Writes beside the file and renames, so that a reader sees the old text or the new one.
fn replace(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityError> {
    let beside = path.with_extension("new");
    let written = (|| {
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.map_err(AuthorityError::file("write", path))
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

pub(super) fn read_key(path: &Path) -> Result<KeyPair, AuthorityError> {
    check_private(path)?;
    let text = fs::read_to_string(path).map_err(AuthorityError::file("read", path))?;
    // The library's error is left out: it may quote the file.
    KeyPair::from_pem(&text)
        .map_err(|_| AuthorityError::content(path, "it is not a private key in PEM"))
}
