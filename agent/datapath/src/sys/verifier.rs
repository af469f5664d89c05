//! Loading a program by hand, for the sake of what the verifier says about it. aya asks for the
//! verifier's words only where a program is refused.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use zerocopy::{Immutable, IntoBytes};

use super::{BPF_OBJ_GET_INFO_BY_FD, ObjInfo, bpf};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_BTF_LOAD: libc::c_int = 18;

/// What the verifier is to write into its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    /// Every instruction that it looks at (`BPF_LOG_LEVEL1`).
    Path = 1,
    /// A refusal in a few words, and what the verification has cost (`BPF_LOG_STATS`).
    Statistics = 4,
}

/// A program as the kernel wants it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramImage<'a> {
    /// `enum bpf_prog_type`.
    pub(crate) kind: u32,
    /// `enum bpf_attach_type`; 0 where the kind has only one.
    pub(crate) attach_type: u32,
    /// Instructions of eight bytes.
    pub(crate) instructions: &'a [u8],
    pub(crate) license: &'a CStr,
    /// Its types, and which of them each function has, in records of a size.
    pub(crate) btf: Option<(BorrowedFd<'a>, &'a [u8], u32)>,
}

/// The first members of `bpf_attr` for `BPF_PROG_LOAD`, as Linux 5.10 has them.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// Loads a program. The verifier's words come back with either outcome, cut where `log_size` ends.
pub(crate) fn prog_load(
    image: ProgramImage<'_>,
    level: LogLevel,
    log_size: usize,
) -> (io::Result<OwnedFd>, String) {
    let mut log = vec![0u8; log_size];
    let (btf_fd, func_info, record) = match image.btf {
        Some((fd, records, size)) => (fd.as_raw_fd() as u32, records, size),
        None => (0, [].as_slice(), 0),
    };
    let attr = ProgLoad {
        prog_type: image.kind,
        insn_cnt: (image.instructions.len() / 8) as u32,
        insns: image.instructions.as_ptr() as u64,
        license: image.license.as_ptr() as u64,
        log_level: level as u32,
        log_size: log.len() as u32,
        log_buf: log.as_mut_ptr() as u64,
        kern_version: 0,
        prog_flags: 0,
        prog_name: [0; 16],
        prog_ifindex: 0,
        expected_attach_type: image.attach_type,
        prog_btf_fd: btf_fd,
        func_info_rec_size: record,
        func_info: func_info.as_ptr() as u64,
        func_info_cnt: (func_info.len() as u32).checked_div(record).unwrap_or(0),
        line_info_rec_size: 0,
        line_info: 0,
        line_info_cnt: 0,
        attach_btf_id: 0,
    };
    let loaded = bpf(BPF_PROG_LOAD, &attr).map(|fd| {
        // SAFETY: the kernel has just given this descriptor to us and to nobody else.
        unsafe { OwnedFd::from_raw_fd(fd as i32) }
    });
    log.truncate(log.iter().position(|byte| *byte == 0).unwrap_or(log.len()));
    (loaded, String::from_utf8_lossy(&log).into_owned())
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct BtfLoad {
    btf: u64,
    log_buf: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    pad: u32,
}

/// Loads type information.
pub(crate) fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    let attr = BtfLoad {
        btf: btf.as_ptr() as u64,
        log_buf: 0,
        size: btf.len() as u32,
        log_size: 0,
        log_level: 0,
        pad: 0,
    };
    let fd = bpf(BPF_BTF_LOAD, &attr)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `struct bpf_prog_info` up to and with `verified_insns` (Linux 5.16); what a kernel does not know
/// stays zero.
#[repr(C, align(8))]
struct RawProgInfo([u32; 58]);

/// What a program has become inside the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramSize {
    /// Bytes of instructions after the verifier has rewritten them.
    pub(crate) translated: u32,
    /// Bytes of machine code; 0 where the kernel interprets.
    pub(crate) jited: u32,
    /// Instructions that the verifier has looked at; 0 before Linux 5.16.
    pub(crate) verified: u32,
}

/// Sizes of a loaded program.
pub(crate) fn prog_size(program: BorrowedFd<'_>) -> io::Result<ProgramSize> {
    let mut info = RawProgInfo([0; 58]);
    let attr = ObjInfo {
        fd: program.as_raw_fd(),
        len: size_of::<RawProgInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr)?;
    let [jited, translated, verified] = [4, 5, 54].map(|word| info.0[word]);
    Ok(ProgramSize { translated, jited, verified })
}
