//! Finding the binaries of this workspace.

use std::{env, path::PathBuf};

use anyhow::{Context, Result};

/// Finds a binary of this workspace: where `<NAME>_BIN` says (`UNDERMESH_BIN` for `undermesh`), or
/// beside the running program, which for a test is one directory up from `target/debug/deps`.
///
/// # Errors
/// Where it has not been built.
pub fn locate(name: &str) -> Result<PathBuf> {
    let variable = format!("{}_BIN", name.to_uppercase().replace('-', "_"));
    if let Some(path) = env::var_os(&variable) {
        return Ok(path.into());
    }
    let own = env::current_exe().context("cannot find the running program")?;
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no {name} beside {}; build it with `cargo build --workspace`, or set {variable}",
                own.display()
            )
        })
}
