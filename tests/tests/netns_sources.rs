//! Whom a server sees: the client's own address and port, on every way that a connection may come.

use std::net::SocketAddr;

use anyhow::Result;
use undermesh_tests::{
    Conn, PORT, Rig,
    pod::protocol::{Behaviour, ConnectOptions},
};

/// The address in the form that an IPv4 socket has it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Connects, and checks both ends' views of each other.
fn sees_the_client(rig: &Rig, server: &str, to: SocketAddr, listen: &str) -> Result<()> {
    sees_the_client_with(rig, server, to, listen, ConnectOptions::default())
}

fn sees_the_client_with(
    rig: &Rig,
    server: &str,
    to: SocketAddr,
    listen: &str,
    options: ConnectOptions,
) -> Result<()> {
    let (client, pod) = (rig.pod("client")?, rig.pod(server)?);
    let listener = pod.listen(listen.parse()?, Behaviour::Manual)?;
    let near: Conn<'_> = client.connect_with(to, options)?;
    let (far, accepted) = listener.accept()?;
    let own = canonical(near.socket_name()?);
    assert_eq!(canonical(near.peer_name()?), to, "getpeername of the client");
    assert_eq!(canonical(accepted.peer), own, "accept on {listen}, from {to}");
    assert_eq!(canonical(far.peer_name()?), own, "getpeername on {listen}, from {to}");
    near.send(b"x")?;
    assert_eq!(far.receive(1)?, b"x");
    // Still so when the proxy's end has closed.
    near.close()?;
    assert_eq!(far.receive_to_end()?, b"");
    assert_eq!(canonical(far.peer_name()?), own, "getpeername after the client has closed");
    Ok(())
}

#[test]
fn a_server_sees_the_client_behind_the_tunnel_in_both_families() -> Result<()> {
    let rig = Rig::started()?;
    let (v4, v6) = (rig.at("server", PORT)?, rig.at6("server", PORT)?);
    for (to, listen) in [
        (v4, v4.to_string()),
        (v4, format!("0.0.0.0:{PORT}")),
        (v4, format!("[::]:{PORT}")),
        (v6, v6.to_string()),
        (v6, format!("[::]:{PORT}")),
        (rig.vip("far", 80)?, format!("0.0.0.0:{PORT}")),
        (rig.vip6("far", 80)?, format!("[::]:{PORT}")),
    ] {
        sees_the_client(&rig, "server", to, &listen)?;
    }
    Ok(())
}

#[test]
fn a_server_sees_its_neighbour_as_it_is() -> Result<()> {
    let rig = Rig::started()?;
    sees_the_client(&rig, "near", rig.vip("near", 80)?, &format!("0.0.0.0:{PORT}"))?;
    sees_the_client(&rig, "near", rig.at6("near", PORT)?, &format!("[::]:{PORT}"))
}

#[test]
fn a_client_with_an_ipv6_socket_is_seen_at_its_ipv4_address() -> Result<()> {
    let rig = Rig::started()?;
    for (server, service, way) in [("server", "far", "proxied"), ("near", "near", "local")] {
        for to in [rig.vip(service, 80)?, rig.at(server, PORT)?] {
            for listen in [rig.at(server, PORT)?.to_string(), format!("[::]:{PORT}")] {
                let options = ConnectOptions { v4_mapped: true, ..ConnectOptions::default() };
                sees_the_client_with(&rig, server, to, &listen, options)?;
            }
        }
        assert_eq!(rig.agent("a")?.status()?.verdict(way), 4, "{way}");
    }
    Ok(())
}

#[test]
fn a_pods_own_loopback_connections_are_shown_as_they_are() -> Result<()> {
    let rig = Rig::started()?;
    let server = rig.pod("server")?;
    for to in ["127.0.0.1:7070", "[::1]:7070"] {
        let listener = server.listen(to.parse()?, Behaviour::Manual)?;
        let near = server.connect(to.parse()?)?;
        let (far, accepted) = listener.accept()?;
        assert_eq!(accepted.peer, near.socket_name()?);
        assert_eq!(far.peer_name()?, near.socket_name()?);
    }
    Ok(())
}

#[test]
fn what_a_local_connection_has_carried_is_logged_and_counted_when_it_ends() -> Result<()> {
    let rig = Rig::started()?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    let listener = near.listen(rig.at("near", PORT)?, Behaviour::Manual)?;
    for client_first in [true, false] {
        let conn = client.connect(rig.vip("near", 80)?)?;
        let (far, _) = listener.accept()?;
        conn.send(&[b'a'; 3000])?;
        assert_eq!(far.receive(3000)?.len(), 3000);
        far.send(&[b'b'; 70_000])?;
        assert_eq!(conn.receive(70_000)?.len(), 70_000);
        let source = conn.socket_name()?.to_string();
        let (first, second) = if client_first { (conn, far) } else { (far, conn) };
        first.close()?;
        assert_eq!(second.receive_to_end()?, b"");
        second.close()?;
        let closed = rig.agent("a")?.access_log().wait(&[
            ("event", "close"),
            ("transport", "local"),
            ("source.address", &source),
        ])?;
        assert_eq!(closed.number("bytes_received"), 3000, "client closes first: {client_first}");
        assert_eq!(closed.number("bytes_sent"), 70_000, "client closes first: {client_first}");
        assert_eq!(closed.get("reason"), "closed");
        assert_eq!(closed.get("source.pod"), "client");
        assert_eq!(closed.get("destination.pod"), "near");
    }
    let metrics = rig.agent("a")?.metrics()?;
    let received = metrics.lines().find(|line| {
        line.starts_with("istio_tcp_received_bytes_total{") && line.contains("\"near\"")
    });
    let received = received.unwrap_or_default();
    assert!(received.ends_with(" 6000"), "{received:?} in\n{metrics}");
    Ok(())
}

#[test]
fn a_local_connection_to_nobody_is_logged_as_refused() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    let error = client.connect(rig.vip("near", 80)?).unwrap_err();
    assert_eq!(error.errno, "ECONNREFUSED");
    let log = rig.agent("a")?.access_log();
    let closed = log.wait(&[("event", "close"), ("transport", "local")])?;
    assert_eq!(closed.get("reason"), "connection_refused");
    Ok(())
}
