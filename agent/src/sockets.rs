//! Sockets inside a pod's network namespace, for the proxy.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};
use undermesh_datapath::{AgentMark, Netns, OriginalDstTable, bind_address_no_port};
use undermesh_proxy::{OriginalDst, PodSockets};

/// Opens sockets in one pod's network namespace, marked as the agent's own so that the programs
/// leave them alone even where the agent runs below the attach point.
pub(crate) struct NetnsSockets {
    pub(crate) netns: Arc<Netns>,
    pub(crate) mark: AgentMark,
}

impl PodSockets for NetnsSockets {
    fn stream(&self, remote: IpAddr, client: Option<SocketAddr>) -> io::Result<Socket> {
        let domain = if remote.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = self.netns.run(|| Socket::new(domain, kind, Some(Protocol::TCP)))??;
        // A port is taken when the connection is made, not when an address is bound.
        bind_address_no_port(&socket)?;
        self.mark.set(&socket, client)?;
        Ok(socket)
    }
}

/// Original destinations of one pod's connections.
pub(crate) struct PodOriginalDst {
    pub(crate) table: OriginalDstTable,
    pub(crate) netns_cookie: u64,
}

impl OriginalDst for PodOriginalDst {
    fn original_dst(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.table.get(self.netns_cookie, peer)
    }
}
