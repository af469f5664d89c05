//! Step *connect* of an inbound connection: to the application, inside its pod.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    connect::{Delivery, connect},
    duplex::Socket,
    error::Failure,
    pod::Pod,
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

/// Connects to the application, which is to see `client` as its peer.
pub(crate) async fn deliver(
    pod: &Pod,
    client: SocketAddr,
    destination: SocketAddr,
) -> Result<Socket, Failure> {
    let source = match destination {
        SocketAddr::V4(_) => DELIVERY_V4,
        SocketAddr::V6(_) => DELIVERY_V6,
    };
    let config = &pod.shared.config;
    let stream =
        connect(&*pod.sockets, Some(Delivery { source, client }), destination, config).await?;
    Ok(Socket::new(stream))
}
