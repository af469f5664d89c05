//! The listeners that the agent opens inside a pod.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use undermesh_datapath::{Netns, sock_diag::INBOUND_MARK};

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

    /// Opens them. `loopback` says whether the pod's loopback interface must be up.
    pub(crate) fn open(netns: &Netns, addresses: &[IpAddr], loopback: Existence) -> Result<Self> {
        ensure!(!addresses.is_empty(), "the pod has no address");
        netns.run(|| open(addresses, loopback)).context("cannot enter its namespace")?
    }
}

/// What a namespace lacks of what its pod needs: an address of the pod, or of the loopback interface.
pub(crate) fn absent(netns: &Netns, addresses: &[IpAddr]) -> Result<Option<IpAddr>> {
    let v6 = addresses.iter().any(IpAddr::is_ipv6);
    let loopback = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let is_absent =
        |address: &IpAddr| bind(SocketAddr::new(*address, 0), Existence::Required).is_err();
    netns
        .run(|| addresses.iter().copied().chain([loopback]).find(is_absent))
        .context("cannot enter its namespace")
}

/// Whether an address must be there to be listened at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existence {
    /// At once.
    Required,
    /// It may come later: a namespace is there before its addresses are, and a process right after.
    Awaited,
}

fn open(addresses: &[IpAddr], loopback: Existence) -> Result<Listeners> {
    let v6 = addresses.iter().any(IpAddr::is_ipv6);
    let (outbound, outbound_port) = open_outbound(v6, loopback)?;
    let inbound = |v4: bool| {
        let address = addresses.iter().find(|address| address.is_ipv4() == v4)?;
        let listener = listen(SocketAddr::new(*address, 0), Existence::Awaited);
        // What is accepted takes the mark over: it tells the agent's sockets from the application's.
        let listener = listener.and_then(|listener| {
            SockRef::from(&listener).set_mark(INBOUND_MARK)?;
            Ok(listener)
        });
        Some(listener.with_context(|| format!("cannot listen on {address}")))
    };
    Ok(Listeners {
        outbound,
        outbound_port,
        inbound4: inbound(true).transpose()?,
        inbound6: inbound(false).transpose()?,
    })
}

/// Both loopback addresses, at the same port.
fn open_outbound(v6: bool, existence: Existence) -> Result<(Vec<TcpListener>, u16)> {
    let loopback4 = |port| listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), existence);
    let first = loopback4(OUTBOUND_PORT)
        .or_else(|_| loopback4(0))
        .context("cannot listen on 127.0.0.1; is the pod's loopback interface up?")?;
    let port = first.local_addr()?.port();
    let mut sockets = vec![first];
    if v6 {
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let second = listen(address, existence);
        sockets.push(second.with_context(|| format!("cannot listen on {address}"))?);
    }
    Ok((sockets, port))
}

fn listen(address: SocketAddr, existence: Existence) -> io::Result<TcpListener> {
    let socket = bind(address, existence)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind(address: SocketAddr, existence: Existence) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if existence == Existence::Awaited {
        match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
    }
    // A restarted agent must not wait for its predecessor's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
