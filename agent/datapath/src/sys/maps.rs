//! Making maps without a loader, for probes: what the kernel refuses is exactly what was asked.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use zerocopy::{Immutable, IntoBytes};

use super::bpf;

const BPF_MAP_CREATE: libc::c_int = 0;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Makes a map.
pub(crate) fn map_create(
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
) -> io::Result<OwnedFd> {
    let attr = MapCreate { kind, key_size, value_size, max_entries, flags: 0 };
    let fd = bpf(BPF_MAP_CREATE, &attr)?;
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
