//! Reads a directory of manifests: `*.yaml`, `*.yml` and `*.json`, subdirectories included.
//!
//! What cannot be read is an error, never a smaller state: a file that is skipped in silence
//! would take its pods out of the mesh.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use undermesh_model::{Diagnostic, Severity, SourcePosition};

use crate::report::Report;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// The most that all files together may hold, in bytes.
const MAX_TOTAL: u64 = 256 << 20;
/// Files and directories that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// Nesting of directories.
const MAX_DEPTH: usize = 8;

/// The texts of a directory, and what could not be read of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// In the order of their paths.
    pub(crate) texts: Vec<(PathBuf, String)>,
    pub(crate) report: Report,
}

impl Reading {
    /// A number that changes when anything read has changed.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.texts.hash(&mut hasher);
        for diagnostic in self.report.diagnostics() {
            diagnostic.to_string().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Adds another one's.
    pub(crate) fn append(&mut self, other: Self) {
        self.texts.extend(other.texts);
        other.report.into_diagnostics().into_iter().for_each(|it| self.report.add(it));
    }

    fn problem(&mut self, path: &Path, reason: &str, remedy: &str) {
        // Positions are shown and serialised, and so have to be text.
        let file = PathBuf::from(path.to_string_lossy().into_owned());
        self.report.add(Diagnostic {
            severity: Severity::Error,
            code: "unreadable-file",
            object: None,
            position: Some(SourcePosition { file, line: 1 }),
            message: format!("cannot be read: {reason}"),
            remedy: remedy.to_owned(),
        });
    }
}

/// Reads a directory, or the one file that a path names, whatever it is called.
pub(crate) fn read_path(path: &Path) -> Reading {
    if path.is_dir() {
        return read(path);
    }
    let mut reading = Reading::default();
    match read_file(path, MAX_FILE) {
        Ok(text) => reading.texts.push((path.to_owned(), text)),
        Err(error) => reading.problem(path, &error.to_string(), "make it a readable text file"),
    }
    reading
}

/// Reads everything, or says what could not be read.
pub(crate) fn read(dir: &Path) -> Reading {
    let mut walk = Walk::default();
    walk.directory(dir, 0);
    let Walk { mut paths, mut reading, .. } = walk;
    paths.sort();
    let mut room = MAX_TOTAL;
    for path in paths {
        match read_file(&path, MAX_FILE.min(room)) {
            Ok(text) => {
                room -= text.len() as u64;
                reading.texts.push((path, text));
            }
            // Removed between listing and reading: the next look finds it gone.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
            Err(error) => {
                reading.problem(&path, &error.to_string(), "make it a readable text file");
            }
        }
    }
    reading
}

#[derive(Default)]
struct Walk {
    /// Directories that have been read, by device and inode: links may lead to them again.
    seen: BTreeSet<(u64, u64)>,
    entries: usize,
    paths: Vec<PathBuf>,
    reading: Reading,
}

impl Walk {
    fn directory(&mut self, dir: &Path, depth: usize) {
        if depth > MAX_DEPTH {
            let reason = format!("it is nested deeper than {MAX_DEPTH} directories");
            return self.reading.problem(dir, &reason, "move it up");
        }
        match self.list(dir) {
            Ok(entries) => entries.into_iter().for_each(|path| self.entry(path, depth)),
            Err(error) => {
                let remedy = "make it a readable directory, or correct `manifests`";
                self.reading.problem(dir, &error.to_string(), remedy);
            }
        }
    }

    /// The entries of a directory in order; none where it has been read by another path.
    fn list(&mut self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let metadata = dir.metadata()?;
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(Vec::new());
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(io::Error::other(format!("it holds more than {MAX_ENTRIES} files")));
            }
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            // Hidden files are editors', and the `..data` directories of mounted ConfigMaps.
            if !name.starts_with(b".") && !name.ends_with(b"~") {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }

    fn entry(&mut self, path: PathBuf, depth: usize) {
        let is_dir = path.is_dir();
        if !is_dir && !is_manifest(&path) {
            return;
        }
        if path.to_str().is_none() {
            return self.reading.problem(&path, "its name is not UTF-8", "rename it");
        }
        if is_dir {
            self.directory(&path, depth + 1);
        } else {
            self.paths.push(path);
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Pipes and devices are refused before they are opened: opening alone can block for ever.
fn read_file(path: &Path, limit: u64) -> io::Result<String> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    let read = File::open(path)?.take(limit + 1).read_to_string(&mut text)?;
    if read as u64 > limit {
        let (file, total) = (MAX_FILE >> 20, MAX_TOTAL >> 20);
        return Err(io::Error::other(format!(
            "more than {file} MiB in one file, or {total} MiB in all"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
