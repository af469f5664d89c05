//! Reads a directory of manifests: `*.yaml`, `*.yml` and `*.json`, subdirectories included.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use undermesh_model::SourcePosition;

use crate::report::{Report, Subject};

/// The largest file that is read.
const MAX_FILE: u64 = 8 << 20;
/// Files that one directory may hold.
const MAX_FILES: usize = 10_000;
/// Nesting of directories; also what ends a loop of links.
const MAX_DEPTH: usize = 8;

/// Paths and texts, in the order of the paths.
pub(crate) type Texts = Vec<(PathBuf, String)>;

/// Reads everything, or says what could not be read.
pub(crate) fn read(dir: &Path, report: &mut Report) -> Texts {
    let mut paths = Vec::new();
    if let Err(error) = list(dir, 0, &mut paths) {
        problem(report, dir, &error.to_string(), "create the directory, or correct `manifests`");
    }
    paths.sort();
    if paths.len() > MAX_FILES {
        problem(
            report,
            dir,
            &format!("it holds more than {MAX_FILES} manifests"),
            "join some files",
        );
        return Texts::new();
    }
    let mut texts = Texts::new();
    for path in paths {
        match read_file(&path) {
            Ok(text) => texts.push((path, text)),
            // Removed between listing and reading: the next look finds it gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                problem(report, &path, &error.to_string(), "make it a readable text file");
            }
        }
    }
    texts
}

fn list(dir: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // Hidden files are editors', and the `..data` directories of mounted ConfigMaps.
        if name.starts_with('.') || name.ends_with('~') {
            continue;
        }
        if path.is_dir() {
            if depth < MAX_DEPTH {
                list(&path, depth + 1, paths)?;
            }
        } else if is_manifest(&path) && paths.len() <= MAX_FILES {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

fn read_file(path: &Path) -> io::Result<String> {
    let size = path.metadata()?.len();
    if size > MAX_FILE {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    fs::read_to_string(path)
}

fn problem(report: &mut Report, path: &Path, reason: &str, remedy: &str) {
    let place = Subject::place(SourcePosition { file: path.to_owned(), line: 1 });
    report.error(&place, "unreadable-file", format!("cannot be read: {reason}"), remedy);
}
