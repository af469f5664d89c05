//! Which targets there are: a file in `tests/fuzz/src/targets` each, whose first line says what it is
//! about. A test of that crate checks that its own table is the same.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

/// A target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) about: String,
}

/// Reads the files.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<Target>> {
    let directory = workspace.fuzz_package().join("src/targets");
    let shown = || format!("cannot read {}", directory.display());
    let mut targets = Vec::new();
    for entry in fs::read_dir(&directory).with_context(shown)? {
        let path = entry.with_context(shown)?.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(shown)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        targets.push(Target { name, about: about(&text) });
    }
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

/// The first sentence of a file's head, up to what a colon or a full stop ends.
fn about(text: &str) -> String {
    let head = text.lines().map_while(|line| line.strip_prefix("//!"));
    let head: Vec<&str> = head.map(str::trim).collect();
    let head = head.join(" ");
    let end = head.find(['.', ':']).unwrap_or(head.len());
    head[..end].to_owned()
}

/// Those with these names, or all if there is no name.
pub(super) fn choose(all: Vec<Target>, names: &[String]) -> Result<Vec<Target>> {
    for name in names {
        if !all.iter().any(|target| target.name == *name) {
            let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
            bail!("there is no target {name:?}, but {}", known.join(", "));
        }
    }
    let is_wanted = |target: &Target| names.is_empty() || names.contains(&target.name);
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// For a reader.
pub(super) fn table(targets: &[Target]) -> String {
    let width = targets.iter().map(|target| target.name.len()).max().unwrap_or_default();
    let line = |target: &Target| format!("{:<width$}  {}\n", target.name, target.about);
    targets.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Target {
        Target { name: name.to_owned(), about: String::new() }
    }

    #[test]
    fn a_target_is_described_by_the_head_of_its_file() {
        let text = "//! HTTP/1 as a client\n//! sends it: where.\n\nfn run() {}\n";
        assert_eq!(about(text), "HTTP/1 as a client sends it");
    }

    #[test]
    fn a_name_that_is_none_is_told_with_those_that_are() {
        let all = || vec![target("a"), target("b")];
        assert_eq!(choose(all(), &[]).unwrap(), all());
        assert_eq!(choose(all(), &["b".to_owned()]).unwrap(), [target("b")]);
        let error = choose(all(), &["c".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "there is no target \"c\", but a, b");
    }
}
