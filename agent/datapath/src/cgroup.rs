//! Where the programs attach: a directory of the cgroup v2 hierarchy, wherever that is mounted.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    mount::{MountFlags, mount_remount},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{DatapathError, sys};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// A cgroup's processes; who writes 0 to it becomes one of them.
pub(crate) const MEMBERS: &str = "cgroup.procs";
const OWN_CGROUPS: &str = "/proc/self/cgroup";
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/cgroup";
/// The first process is the host's where its processes are in sight (`hostPID`).
const HOST_CGROUPS: &str = "/proc/1/ns/cgroup";

/// The mount point of the cgroup2 file system. Hybrid layouts have it at a place of their own, so
/// it is looked up rather than assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoot(PathBuf);

impl CgroupRoot {
    /// Finds it in this process's mount table.
    ///
    /// # Errors
    /// [`DatapathError::NoCgroup2`] where none is mounted.
    pub fn find() -> Result<Self, DatapathError> {
        let mounts =
            fs::read_to_string(MOUNTINFO).map_err(DatapathError::file("read", MOUNTINFO))?;
        parse_mountinfo(&mounts).map(Self).ok_or(DatapathError::NoCgroup2)
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A cgroup named in configuration: absolute, or relative to the mount point.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.0.join(path)
    }

    /// The processes of a cgroup and of all cgroups below it.
    ///
    /// # Errors
    /// Where the cgroup does not exist or cannot be read.
    pub fn processes(&self, path: &Path) -> Result<Vec<u32>, DatapathError> {
        let cgroup = self.resolve(path);
        let mut found = Vec::new();
        collect_processes(&cgroup, &mut found).map_err(DatapathError::file("read", &cgroup))?;
        Ok(found)
    }

    /// Moves this process into a cgroup. Where the hierarchy is mounted read-only, as in the agent's pod, this thread gets
    /// a mount namespace of its own first, in which it is not: for processes that do nothing else for long.
    ///
    /// # Errors
    /// Where the cgroup does not exist, or this process may not.
    pub fn enter(&self, cgroup: &Path) -> Result<(), DatapathError> {
        let processes = self.resolve(cgroup).join(MEMBERS);
        let enter = || fs::write(&processes, "0");
        let entered = match enter() {
            Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                self.make_writable_here().and_then(|()| enter())
            }
            entered => entered,
        };
        entered.map_err(DatapathError::file("write", &processes))
    }

    /// A mount's flags change where it is mounted, and nowhere else.
    fn make_writable_here(&self) -> io::Result<()> {
        sys::leave_mounts()?;
        let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Ok(mount_remount(&self.0, flags, c"")?)
    }
}

/// Makes cgroups have the names for this thread, and for those that it starts, that the host has for
/// them. A container often has a cgroup namespace of its own, in which the kubelet's cgroup is called
/// `/../../../system.slice/kubelet.service` and the container's own `/`: neither is where it says below
/// the host's mount. Without the host's processes in sight, the first process is this container's, and nothing changes.
///
/// # Errors
/// Where the host's namespace is another and cannot be entered.
pub fn join_host_cgroups() -> Result<(), DatapathError> {
    let host = Path::new(HOST_CGROUPS);
    let wrong = DatapathError::file("enter cgroup namespace", host);
    // Who may not look at the first process is told so by what fails next.
    let (Ok(own), Ok(theirs)) = (fs::read_link(OWN_NAMESPACE), fs::read_link(host)) else {
        return Ok(());
    };
    if own == theirs {
        return Ok(());
    }
    let enter = || {
        let file = File::open(host)?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        Ok(())
    };
    enter().map_err(wrong)
}

/// The cgroup of this process, in the hierarchy mounted at `root` (cgroups(7): number 0 is cgroup2).
pub(crate) fn own(root: &CgroupRoot) -> Result<PathBuf, DatapathError> {
    let memberships =
        fs::read_to_string(OWN_CGROUPS).map_err(DatapathError::file("read", OWN_CGROUPS))?;
    let path = memberships.lines().find_map(|line| line.strip_prefix("0::/"));
    path.map(|path| root.resolve(Path::new(path))).ok_or(DatapathError::NoCgroup2)
}

fn collect_processes(cgroup: &Path, found: &mut Vec<u32>) -> io::Result<()> {
    let procs = fs::read_to_string(cgroup.join(MEMBERS))?;
    found.extend(procs.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_processes(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// The kubelet's cgroup where there is one, and the whole hierarchy elsewhere: only enrolled pods
/// are touched either way, but below the root other socket load balancers run after us.
pub fn default_attach_point(root: &CgroupRoot) -> PathBuf {
    kubelet_pods(root).unwrap_or_else(|| root.path().to_owned())
}

/// The cgroup in which the kubelet runs its pods, where there is one.
pub fn kubelet_pods(root: &CgroupRoot) -> Option<PathBuf> {
    ["kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods"]
        .iter()
        .map(|name| root.resolve(Path::new(name)))
        .find(|path| path.is_dir())
}

/// Opens a cgroup; its inode number is the id that the kernel reports for it.
pub(crate) fn open(path: &Path) -> Result<(File, u64), DatapathError> {
    let file = File::open(path).map_err(DatapathError::file("open cgroup", path))?;
    let id = file.metadata().map_err(DatapathError::file("read", path))?.ino();
    Ok((file, id))
}

/// The mount point of the first cgroup2 entry (proc(5): the type follows the separator ` - `).
fn parse_mountinfo(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_cgroup2 = filesystem.split(' ').next() == Some("cgroup2");
        is_cgroup2.then(|| mount.split(' ').nth(4).map(|path| PathBuf::from(unescape(path))))?
    })
}

/// Undoes proc(5)'s octal escapes of blanks.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup2_mount_is_found_in_hybrid_and_unified_layouts() {
        let hybrid = "30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw shared:6 - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_mountinfo(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let unified = "30 29 0:26 / /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(parse_mountinfo(unified), Some(PathBuf::from("/sys/fs/my cgroup")));
        assert_eq!(parse_mountinfo("1 2 0:3 / / rw - ext4 cgroup2 rw\n"), None);
    }
}
