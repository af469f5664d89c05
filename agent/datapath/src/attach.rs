//! Cgroup links: pinned, and updated in place when an agent takes over from another.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::programs::{
    CgroupAttachMode, CgroupSockAddr, ProgramError, ProgramFd, SockOps,
    links::{FdLink, LinkError},
};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    DatapathError, bpffs, conflict,
    error::chain,
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

// aya refuses AllowMultiple here: `Single` means "no flags", which for a link is what allows several
// programs side by side.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

pub(crate) fn sock_addr(
    program: &mut CgroupSockAddr,
    site: Site<'_>,
) -> Result<Attachment, DatapathError> {
    let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?));
    attach(site, fd, || {
        let id = program.attach(site.cgroup, MODE)?;
        Ok(FdLink::try_from(program.take_link(id)?))
    })
}

pub(crate) fn sock_ops(program: &mut SockOps, site: Site<'_>) -> Result<Attachment, DatapathError> {
    let fd = program.fd().and_then(|fd| Ok(fd.try_clone()?));
    attach(site, fd, || {
        let id = program.attach(site.cgroup, MODE)?;
        Ok(FdLink::try_from(program.take_link(id)?))
    })
}

/// Updates the pinned link, or makes a new one and pins it.
fn attach(
    site: Site<'_>,
    program: Result<ProgramFd, ProgramError>,
    make: impl FnOnce() -> Result<Result<FdLink, LinkError>, ProgramError>,
) -> Result<Attachment, DatapathError> {
    let Site { name, hook, cgroup_id, pin, .. } = site;
    let refused = |error: ProgramError| attach_error(name, hook, &error);
    let program = program.map_err(refused)?;
    if !update_pinned(name, program.as_fd(), LinkTarget::Cgroup(cgroup_id), pin)? {
        let link =
            make().map_err(|error| match conflict::exclusive(site.path, attach_type(hook)) {
                Some(exclusive) => attach_failed(name, hook, exclusive.to_string()),
                None => attach_error(name, hook, &error),
            })?;
        pin_link(name, hook, link, pin)?;
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

pub(crate) fn pin_link(
    name: &'static str,
    target: &str,
    link: Result<FdLink, LinkError>,
    pin: &Path,
) -> Result<(), DatapathError> {
    let link = link.map_err(|error| attach_error(name, target, &error))?;
    // The pin keeps the link; the descriptor is not needed any more.
    link.pin(pin).map(drop).map_err(|error| attach_error(name, target, &error))
}

pub(crate) fn attach_error(
    program: &'static str,
    target: &str,
    error: &dyn std::error::Error,
) -> DatapathError {
    attach_failed(program, target, chain(error))
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
