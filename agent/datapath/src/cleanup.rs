//! Removes every trace of Undermesh from a pin directory: links, and with them the programs; maps.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

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
    report.maps += usize::from(bpffs::unpin(&pin_dir.join(bpffs::AGENT_SOCKETS))?);
    // Shared with another program's pins? Then it stays.
    let _ = fs::remove_dir(pin_dir);
    Ok(report)
}

/// The same for every ABI version but this one's.
pub(crate) fn cleanup_other_versions(pin_dir: &Path) -> Result<CleanupReport, DatapathError> {
    let own = bpffs::version_name();
    remove_versions(pin_dir, |name| name != own.as_str())
}

/// Detaches what leads connections in the programs of every other version; the rest, which knows the
/// connections that were led before, stays for them. Ours must be in place.
///
/// In this order: what arrives is judged by ours alone before connections are published by ours alone.
pub(crate) fn silence_other_versions(pin_dir: &Path) -> Result<usize, DatapathError> {
    let own = bpffs::version_name();
    let mut silenced = 0;
    for version in versions(pin_dir)? {
        if version.file_name().is_some_and(|name| name != own.as_str()) {
            silenced += unpin_all(&version.join("pods"), |_| true, bpffs::unpin_link)?;
            let leads = |name: &str| name.contains("connect");
            silenced += unpin_all(&version.join("links"), leads, bpffs::unpin_link)?;
        }
    }
    Ok(silenced)
}

/// The directories of all versions.
fn versions(pin_dir: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let entries = match fs::read_dir(pin_dir) {
        Ok(entries) => entries.flatten(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(DatapathError::file("list", pin_dir)(error)),
    };
    let versions =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(bpffs::is_version));
    Ok(versions.map(|entry| entry.path()).collect())
}

fn remove_versions(
    pin_dir: &Path,
    chosen: impl Fn(&OsStr) -> bool,
) -> Result<CleanupReport, DatapathError> {
    let mut report = CleanupReport::default();
    for version in versions(pin_dir)? {
        if !version.file_name().is_some_and(&chosen) {
            continue;
        }
        // Links first: programs must not run on with maps that are being taken apart.
        report.links += empty(&version.join("links"), bpffs::unpin_link)?;
        report.links += empty(&version.join("pods"), bpffs::unpin_link)?;
        report.maps += empty(&version.join("maps"), bpffs::unpin)?;
        fs::remove_dir(&version).map_err(DatapathError::file("remove", &version))?;
    }
    Ok(report)
}

/// Removes all pins of a directory, and the directory.
fn empty(
    dir: &Path,
    unpin: fn(&Path) -> Result<bool, DatapathError>,
) -> Result<usize, DatapathError> {
    let removed = unpin_all(dir, |_| true, unpin)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DatapathError::file("remove", dir)(error))
        }
        _ => Ok(removed),
    }
}

/// Removes the pins of a directory whose names are `chosen`.
fn unpin_all(
    dir: &Path,
    chosen: impl Fn(&str) -> bool,
    unpin: fn(&Path) -> Result<bool, DatapathError>,
) -> Result<usize, DatapathError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(DatapathError::file("list", dir)(error)),
    };
    let mut removed = 0;
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(&chosen) {
            removed += usize::from(unpin(&entry.path())?);
        }
    }
    Ok(removed)
}
