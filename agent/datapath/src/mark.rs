//! Marks the agent's own sockets, so that `connect` leaves them alone.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use undermesh_ebpf_common::{Addr, ConnMeta, conn_flags};

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

    /// Marks a socket that has not been connected yet.
    ///
    /// # Errors
    /// The kernel's answer, `ENOMEM` for example; an unmarked socket must not be connected.
    pub fn set(&self, socket: impl AsFd) -> io::Result<()> {
        let meta = ConnMeta {
            netns_cookie: 0,
            original: Addr::UNSPECIFIED,
            backend: Addr::UNSPECIFIED,
            original_port_be: 0,
            backend_port_be: 0,
            flags: conn_flags::AGENT,
        };
        sys::sk_storage_set(self.map.as_fd(), socket.as_fd(), &meta)
    }
}
