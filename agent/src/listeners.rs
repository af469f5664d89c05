//! The listeners that the agent opens inside a pod.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use undermesh_datapath::Netns;

/// Port of the outbound listener where it is free in the pod; any other does as well, since the
/// programs read it from the pod's entry.
const OUTBOUND_PORT: u16 = 15001;
const BACKLOG: i32 = 4096;

/// A pod's listeners, one of each kind for each address family that the pod has.
pub(crate) struct Listeners {
    /// On the loopback addresses only: nobody outside the pod can reach them.
    pub(crate) outbound: Vec<TcpListener>,
    pub(crate) outbound_port: u16,
    /// On any port of the pod's addresses; `sk_lookup` steers here what the agent has to serve or
    /// judge.
    pub(crate) inbound4: Option<TcpListener>,
    pub(crate) inbound6: Option<TcpListener>,
}

impl Listeners {
    /// Other descriptors of the same sockets.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        let clone = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::try_clone);
        Ok(Self {
            outbound: self
                .outbound
                .iter()
                .map(TcpListener::try_clone)
                .collect::<io::Result<_>>()?,
            outbound_port: self.outbound_port,
            inbound4: clone(&self.inbound4).transpose()?,
            inbound6: clone(&self.inbound6).transpose()?,
        })
    }

    /// Opens them.
    pub(crate) fn open(netns: &Netns, addresses: &[IpAddr]) -> Result<Self> {
        ensure!(!addresses.is_empty(), "the pod has no address");
        netns.run(|| open(addresses)).context("cannot enter its namespace")?
    }
}

fn open(addresses: &[IpAddr]) -> Result<Listeners> {
    let (outbound, outbound_port) = open_outbound(addresses.iter().any(IpAddr::is_ipv6))?;
    let inbound = |v4: bool| {
        let address = addresses.iter().find(|address| address.is_ipv4() == v4)?;
        let listener = listen(SocketAddr::new(*address, 0));
        Some(listener.with_context(|| {
            format!("cannot listen on {address}; is it an address of the pod's network namespace?")
        }))
    };
    Ok(Listeners {
        outbound,
        outbound_port,
        inbound4: inbound(true).transpose()?,
        inbound6: inbound(false).transpose()?,
    })
}

/// Both loopback addresses, at the same port.
fn open_outbound(v6: bool) -> Result<(Vec<TcpListener>, u16)> {
    let loopback4 = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let first = listen(loopback4(OUTBOUND_PORT))
        .or_else(|_| listen(loopback4(0)))
        .context("cannot listen on 127.0.0.1; is the pod's loopback interface up?")?;
    let port = first.local_addr()?.port();
    let mut sockets = vec![first];
    if v6 {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        sockets.push(listen(address).with_context(|| format!("cannot listen on {address}"))?);
    }
    Ok((sockets, port))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restarted agent must not wait for its predecessor's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
