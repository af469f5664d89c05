//! The top of the repository is its front page: a new entry there is a decision, made here.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::Finding;
use crate::workspace::Workspace;

/// What may stand at the top, besides names that begin with a dot.
const ALLOWED: [&str; 15] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "agent",
    "deny.toml",
    "deploy",
    "docs",
    "ebpf-programs",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "target",
    "tests",
    "xtask",
    "CONTRIBUTING.md",
];

/// Lists the root directory.
pub(super) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut names = Vec::new();
    let root = workspace.root();
    let entries = fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", root.display()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(unexpected(&names))
}

fn unexpected(names: &[String]) -> Vec<Finding> {
    names
        .iter()
        .filter(|name| !name.starts_with('.') && !ALLOWED.contains(&name.as_str()))
        .map(|name| {
            let message = "does not belong at the top; move it, or allow it in lint/layout.rs";
            Finding::error(Path::new(name), None, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unknown_entry_is_reported() {
        let names = ["agent", ".ci", "scratch.txt", "target"].map(str::to_owned);
        let findings = unexpected(&names);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].path, Path::new("scratch.txt"));
    }
}
