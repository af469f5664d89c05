//! Cgroup links: pinned, and updated in place when an agent takes over from another.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    DatapathError, bpffs, conflict,
    sys::{self, LinkTarget},
};

/// One attached program.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) program: &'static str,
    pub(crate) hook: &'static str,
    pub(crate) pin: PathBuf,
    /// At the kubelet's cgroup instead of the pods'.
    pub(crate) kubelet: bool,
}

/// Kernels before 5.11 charge maps against RLIMIT_MEMLOCK. A refusal shows when a map is made.
pub(crate) fn raise_memlock() {
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "cannot raise RLIMIT_MEMLOCK");
    }
}

/// Where a cgroup program goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site<'a> {
    pub(crate) name: &'static str,
    pub(crate) hook: &'static str,
    pub(crate) cgroup: &'a File,
    pub(crate) path: &'a Path,
    pub(crate) cgroup_id: u64,
    pub(crate) pin: &'a Path,
}

/// Updates the pinned link, or makes a new one and pins it.
///
/// aya could make links too, but does so only where it can read the kernel's version, and those of
/// Debian's release candidates (`7.3~rc7`) it cannot.
pub(crate) fn attach(program: BorrowedFd<'_>, site: Site<'_>) -> Result<Attachment, DatapathError> {
    let Site { name, hook, cgroup, cgroup_id, pin, .. } = site;
    if !update_pinned(name, program, LinkTarget::Cgroup(cgroup_id), pin)? {
        let kind = attach_type(hook);
        let link = sys::link_create(program, cgroup.as_fd(), kind).map_err(|error| {
            match conflict::exclusive(site.path, kind) {
                Some(exclusive) => attach_failed(name, hook, exclusive.to_string()),
                None => attach_failed(name, hook, error.to_string()),
            }
        })?;
        // The pin keeps the link; the descriptor is not needed any more.
        sys::obj_pin(link.as_fd(), pin)
            .map_err(|error| attach_failed(name, hook, error.to_string()))?;
    }
    Ok(Attachment { program: name, hook, pin: pin.to_owned(), kubelet: false })
}

/// Puts `program` behind the link pinned at `pin`, if there is one and it is attached to `target`.
/// A link to anything else (a cgroup that has been removed, another attach point) is dropped.
/// Returns whether the program is attached now.
pub(crate) fn update_pinned(
    name: &'static str,
    program: BorrowedFd<'_>,
    target: LinkTarget,
    pin: &Path,
) -> Result<bool, DatapathError> {
    let Ok(link) = sys::obj_get(pin) else {
        return Ok(false);
    };
    let attached_there = sys::link_info(link.as_fd()).is_ok_and(|(_, found)| found == target);
    if attached_there {
        match sys::link_update(link.as_fd(), program) {
            Ok(()) => return Ok(true),
            Err(error) => {
                tracing::warn!(program = name, %error, "cannot update the pinned link; attaching anew");
            }
        }
    }
    bpffs::unpin_link(pin)?;
    Ok(false)
}

fn attach_failed(program: &'static str, target: &str, reason: String) -> DatapathError {
    DatapathError::Attach { program, target: target.to_owned(), reason }
}

/// `enum bpf_attach_type` of a hook.
pub(crate) fn attach_type(hook: &str) -> u32 {
    match hook {
        "cgroup/bind4" => 8,
        "cgroup/bind6" => 9,
        "cgroup/connect4" => 10,
        "cgroup/connect6" => 11,
        "cgroup/getpeername4" => 29,
        "cgroup/getpeername6" => 30,
        _ => 3, // sockops
    }
}
