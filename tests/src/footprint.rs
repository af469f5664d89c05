//! Everything that a rig puts on the machine, found again by its tag alone: what one process has
//! made, another can remove.
//!
//! ```text
//! /run/undermesh-<tag>/            owner, manifests/, ca/, bpf/ (its own bpffs), <node>/
//! /run/netns/um-<tag>-<name>       network namespaces
//! <cgroup2>/undermesh-<tag>/       <node>/{agent,pods/<pod>}
//! ```

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{
    cgroup::{self, cgroup2_mount},
    netns::Netns,
};

const RUNTIME: &str = "/run";
/// `um-`, the tag, `-` and a short name have to fit into a network namespace's name, and people
/// have to read it.
const MAX_TAG: usize = 24;

/// Names and paths of one rig.
#[derive(Clone, Debug)]
pub struct Footprint {
    tag: String,
    cgroup: PathBuf,
}

impl Footprint {
    /// The footprint of a tag, whether or not anything of it exists.
    ///
    /// # Errors
    /// Where the tag is not 1 to 24 characters of `a-z0-9`, or there is no cgroup2 hierarchy.
    pub fn of(tag: &str) -> Result<Self> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        ensure!(
            (1..=MAX_TAG).contains(&tag.len()) && tag.bytes().all(valid),
            "tag {tag:?} must be 1 to {MAX_TAG} characters of a-z and 0-9"
        );
        Ok(Self { tag: tag.to_owned(), cgroup: cgroup2_mount()?.join(format!("undermesh-{tag}")) })
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The directory for files.
    pub fn dir(&self) -> PathBuf {
        Path::new(RUNTIME).join(format!("undermesh-{}", self.tag))
    }

    /// The mount point of the rig's own BPF file system.
    pub fn bpffs(&self) -> PathBuf {
        self.dir().join("bpf")
    }

    /// The top of the rig's cgroups.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The name of a network namespace.
    pub fn netns(&self, name: &str) -> String {
        format!("{}{name}", self.netns_prefix())
    }

    fn netns_prefix(&self) -> String {
        format!("um-{}-", self.tag)
    }

    /// Fails where anything with this tag exists.
    pub(crate) fn ensure_free(&self) -> Result<()> {
        let leftovers = self.leftovers();
        ensure!(
            leftovers.is_empty(),
            "tag {} is in use: {leftovers:?}; remove it, or choose another",
            self.tag
        );
        Ok(())
    }

    /// Takes the tag for this process: directories, cgroup, BPF file system.
    pub(crate) fn claim(&self) -> Result<()> {
        let make = |dir: &Path| {
            fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
        };
        make(&self.bpffs())?;
        fs::write(self.owner_file(), process::id().to_string())?;
        make(&self.cgroup)?;
        mount("bpf", self.bpffs(), "bpf", MountFlags::empty(), None)
            .with_context(|| format!("cannot mount a bpffs at {}", self.bpffs().display()))
    }

    /// Removes everything: processes, pins, mounts, namespaces, cgroups, files. What has gone
    /// already is no error; what cannot be removed does not keep the rest.
    ///
    /// # Errors
    /// The first thing that could not be removed.
    pub fn remove(&self) -> Result<()> {
        let killed = cgroup::kill_all(&self.cgroup);
        let unmounted = self.unmount();
        let deleted: Result<()> = self.netns_names().iter().try_for_each(|n| Netns::delete(n));
        let left = cgroup::remove(&self.cgroup);
        killed.and(unmounted).and(deleted).and(left)?;
        match fs::remove_dir_all(self.dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.dir().display()))
            }
            _ => Ok(()),
        }
    }

    fn unmount(&self) -> Result<()> {
        if !self.is_mounted() {
            return Ok(());
        }
        // Unpinning detaches the programs even if somebody else holds a copy of the mount.
        // The kernel's own files at the top (maps.debug, progs.debug) cannot be removed.
        let entries = fs::read_dir(self.bpffs())?.flatten().map(|entry| entry.path());
        for pins in entries.filter(|path| path.is_dir()) {
            fs::remove_dir_all(pins)?;
        }
        unmount(self.bpffs(), UnmountFlags::DETACH).context("cannot unmount the rig's bpffs")
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let bpffs = self.bpffs();
        mounts.lines().any(|line| line.split(' ').nth(4).map(Path::new) == Some(&bpffs))
    }

    fn netns_names(&self) -> Vec<String> {
        Netns::names(&self.netns_prefix())
    }

    /// What of this rig exists on the machine now: the leak check.
    pub fn leftovers(&self) -> BTreeSet<String> {
        let mut found: BTreeSet<String> = BTreeSet::new();
        found.extend(self.netns_names().iter().map(|n| format!("netns {n}")));
        found.extend(cgroup::processes(&self.cgroup).iter().map(|pid| format!("process {pid}")));
        if self.is_mounted() {
            found.insert(format!("mount {}", self.bpffs().display()));
        }
        for path in [self.cgroup.clone(), self.dir()] {
            if path.exists() {
                found.insert(format!("directory {}", path.display()));
            }
        }
        found
    }

    /// Footprints whose tag starts with `prefix` and whose owner no longer runs.
    ///
    /// # Errors
    /// Where the machine cannot be searched.
    pub fn stale(prefix: &str) -> Result<Vec<Self>> {
        let named = |name: &str, before: &str| name.strip_prefix(before).map(str::to_owned);
        let mut tags = BTreeSet::new();
        for dir in [PathBuf::from(RUNTIME), cgroup2_mount()?] {
            let entries = fs::read_dir(&dir).with_context(|| format!("{}", dir.display()))?;
            let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
            tags.extend(names.filter_map(|name| named(&name, "undermesh-")));
        }
        for name in Netns::names("um-") {
            let tag = named(&name, "um-").and_then(|rest| Some(rest.split_once('-')?.0.to_owned()));
            tags.extend(tag);
        }
        let footprints = tags.iter().filter(|tag| tag.starts_with(prefix));
        Ok(footprints
            .filter_map(|tag| Self::of(tag).ok())
            .filter(|footprint| !footprint.is_owned())
            .collect())
    }

    fn is_owned(&self) -> bool {
        fs::read_to_string(self.owner_file())
            .ok()
            .and_then(|pid| pid.trim().parse::<u32>().ok())
            .is_some_and(|pid| Path::new("/proc").join(pid.to_string()).exists())
    }

    fn owner_file(&self) -> PathBuf {
        self.dir().join("owner")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_could_reach_outside_its_own_names_is_refused() {
        for tag in ["", "a-b", "../x", "A", "abcdefghijklmnopqrstuvwxy"] {
            assert!(Footprint::of(tag).is_err(), "{tag:?} was accepted");
        }
    }
}
