//! The BPF file system and the layout of the pin directory.
//!
//! ```text
//! <pinDir>/AGENT_SOCKETS              the one map that all versions share
//! <pinDir>/v<ABI>/maps/<MAP>            maps, by their name in the object
//! <pinDir>/v<ABI>/links/<program>       cgroup links
//! <pinDir>/v<ABI>/pods/<netns cookie>   sk_lookup links
//! ```

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};
use undermesh_ebpf_common::ABI_VERSION;

use crate::{DatapathError, sys};

/// `BPF_FS_MAGIC`.
const MAGIC: u32 = 0xcafe_4a11;
/// Name of the map that all versions share.
pub(crate) const AGENT_SOCKETS: &str = "AGENT_SOCKETS";
const DEFAULT_MOUNT: &str = "/sys/fs/bpf";

/// The directories below one pin directory.
#[derive(Clone, Debug)]
pub(crate) struct PinDir {
    /// The map by which the programs of every version know the agent's sockets.
    pub(crate) agent_sockets: PathBuf,
    /// Maps.
    pub(crate) maps: PathBuf,
    /// Links at the cgroup.
    pub(crate) links: PathBuf,
    /// Links in pods' network namespaces.
    pub(crate) pods: PathBuf,
}

impl PinDir {
    pub(crate) fn below(pin_dir: &Path) -> Self {
        let version = pin_dir.join(version_name());
        Self {
            agent_sockets: pin_dir.join(AGENT_SOCKETS),
            maps: version.join("maps"),
            links: version.join("links"),
            pods: version.join("pods"),
        }
    }

    /// Creates what is missing, mounting a BPF file system at its usual place if none is there.
    pub(crate) fn create(pin_dir: &Path) -> Result<Self, DatapathError> {
        let dir = Self::below(pin_dir);
        if is_mounted_on_demand(pin_dir) {
            mount("bpf", DEFAULT_MOUNT, "bpf", MountFlags::empty(), None).map_err(|e| {
                DatapathError::file("mount a BPF file system at", DEFAULT_MOUNT)(e.into())
            })?;
            tracing::info!(at = DEFAULT_MOUNT, "mounted a BPF file system");
        }
        if !is_on_bpffs(pin_dir) {
            return Err(DatapathError::NotBpffs(pin_dir.to_owned()));
        }
        for path in [&dir.maps, &dir.links, &dir.pods] {
            fs::create_dir_all(path).map_err(DatapathError::file("create", path))?;
        }
        Ok(dir)
    }
}

/// Name of the directory of this ABI version.
pub(crate) fn version_name() -> String {
    format!("v{ABI_VERSION}")
}

/// Whether there are pins of another version beside `pods`, one of [`PinDir`]'s.
pub(crate) fn is_beside_others(pods: &Path) -> bool {
    let own = version_name();
    let Some(pin_dir) = pods.ancestors().nth(2) else { return false };
    let entries = fs::read_dir(pin_dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .filter_map(|name| name.into_string().ok())
        .any(|name| is_version(&name) && name != own)
}

/// Whether a directory of this name is that of an ABI version.
pub(crate) fn is_version(name: &str) -> bool {
    name.strip_prefix('v')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a directory is on a BPF file system, or would be when made.
pub(crate) fn is_on_bpffs(pin_dir: &Path) -> bool {
    pin_dir.ancestors().find(|dir| dir.exists()).is_some_and(is_bpffs)
}

/// Whether a BPF file system is missing at its usual place, where an agent mounts one.
pub(crate) fn is_mounted_on_demand(pin_dir: &Path) -> bool {
    pin_dir.starts_with(DEFAULT_MOUNT) && !is_bpffs(Path::new(DEFAULT_MOUNT))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type as u32 == MAGIC)
}

/// Detaches a pinned link's program and removes the pin.
pub(crate) fn unpin_link(path: &Path) -> Result<bool, DatapathError> {
    if let Ok(link) = sys::obj_get(path)
        && let Err(error) = sys::link_detach(link.as_fd())
    {
        // Its cgroup or namespace has gone, most likely; without the pin it goes as well.
        tracing::debug!(pin = %path.display(), %error, "cannot detach a link");
    }
    unpin(path)
}

/// Removes a pin; one that is not there is as good.
pub(crate) fn unpin(path: &Path) -> Result<bool, DatapathError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DatapathError::file("remove", path)(error)),
    }
}
