//! Finding the binaries of this workspace.

use std::{env, path::PathBuf, sync::OnceLock};

use anyhow::{Context, Result, anyhow};

/// Where another build of the binaries is, for a program that wants that one.
static OTHER_BUILD: OnceLock<PathBuf> = OnceLock::new();

/// Makes [`locate`] look into `dir` before anywhere else, from now on and in the whole process.
///
/// # Errors
/// Where another directory has been named before.
pub fn use_binaries_of(dir: PathBuf) -> Result<()> {
    let again = |dir: PathBuf| {
        anyhow!("the binaries are to be taken from elsewhere than {}", dir.display())
    };
    OTHER_BUILD.set(dir).map_err(again)
}

/// Finds a binary of this workspace: where [`use_binaries_of`] says, where `<NAME>_BIN` says (`UNDERMESH_BIN` for `undermesh`), or
/// beside the running program, which for a test is one directory up from `target/debug/deps`.
///
/// # Errors
/// Where it has not been built.
pub fn locate(name: &str) -> Result<PathBuf> {
    let other = OTHER_BUILD.get().map(|dir| dir.join(name)).filter(|path| path.is_file());
    if let Some(path) = other {
        return Ok(path);
    }
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
