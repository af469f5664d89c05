//! What sockets there are in a pod's network namespace, and how to end a connection (sock_diag(7)).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    Netns,
    netlink::{Body, DUMP, Netlink, Protocol},
};

/// Mark of the sockets that the agent accepts inside pods. They take it from their listener, and keep it
/// when another agent takes over.
pub const INBOUND_MARK: u32 = 0x756d_0002;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY`.
const DESTROY: u16 = 21;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// A bit for `TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
/// Bits for the states in which bytes may still flow: `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`,
/// `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8;
/// `INET_DIAG_MARK`.
const MARK: u16 = 15;
/// `INET_DIAG_SKV6ONLY`: an attribute of listening IPv6 sockets.
const V6_ONLY: u16 = 11;
/// Length of `struct inet_diag_msg`, which comes before the attributes.
const MESSAGE: usize = 72;

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// What it is bound to; the unspecified address for all of them.
    pub address: IpAddr,
    /// At which port.
    pub port: u16,
    /// An IPv6 socket that does not take IPv4 connections.
    pub v6only: bool,
    /// What it is called where a process has it open: `socket:[INODE]`.
    pub inode: u32,
}

/// One end of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectedSocket {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Its mark, 0 for none.
    pub mark: u32,
    /// `struct inet_diag_sockid` and the family before it: what the kernel knows it by.
    id: [u8; 48],
    family: u8,
}

/// The TCP sockets that listen in a namespace.
///
/// # Errors
/// Where the namespace cannot be entered, or the kernel does not answer.
pub fn listeners(netns: &Netns) -> io::Result<Vec<ListeningSocket>> {
    dump(netns.run(open)??, LISTENING, listening)
}

/// The same in the namespace of this thread. Unlike `/proc/net/tcp`, which lists the connections of all namespaces before
/// those, it takes no longer where there are many.
///
/// # Errors
/// Where the kernel does not answer.
pub fn own_listeners() -> io::Result<Vec<ListeningSocket>> {
    dump(open()?, LISTENING, listening)
}

/// The TCP connections of a namespace over which bytes may still flow.
///
/// # Errors
/// As [`listeners`].
pub fn connections(netns: &Netns) -> io::Result<Vec<ConnectedSocket>> {
    dump(netns.run(open)??, CONNECTED, connected)
}

/// Ends a connection; both ends see a reset. One that has gone meanwhile is no error.
///
/// # Errors
/// Where the kernel cannot (`EOPNOTSUPP`, without CONFIG_INET_DIAG_DESTROY) or will not.
pub fn destroy(netns: &Netns, socket: &ConnectedSocket) -> io::Result<()> {
    let mut netlink = netns.run(open)??;
    let request = request(socket.family, CONNECTED, &socket.id);
    match netlink.ask(DESTROY, 0, &request) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map(drop),
    }
}

/// A socket that belongs to the namespace in which it is opened.
fn open() -> io::Result<Netlink> {
    Netlink::open(Protocol::Sockets)
}

fn dump<T>(mut netlink: Netlink, states: u32, read: fn(&Body) -> Option<T>) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        // A dump does not look at the id.
        let answers = match netlink.ask(BY_FAMILY, DUMP, &request(family, states, &[0; 48])) {
            Ok(answers) => answers,
            // A kernel without IPv6.
            Err(error) if family == AF_INET6 && is_absent(&error) => continue,
            Err(error) => return Err(error),
        };
        found.extend(answers.iter().filter_map(read));
    }
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT))
}

/// `struct inet_diag_req_v2`: sockets of a family that are in one of `states`.
fn request(family: u8, states: u32, id: &[u8; 48]) -> Body {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(states.to_ne_bytes());
    request.extend(id);
    Body::of(request)
}

/// Reads `struct inet_diag_msg`: family, state, timer, retransmissions, then source port and
/// destination port (network order), source address and destination address of 16 bytes each; at its end, the inode.
fn listening(answer: &Body) -> Option<ListeningSocket> {
    let message = answer.bytes(0..MESSAGE)?;
    let bound = ends(message)?.0;
    let inode = u32::from_ne_bytes(*message.last_chunk()?);
    let v6only = answer.number_after(MESSAGE, V6_ONLY).is_some_and(|value| value != 0);
    Some(ListeningSocket { address: bound.ip(), port: bound.port(), v6only, inode })
}

fn connected(answer: &Body) -> Option<ConnectedSocket> {
    let message = answer.bytes(0..MESSAGE)?;
    let (local, remote) = ends(message)?;
    let canonical = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    Some(ConnectedSocket {
        local: canonical(local),
        remote: canonical(remote),
        mark: answer.number_after(MESSAGE, MARK).unwrap_or(0),
        id: *message.get(4..)?.first_chunk::<48>()?,
        family: message[0],
    })
}

/// Both ends of a socket.
fn ends(message: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes(*message.get(port..)?.first_chunk::<2>()?);
        let rest = message.get(address..)?;
        let address = match *message.first()? {
            AF_INET => IpAddr::V4(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
            AF_INET6 => IpAddr::V6(Ipv6Addr::from(*rest.first_chunk::<16>()?)),
            _ => return None,
        };
        Some(SocketAddr::new(address, port))
    };
    Some((end(4, 8)?, end(6, 24)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: u8, address: &[u8], v6only: Option<u8>) -> Body {
        let mut bytes = vec![family, 10, 0, 0];
        bytes.extend(8080_u16.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(address);
        bytes.resize(MESSAGE - 4, 0);
        bytes.extend(4711_u32.to_ne_bytes());
        let body = Body::of(bytes);
        match v6only {
            Some(value) => body.with(V6_ONLY, &[value]),
            None => body,
        }
    }

    #[test]
    fn messages_say_where_a_socket_listens() {
        let v4 = listening(&message(AF_INET, &[10, 0, 0, 1], None)).unwrap();
        assert_eq!((v4.address.to_string(), v4.port), ("10.0.0.1".to_owned(), 8080));
        assert_eq!(v4.inode, 4711);
        for (attribute, v6only) in [(None, false), (Some(0), false), (Some(1), true)] {
            let v6 = listening(&message(AF_INET6, &[0; 16], attribute)).unwrap();
            assert_eq!((v6.address, v6.v6only), (Ipv6Addr::UNSPECIFIED.into(), v6only));
        }
    }

    #[test]
    fn connections_are_told_with_both_ends_and_their_mark() {
        let mut bytes = vec![AF_INET6, 1, 0, 0];
        bytes.extend(8080_u16.to_be_bytes());
        bytes.extend(40_000_u16.to_be_bytes());
        bytes.extend(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets());
        bytes.extend(Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets());
        bytes.resize(MESSAGE, 0);
        let marked = Body::of(bytes.clone()).with_number(MARK, INBOUND_MARK);
        let found = connected(&marked).unwrap();
        assert_eq!(found.local, "10.0.0.1:8080".parse().unwrap());
        assert_eq!(found.remote, "10.0.0.2:40000".parse().unwrap());
        assert_eq!((found.mark, found.family), (INBOUND_MARK, AF_INET6));
        assert_eq!(found.id, bytes[4..52]);
        assert_eq!(connected(&Body::of(bytes)).unwrap().mark, 0);
    }

    #[test]
    fn short_and_foreign_messages_are_left_out() {
        assert_eq!(listening(&Body::of(vec![AF_INET; MESSAGE - 1])), None);
        assert_eq!(listening(&message(1, &[], None)), None);
    }
}
