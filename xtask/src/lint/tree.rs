//! The files of the repository that the checks read: what a person wrote, not what a tool built.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// A text file, by its path from the root.
pub(crate) struct File {
    /// From the root.
    pub(crate) path: PathBuf,
    /// Its content.
    pub(crate) text: String,
}

/// Every file below `directory` (from the root) with `extension`, sorted by path. A directory that
/// is not there holds none.
pub(crate) fn files(workspace: &Workspace, directory: &str, extension: &str) -> Result<Vec<File>> {
    let mut paths = Vec::new();
    let start = workspace.root().join(directory);
    if start.is_dir() {
        walk(&start, extension, &mut paths)?;
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {} as text", path.display()))?;
            let path = workspace.relative(&path).to_path_buf();
            Ok(File { path, text })
        })
        .collect()
}

fn walk(directory: &Path, extension: &str, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", directory.display()))?;
        let name = entry.file_name();
        let path = entry.path();
        if name == "target" || name.to_string_lossy().starts_with('.') {
            continue;
        }
        // Not through links: they would be read twice, or for ever.
        let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_dir() {
            walk(&path, extension, paths)?;
        } else if kind.is_file() && path.extension().is_some_and(|it| it == extension) {
            paths.push(path);
        }
    }
    Ok(())
}
