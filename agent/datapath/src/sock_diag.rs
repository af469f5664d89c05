//! What sockets there are in a pod's network namespace (sock_diag(7)).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    Netns,
    netlink::{Body, DUMP, Netlink, Protocol},
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
/// A bit for `TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
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
}

/// The TCP sockets that listen in a namespace.
///
/// # Errors
/// Where the namespace cannot be entered, or the kernel does not answer.
pub fn listeners(netns: &Netns) -> io::Result<Vec<ListeningSocket>> {
    // The socket belongs to the namespace in which it was opened.
    let mut netlink = netns.run(|| Netlink::open(Protocol::Sockets))??;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let answers = match netlink.ask(BY_FAMILY, DUMP, &request(family, LISTENING)) {
            Ok(answers) => answers,
            // A kernel without IPv6.
            Err(error) if family == AF_INET6 && is_absent(&error) => continue,
            Err(error) => return Err(error),
        };
        found.extend(answers.iter().filter_map(listening));
    }
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT))
}

/// `struct inet_diag_req_v2`: all sockets of a family that are in one of `states`.
fn request(family: u8, states: u32) -> Body {
    let mut request = vec![family, IPPROTO_TCP, 0, 0];
    request.extend(states.to_ne_bytes());
    // `struct inet_diag_sockid`, which a dump does not look at.
    request.extend([0; 48]);
    Body::of(request)
}

/// Reads `struct inet_diag_msg`: family, state, timer, retransmissions, then source port and
/// destination port (network order), source address and destination address of 16 bytes each.
fn listening(answer: &Body) -> Option<ListeningSocket> {
    let message = answer.bytes(0..MESSAGE)?;
    let port = u16::from_be_bytes([message[4], message[5]]);
    let address = match message[0] {
        AF_INET => IpAddr::V4(Ipv4Addr::from(*message.get(8..)?.first_chunk::<4>()?)),
        AF_INET6 => IpAddr::V6(Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    let v6only = answer.number_after(MESSAGE, V6_ONLY).is_some_and(|value| value != 0);
    Some(ListeningSocket { address, port, v6only })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: u8, address: &[u8], v6only: Option<u8>) -> Body {
        let mut bytes = vec![family, 10, 0, 0];
        bytes.extend(8080_u16.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(address);
        bytes.resize(MESSAGE, 0);
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
        for (attribute, v6only) in [(None, false), (Some(0), false), (Some(1), true)] {
            let v6 = listening(&message(AF_INET6, &[0; 16], attribute)).unwrap();
            assert_eq!((v6.address, v6.v6only), (Ipv6Addr::UNSPECIFIED.into(), v6only));
        }
    }

    #[test]
    fn short_and_foreign_messages_are_left_out() {
        assert_eq!(listening(&Body::of(vec![AF_INET; MESSAGE - 1])), None);
        assert_eq!(listening(&message(1, &[], None)), None);
    }
}
