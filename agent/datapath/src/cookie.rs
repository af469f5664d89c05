//! The cookie of a network namespace on kernels without SO_NETNS_COOKIE (before 5.14): a program at
//! the agent's own cgroup writes it into a socket's storage when the socket asks for it.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

use socket2::Socket;
use undermesh_ebpf_common::{COOKIE_QUESTION, ConnMeta};
use undermesh_snapshot::ip;

use crate::sys;

/// The storage in which the answers stand. Set once the program is attached; namespaces are opened
/// from many places, and none of them could do anything about a kernel that is too old.
static ANSWERS: OnceLock<OwnedFd> = OnceLock::new();

/// The program is attached, and writes its answers here.
pub(crate) fn answers_in(storage: OwnedFd) {
    // Set already where the programs were loaded before; the program is the same.
    let _ = ANSWERS.set(storage);
}

/// The cookie of the namespace in which an IPv4 socket was opened, which nothing else must use.
pub(crate) fn of(socket: &Socket) -> io::Result<u64> {
    let asked = sys::netns_cookie(socket);
    match (&asked, ANSWERS.get()) {
        (Err(_), Some(storage)) => ask(socket, storage),
        _ => asked,
    }
}

fn ask(socket: &Socket, storage: &OwnedFd) -> io::Result<u64> {
    let (addr, port) = COOKIE_QUESTION;
    match socket.connect(&SocketAddr::new(ip(addr), port).into()) {
        // The program refuses, having answered.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
        Err(error) => return Err(error),
        Ok(()) => return Err(unanswered()),
    }
    let answer: ConnMeta = sys::sk_storage_get(storage.as_fd(), socket.as_fd())?;
    if answer.netns_cookie == 0 { Err(unanswered()) } else { Ok(answer.netns_cookie) }
}

fn unanswered() -> io::Error {
    io::Error::other(
        "this kernel has no SO_NETNS_COOKIE, and the program at the agent's cgroup does not answer; \
         has the agent been moved to another cgroup since its start?",
    )
}
