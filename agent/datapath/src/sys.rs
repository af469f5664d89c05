//! The raw system calls that neither aya nor rustix offers.
#![expect(unsafe_code, reason = "bpf(2) and SO_NETNS_COOKIE have no safe wrapper in our libraries")]

mod maps;
mod node;
pub(crate) mod verifier;

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use tokio::io::{Interest, unix::AsyncFd};
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) use maps::map_create;
pub use node::{ClockState, clock_state};
pub(crate) use node::{leave_mounts, leave_netns, mtu};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `enum bpf_attach_type`.
pub(crate) const BPF_SK_LOOKUP: u32 = 36;

/// `SO_NETNS_COOKIE`, since Linux 5.14 (commit e8b9eab99232).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Issues bpf(2) with an attribute structure; what lies behind it is zero, as the kernel demands.
fn bpf<T: IntoBytes + Immutable>(command: libc::c_int, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is valid for reads of its own size, and the caller keeps everything that its
    // fields point to alive for the call.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LinkUpdate {
    link_fd: i32,
    new_prog_fd: i32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces the program behind a link, atomically (Linux 5.7).
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate {
        link_fd: link.as_raw_fd(),
        new_prog_fd: program.as_raw_fd(),
        flags: 0,
        old_prog_fd: 0,
    };
    bpf(BPF_LINK_UPDATE, &attr).map(drop)
}

/// Programs that one query asks for; nobody attaches more to one cgroup.
const MAX_PROGRAMS: usize = 64;

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ProgQuery {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// Flags of an attach point (`BPF_F_ALLOW_OVERRIDE`, `BPF_F_ALLOW_MULTI`), and the ids of the programs
/// that are attached to this very cgroup.
pub(crate) fn cgroup_programs(
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<(u32, Vec<u32>)> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = ProgQuery {
        target_fd: cgroup.as_raw_fd(),
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        pad: 0,
    };
    // The kernel answers in the attribute itself.
    // SAFETY: `attr` is valid for reads and writes of its size, and `ids` of as many entries as it
    // announces.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attr, size_of::<ProgQuery>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((attr.attach_flags, ids[..(attr.prog_cnt as usize).min(MAX_PROGRAMS)].to_vec()))
}

/// Attaches an sk_lookup program to a network namespace (Linux 5.9).
pub(crate) fn netns_link(program: BorrowedFd<'_>, netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    link_create(program, netns, BPF_SK_LOOKUP)
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LinkCreate {
    prog_fd: i32,
    target_fd: i32,
    attach_type: u32,
    flags: u32,
}

/// Attaches a program to a cgroup (Linux 5.7) or a network namespace. No flags: with a link that is
/// what allows several programs side by side.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: program.as_raw_fd(),
        target_fd: target.as_raw_fd(),
        attach_type,
        flags: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &attr)?;
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct LinkDetach {
    link_fd: i32,
}

/// Detaches a link's program now (Linux 5.9). Without it, the program runs on until the kernel gets
/// round to freeing the link, which under load has taken a third of a second.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &LinkDetach { link_fd: link.as_raw_fd() }).map(drop)
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ObjPath {
    path: u64,
    fd: i32,
    flags: u32,
}

/// Pins an object.
pub(crate) fn obj_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjPath { path: path.as_ptr() as u64, fd: object.as_raw_fd(), flags: 0 };
    bpf(BPF_OBJ_PIN, &attr).map(drop)
}

/// Opens a pinned object.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjPath { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &attr)?;
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct ObjInfo {
    fd: i32,
    len: u32,
    info: u64,
}

/// The head of `struct bpf_link_info` and its cgroup and netns variants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    variant: [u64; 12],
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// Id of a cgroup; 0 after the cgroup has been removed.
    Cgroup(u64),
    /// Inode of a network namespace; 0 after it is gone.
    Netns(u32),
    /// Something that Undermesh does not attach to.
    Other,
}

/// Id of the link's program, and its target.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<(u32, LinkTarget)> {
    const CGROUP: u32 = 3;
    const NETNS: u32 = 5;
    let mut info = RawLinkInfo::default();
    let attr = ObjInfo {
        fd: link.as_raw_fd(),
        len: size_of::<RawLinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr)?;
    let target = match info.kind {
        CGROUP => LinkTarget::Cgroup(info.variant[0]),
        NETNS => LinkTarget::Netns(info.variant[0] as u32),
        _ => LinkTarget::Other,
    };
    Ok((info.program, target))
}

#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct MapElement {
    map_fd: i32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Sets the value of a socket in a socket-storage map.
pub(crate) fn sk_storage_set<V: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    value: &V,
) -> io::Result<()> {
    map_set(map, &socket.as_raw_fd(), value)
}

/// Sets a value in a map whose keys and values are of these types. Needs no lock, unlike aya's own.
pub(crate) fn map_set<K: IntoBytes + Immutable, V: IntoBytes + Immutable>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &V,
) -> io::Result<()> {
    let attr = MapElement {
        map_fd: map.as_raw_fd(),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_ELEM, &attr).map(drop)
}

/// Removes a key from a map.
pub(crate) fn map_remove<K: IntoBytes + Immutable>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let attr = MapElement {
        map_fd: map.as_raw_fd(),
        pad: 0,
        key: std::ptr::from_ref(key) as u64,
        value: 0,
        flags: 0,
    };
    bpf(BPF_MAP_DELETE_ELEM, &attr).map(drop)
}

/// Reads the value of a socket in a socket-storage map.
pub(crate) fn sk_storage_get<V: FromBytes>(
    map: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
) -> io::Result<V> {
    let key = socket.as_raw_fd();
    let mut value = MaybeUninit::<V>::zeroed();
    let attr = MapElement {
        map_fd: map.as_raw_fd(),
        pad: 0,
        key: &raw const key as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &attr)?;
    // SAFETY: all bytes are initialised, and `FromBytes` takes any.
    Ok(unsafe { value.assume_init() })
}

/// Lets a socket that is bound to an address take its port only when it is connected, so that
/// connections to different destinations can share one (`IP_BIND_ADDRESS_NO_PORT`, Linux 4.2).
///
/// # Errors
/// The kernel's answer.
pub fn bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` is valid for reads of the size that is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Registers a descriptor with the runtime's poller.
pub(crate) fn async_fd<T: AsRawFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: all users (aya's ring buffer, aya-log's logger, and files of our own) own their
    // descriptor from construction to drop and give no way to replace it.
    unsafe { AsyncFd::register_with_interest(inner, interest) }.map_err(io::Error::from)
}

/// The cookie of the network namespace that a socket lives in.
pub(crate) fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = MaybeUninit::<u64>::uninit();
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `len` are valid for writes of the sizes that `len` announces.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            cookie.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written all eight bytes.
    Ok(unsafe { cookie.assume_init() })
}
