//! bpf(2) calls that make objects, for probes: programs, maps and links without a loader, so that
//! what the kernel refuses is exactly what was asked.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use zerocopy::{Immutable, IntoBytes};

use super::bpf;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
/// The verifier's word is only read for the reason of a refusal.
const LOG_BYTES: usize = 16 << 10;
const LICENCE: &std::ffi::CStr = c"GPL";

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

/// Loads a program; `code` is a whole number of instructions of eight bytes. A refusal comes with
/// what the verifier says, which is nothing where it was not reached.
pub(crate) fn prog_load(
    kind: u32,
    expected_attach_type: u32,
    code: &[u8],
) -> Result<OwnedFd, (io::Error, String)> {
    let mut log = vec![0_u8; LOG_BYTES];
    let attr = ProgLoad {
        kind,
        instructions: (code.len() / 8) as u32,
        code: code.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: 1,
        log_size: LOG_BYTES as u32,
        log: log.as_mut_ptr() as u64,
        kernel_version: 0,
        flags: 0,
        name: *b"undermesh_ask\0\0\0",
        interface: 0,
        expected_attach_type,
    };
    bpf_fd(BPF_PROG_LOAD, &attr).map_err(|error| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        (error, String::from_utf8_lossy(&log[..end]).into_owned())
    })
}

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
    bpf_fd(BPF_MAP_CREATE, &attr)
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LinkCreate {
    program: i32,
    target: i32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup or to a network namespace. aya keeps the links that it makes in
/// the program, and with them a descriptor for every pod; the pin is all we need.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        program: program.as_raw_fd(),
        target: target.as_raw_fd(),
        attach_type,
        flags: 0,
    };
    bpf_fd(BPF_LINK_CREATE, &attr)
}

/// Issues one of the commands that answer with a new descriptor.
fn bpf_fd<T: IntoBytes + Immutable>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
