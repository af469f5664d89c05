//! What is made of the types that objects are read into: the definitions of the mesh's own kinds, in the chart, and the
//! page about them. The example `definitions` of `undermesh-control` says what they are to be.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{command, workspace::Workspace};

/// Writes what is not as it should be.
pub(super) fn write(workspace: &Workspace) -> Result<()> {
    for (path, text) in made(workspace)? {
        fs::write(workspace.root().join(&path), &text)
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    eprintln!("now `cargo xtask chart` makes the manifest of it");
    Ok(())
}

/// Files that are not what they are to be.
pub(super) fn stale(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let is_stale = |(path, text): &(PathBuf, String)| {
        fs::read_to_string(workspace.root().join(path)).ok().as_ref() != Some(text)
    };
    Ok(made(workspace)?.into_iter().filter(is_stale).map(|(path, _)| path).collect())
}

/// All files; builds what reads objects, as tests do: of the whole workspace, so that nothing is built in two ways.
fn made(workspace: &Workspace) -> Result<BTreeMap<PathBuf, String>> {
    let mut cargo = command::cargo();
    cargo.current_dir(workspace.root());
    cargo.args(["build", "--quiet", "--workspace", "--example", "definitions"]);
    command::run(&mut cargo)?;
    let example = workspace.root().join("target/debug/examples/definitions");
    let said = command::stdout(&mut Command::new(example))?;
    serde_json::from_str(&said).context("cannot read what the definitions are")
}
