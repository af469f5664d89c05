//! Removes every trace of Undermesh from a pin directory: links, and with them the programs; maps.

use std::{ffi::OsStr, fs, path::Path};

use serde::Serialize;

use crate::{DatapathError, bpffs, return_routes};

/// What [`cleanup`] has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CleanupReport {
    /// Links, each of which detached a program.
    pub links: usize,
    /// Maps.
    pub maps: usize,
    /// Network namespaces that led clients' addresses back to the agent.
    pub routes: usize,
}

/// Detaches every program that is pinned below `pin_dir`, of whatever ABI version, and removes its
/// maps. An agent that still runs keeps its proxy but intercepts nothing more.
///
/// # Errors
/// The first pin that cannot be removed. A directory that is not there is clean.
pub fn cleanup(pin_dir: &Path) -> Result<CleanupReport, DatapathError> {
    let mut report = remove_versions(pin_dir, |_| true)?;
    report.routes = return_routes::cleanup(pin_dir)?;
    // Shared with another program's pins? Then it stays.
    let _ = fs::remove_dir(pin_dir);
    Ok(report)
}

/// The same for every ABI version but this one's.
pub(crate) fn cleanup_other_versions(pin_dir: &Path) -> Result<CleanupReport, DatapathError> {
    let own = bpffs::version_name();
    remove_versions(pin_dir, |name| name != own.as_str())
}

fn remove_versions(
    pin_dir: &Path,
    chosen: impl Fn(&OsStr) -> bool,
) -> Result<CleanupReport, DatapathError> {
    let mut report = CleanupReport::default();
    let versions = match fs::read_dir(pin_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(report),
        Err(error) => return Err(DatapathError::file("list", pin_dir)(error)),
    };
    for entry in versions.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(bpffs::is_version) || !chosen(&name) {
            continue;
        }
        let version = entry.path();
        // Links first: programs must not run on with maps that are being taken apart.
        report.links += empty(&version.join("links"), bpffs::unpin_link)?;
        report.links += empty(&version.join("pods"), bpffs::unpin_link)?;
        report.maps += empty(&version.join("maps"), bpffs::unpin)?;
        fs::remove_dir(&version).map_err(DatapathError::file("remove", &version))?;
    }
    Ok(report)
}

fn empty(
    dir: &Path,
    unpin: fn(&Path) -> Result<bool, DatapathError>,
) -> Result<usize, DatapathError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(DatapathError::file("list", dir)(error)),
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        removed += usize::from(unpin(&entry.path())?);
    }
    fs::remove_dir(dir).map_err(DatapathError::file("remove", dir))?;
    Ok(removed)
}
