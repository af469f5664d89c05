//! Control groups of a rig: found, made, emptied and removed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::poll::wait_for;

const GONE_WITHIN: Duration = Duration::from_secs(10);

/// Where the cgroup2 hierarchy is mounted; `/sys/fs/cgroup/unified` on hybrid systems.
///
/// # Errors
/// Where it is not mounted.
pub fn cgroup2_mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    mounts
        .lines()
        .filter(|line| line.contains(" - cgroup2 "))
        .find_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .context("no cgroup2 hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Processes of a cgroup and of all below it.
pub(crate) fn processes(dir: &Path) -> BTreeSet<i32> {
    let mut pids: BTreeSet<i32> = fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for child in children(dir) {
        pids.extend(processes(&child));
    }
    pids
}

/// Kills what runs in a cgroup and below it, by process id, and waits until it is gone.
pub(crate) fn kill_all(dir: &Path) -> Result<()> {
    wait_for("killed processes to go", GONE_WITHIN, || {
        let pids = processes(dir);
        for pid in pids.iter().copied().filter_map(Pid::from_raw) {
            // Gone already is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(pids.is_empty().then_some(()))
    })
}

/// Removes an empty cgroup and all below it.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    for child in children(dir) {
        remove(&child)?;
    }
    // The kernel lets go of a dead process a moment after it has left cgroup.procs.
    let what = format!("{} to be removable", dir.display());
    wait_for(&what, GONE_WITHIN, || Ok(Some(fs::remove_dir(dir)?)))
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
