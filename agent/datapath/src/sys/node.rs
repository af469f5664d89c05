//! What only system calls say of a node: its clock, its interfaces. For diagnosis.

use std::{
    io,
    mem::{MaybeUninit, zeroed},
    os::fd::AsRawFd,
};

use rustix::thread::UnshareFlags;
use socket2::{Domain, Socket, Type};

/// What the kernel thinks of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// Something keeps it in step with a source of time (`STA_UNSYNC` is not set).
    pub synchronised: bool,
    /// The error that it may have, in microseconds, as the kernel estimates it.
    pub maximum_error_us: i64,
}

/// Asks the kernel about its clock (adjtimex(2)); changes nothing.
///
/// # Errors
/// The kernel's answer.
pub fn clock_state() -> io::Result<ClockState> {
    // SAFETY: a structure of integers, for which all zeroes is a value: it asks for no change.
    let mut timex: libc::timex = unsafe { zeroed() };
    // SAFETY: `timex` is valid for reads and writes.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    let synchronised = state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0;
    Ok(ClockState { synchronised, maximum_error_us: timex.maxerror })
}

/// The largest packet that an interface of the current network namespace sends.
pub(crate) fn mtu(interface: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: a structure of integers and byte arrays, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: `request` is valid for reads and writes, and its name ends with a zero.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written this member.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(io::Error::other)
}

/// Gives the calling thread a network namespace of its own, which goes with it.
pub(crate) fn leave_netns() -> io::Result<()> {
    // SAFETY: only the network namespace is unshared; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Gives the calling thread a mount namespace of its own, which goes with it.
pub(crate) fn leave_mounts() -> io::Result<()> {
    // SAFETY: only mounts are unshared, and with them the working directory; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.map_err(io::Error::from)
}
