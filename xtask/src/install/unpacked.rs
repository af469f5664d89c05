//! Packages of Debian that are unpacked below `target/tools` and not installed: those whose installation would start
//! a service, now and whenever the machine starts.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Policy, has_apt};
use crate::{command, progress::step, workspace::Workspace};

/// Fetches and unpacks a package; returns the directory of its programs. Nothing of it is run, and root is not
/// needed. Quick when it is there already.
pub(crate) fn debian_package(
    workspace: &Workspace,
    name: &str,
    purpose: &str,
    policy: Policy,
) -> Result<PathBuf> {
    let dir = workspace.tools().join(name);
    let programs = dir.join("usr/bin");
    if programs.is_dir() {
        return Ok(programs);
    }
    let place = workspace.relative(&dir).display().to_string();
    if policy == Policy::NoInstall {
        bail!(
            "missing: Debian's {name} ({purpose}); leave out --no-install to have it unpacked into {place}"
        );
    }
    if !has_apt() {
        bail!(
            "missing: {name} ({purpose}); this system has no apt-get, so put its programs into {place}/usr/bin"
        );
    }
    let fetched = workspace.tools().join(format!("{name}.fetched"));
    // What an interrupted attempt has left.
    let _ = fs::remove_dir_all(&fetched);
    fs::create_dir_all(&fetched)?;
    let what = format!("unpacking Debian's {name} ({purpose}) into {place}");
    step(&what, || {
        command::stdout(Command::new("apt-get").args(["download", name]).current_dir(&fetched))?;
        let package = fs::read_dir(&fetched)?.next().context("nothing was fetched")??.path();
        let unpacked = fetched.join("root");
        command::stdout(Command::new("dpkg-deb").arg("--extract").args([&package, &unpacked]))?;
        fs::rename(&unpacked, &dir)?;
        Ok(())
    })
    .with_context(|| format!("cannot fetch {name}: check the network and `apt-get update`"))?;
    fs::remove_dir_all(&fetched)?;
    Ok(programs)
}
