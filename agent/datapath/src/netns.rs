//! Network namespaces: opened once, known by their cookie, entered for single calls.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

use crate::{DatapathError, cookie};

/// Device and inode of a namespace: tells whether a path still leads to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl NetnsId {
    /// Asks what a path leads to now.
    ///
    /// # Errors
    /// Where nothing is there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = path.metadata()?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }

    /// The inode number, as `lsns` and `ip netns` users know it.
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

/// An open network namespace. It keeps the namespace alive, so it must be dropped when the pod goes.
#[derive(Debug)]
pub struct Netns {
    file: File,
    own: File,
    path: PathBuf,
    id: NetnsId,
    cookie: u64,
}

impl Netns {
    /// Opens the namespace behind `path` (`/run/netns/NAME`, `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// Where the path does not lead to a network namespace that this process may enter.
    pub fn open(path: &Path) -> Result<Self, DatapathError> {
        let wrap = |action| {
            move |source| DatapathError::Netns {
                action,
                namespace: path.display().to_string(),
                source,
            }
        };
        let file = File::open(path).map_err(wrap("open"))?;
        let metadata = file.metadata().map_err(wrap("read"))?;
        let id = NetnsId { device: metadata.dev(), inode: metadata.ino() };
        // Without a namespace mounted on it, /run/netns/NAME is an ordinary, empty file.
        let own = File::open("/proc/thread-self/ns/net").map_err(wrap("compare with"))?;
        let mut netns = Self { file, own, path: path.to_owned(), id, cookie: 0 };
        let socket = netns
            .run(|| {
                Socket::new(Domain::IPV4, Type::DGRAM, None)
                    .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))
            })
            .map_err(wrap("enter"))?
            .map_err(wrap("open a socket in"))?;
        netns.cookie = cookie::of(&socket).map_err(wrap("read the cookie of"))?;
        Ok(netns)
    }

    /// The cookie: unique on this machine since boot, never reused.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// Device and inode.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True for the namespace that this process runs in.
    pub fn is_own(&self) -> bool {
        self.own
            .metadata()
            .is_ok_and(|own| own.ino() == self.id.inode && own.dev() == self.id.device)
    }

    /// Runs a short, blocking call inside the namespace: opening a socket, nothing that waits. A
    /// socket stays in the namespace in which it was opened, whoever uses it later.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn run<R>(&self, call: impl FnOnce() -> R) -> io::Result<R> {
        let enter =
            |file: &File| move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        enter(&self.file)?;
        let result = call();
        if let Err(error) = enter(&self.own) {
            // This thread would go on to open the agent's own sockets inside a pod.
            tracing::error!(%error, "cannot return from a pod's network namespace; aborting");
            std::process::abort();
        }
        Ok(result)
    }
}

/// The kernel's number for a socket, never reused.
///
/// # Errors
/// The kernel does not say.
pub fn socket_cookie(socket: &impl AsFd) -> io::Result<u64> {
    Ok(rustix::net::sockopt::socket_cookie(socket)?)
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
