//! Marks the agent's own sockets, so that `connect` leaves them alone.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use undermesh_ebpf_common::{Addr, AgentSocket};
use undermesh_snapshot::addr;

use crate::sys;

/// Puts the agent's mark into a socket's storage. Cheap to clone and free of locks.
#[derive(Clone, Debug)]
pub struct AgentMark {
    map: Arc<OwnedFd>,
}

impl AgentMark {
    pub(crate) fn new(map: OwnedFd) -> Self {
        Self { map: Arc::new(map) }
    }

    /// Marks a socket that has not been connected yet. `client` is whom the application at the
    /// other end should see as its peer, for a connection that the agent delivers.
    ///
    /// # Errors
    /// The kernel's answer, `ENOMEM` for example; an unmarked socket must not be connected.
    pub fn set(&self, socket: impl AsFd, client: Option<SocketAddr>) -> io::Result<()> {
        let mark = AgentSocket {
            client: client.map_or(Addr::UNSPECIFIED, |client| addr(client.ip())),
            client_port_be: client.map_or(0, |client| client.port().to_be()),
            pad: [0; 6],
        };
        sys::sk_storage_set(self.map.as_fd(), socket.as_fd(), &mark)
    }
}
