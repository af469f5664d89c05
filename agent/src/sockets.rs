//! Sockets inside a pod's network namespace, for the proxy.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use undermesh_datapath::{
    AgentMark, DELIVERY_MARK, DeliveryTable, LocalTupleTable, Netns, OriginalDstTable, Publisher,
    bind_address_no_port,
};
use undermesh_proxy::{OriginalDst, PodSockets, Transparent};
use undermesh_snapshot::WorkloadInfo;

use crate::enrolment::EnrolmentView;

/// Opens sockets in one pod's network namespace, marked as the agent's own so that the programs
/// leave them alone even where the agent runs below the attach point.
pub(crate) struct NetnsSockets {
    pub(crate) netns: Arc<Netns>,
    pub(crate) mark: AgentMark,
    /// Where the pod is set up to see its clients' own addresses.
    pub(crate) transparent: Option<Transparently>,
}

/// How connections are delivered from clients' own addresses.
pub(crate) struct Transparently {
    pub(crate) deliveries: DeliveryTable,
    /// Longer than a connection may take to be established.
    pub(crate) valid: Duration,
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

    fn transparent(&self, client: SocketAddr, to: SocketAddr) -> Option<io::Result<Transparent>> {
        let transparently = self.transparent.as_ref()?;
        // A pod that has come round to itself has its port in use at its own end.
        let itself = client.ip() == to.ip() || client.ip().is_loopback();
        let can_be = client.is_ipv4() == to.is_ipv4() && !itself;
        can_be.then(|| {
            let socket = self.bound_to_client(client)?;
            // The port is only known now where the client's own is in use.
            let source = socket.local_addr()?.as_socket().unwrap_or(client);
            let pass = transparently.deliveries.announce(source, to, transparently.valid)?;
            Ok(Transparent { socket, pass: Box::new(pass) })
        })
    }
}

impl NetnsSockets {
    fn bound_to_client(&self, client: SocketAddr) -> io::Result<Socket> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let domain = Domain::for_address(client);
        let socket = self.netns.run(|| Socket::new(domain, kind, Some(Protocol::TCP)))??;
        if client.is_ipv4() {
            socket.set_ip_transparent_v4(true)?;
        } else {
            socket.set_ip_transparent_v6(true)?;
        }
        socket.set_mark(DELIVERY_MARK)?;
        // The client may have one port for several connections, and so have we.
        socket.set_reuse_address(true)?;
        self.mark.set(&socket, None)?;
        socket.bind(&client.into())?;
        Ok(socket)
    }
}

/// What the programs have noted about one pod's connections.
pub(crate) struct PodOriginalDst {
    pub(crate) table: OriginalDstTable,
    pub(crate) netns_cookie: u64,
    pub(crate) neighbours: Neighbours,
}

/// Who has opened connections between pods of this node.
#[derive(Clone)]
pub(crate) struct Neighbours {
    pub(crate) local_tuples: LocalTupleTable,
    pub(crate) enrolment: Arc<EnrolmentView>,
}

impl OriginalDst for PodOriginalDst {
    fn original_dst(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.table.get(self.netns_cookie, peer)
    }

    fn neighbour(&self, peer: SocketAddr, destination: SocketAddr) -> Option<Arc<WorkloadInfo>> {
        let Neighbours { local_tuples, enrolment } = &self.neighbours;
        match local_tuples.publisher(peer, destination)? {
            Publisher::Pod(cookie) => enrolment.by_cookie(cookie),
            Publisher::Kubelet => None,
        }
    }
}
