//! Step *connect* of an inbound connection: to the application, inside its pod.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{
    connect::{Delivery, connect, connect_socket, failure},
    duplex::Socket,
    error::Failure,
    pod::{Pod, Transparent},
};

/// Source of connections that the proxy delivers over IPv4. Tells the kernel's programs that they
/// have been through the proxy, so that they are not sent there again.
const DELIVERY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
/// The same for IPv6, where a host has one loopback address.
const DELIVERY_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Checks that `destination` is an application in this pod: one of its addresses, and not a port of
/// the proxy, which would send the connection round in circles.
pub(crate) fn check(pod: &Pod, destination: SocketAddr) -> Result<(), Failure> {
    let addresses = &pod.workload.addresses;
    let own_address = addresses.contains(&destination.ip());
    if own_address && !pod.own_ports.contains(&destination.port()) {
        return Ok(());
    }
    Err(Failure::WrongDestination { to: destination })
}

/// Connects to the application, which is to see `client` as its peer. That must not be the far end
/// of a captured connection which the agent still holds; see [`translated`].
pub(crate) async fn deliver(
    pod: &Pod,
    client: SocketAddr,
    destination: SocketAddr,
) -> Result<Socket, Failure> {
    match transparently(pod, client, destination).await? {
        Some(socket) => Ok(socket),
        None => translated(pod, client, destination).await,
    }
}

/// The same from a loopback address, whatever the pod is set up for. So must be what was captured:
/// the agent's end of it has the very addresses that the delivery would have.
pub(crate) async fn translated(
    pod: &Pod,
    client: SocketAddr,
    destination: SocketAddr,
) -> Result<Socket, Failure> {
    let source = match destination {
        SocketAddr::V4(_) => DELIVERY_V4,
        SocketAddr::V6(_) => DELIVERY_V6,
    };
    let config = &pod.shared.config;
    let to = pod.sockets.application(destination);
    let stream = connect(&*pod.sockets, Some(Delivery { source, client }), to, config).await?;
    Ok(Socket::new(stream))
}

/// Connects from the client's own address, where the pod is set up for it: from the client's own
/// port, or from another one where that is in use, as by a second connection of the same client
/// socket to another name of this application.
async fn transparently(
    pod: &Pod,
    client: SocketAddr,
    destination: SocketAddr,
) -> Result<Option<Socket>, Failure> {
    let any_port = SocketAddr::new(client.ip(), 0);
    let mut last = None;
    for from in [client, any_port] {
        // The kernel could not tell the delivery from the agent's own connection.
        if pod.callers.has(from, destination) {
            last = Some(ErrorKind::AddrInUse.into());
            continue;
        }
        let connected = match pod.sockets.transparent(from, destination) {
            None => return Ok(None),
            Some(Ok(Transparent { socket, pass })) => {
                let stream = connect_socket(socket, destination, &pod.shared.config).await;
                stream.map(|stream| Socket::new(stream).with_pass(pass))
            }
            Some(Err(error)) => Err(error),
        };
        match connected {
            Ok(socket) => return Ok(Some(socket)),
            Err(error) if is_in_use(&error) => last = Some(error),
            Err(error) => return Err(failure(destination, &error)),
        }
    }
    Err(failure(destination, &last.unwrap_or_else(|| ErrorKind::AddrInUse.into())))
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable)
}
