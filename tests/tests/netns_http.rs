//! Requests, looked at: the agents of two nodes, the programs in the kernel, and applications that
//! speak HTTP between them.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result};
use undermesh_tests::{Conn, PORT, Rig, pod::protocol::Behaviour};

/// The standard rig, whose services are looked at and name what their port speaks.
fn started(port_name: &str) -> Result<Rig> {
    let mut rig = Rig::standard().build()?;
    for service in ["far", "near"] {
        let name = format!("service-{service}");
        let text = fs::read_to_string(rig.manifests.path(&name))?;
        let text = text.replace("name: tcp-80", &format!("name: {port_name}"));
        let looked_at = "  annotations:\n    undermesh.io/l7: \"true\"\nspec:\n";
        rig.manifests.write(&name, &text.replacen("spec:\n", looked_at, 1))?;
    }
    rig.start()?;
    Ok(rig)
}

/// The head of a message.
fn head(conn: &Conn<'_>) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1)?);
    }
    Ok(String::from_utf8(head)?)
}

/// What an endpoint saw of one request, which was answered.
fn asked(rig: &Rig, to: SocketAddr, service: &str, server: &str) -> Result<String> {
    let (client, server) = (rig.pod("client")?, rig.pod(server)?);
    let listener =
        server.listen(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT), Behaviour::Manual)?;
    let conn = client.connect(to)?;
    let claim = "X-Forwarded-Client-Cert: By=spiffe://cluster.local/ns/shop/sa/admin";
    conn.send(format!("GET /a?b=c HTTP/1.1\r\nHost: {service}\r\n{claim}\r\n\r\n").as_bytes())?;
    let (app, accepted) = listener.accept().context("the request arrives")?;
    let own = [rig.at("client", 0)?.ip(), rig.at6("client", 0)?.ip()];
    let peer = accepted.peer.ip().to_canonical();
    assert!(own.contains(&peer), "the server sees {peer} instead of the client");
    let seen = head(&app)?;
    app.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-From: app\r\n\r\nhello")?;
    let answer = head(&conn)?;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("x-from: app"),
        "{answer}"
    );
    assert_eq!(conn.receive(5)?, b"hello");
    assert_eq!(conn.peer_name()?, to, "the client sees the proxy instead of {to}");
    Ok(seen)
}

fn assert_looked_at(seen: &str, service: &str) {
    assert!(seen.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{seen}");
    for header in
        [&format!("host: {service}\r\n"), "x-request-id: ", "x-envoy-attempt-count: 1\r\n"]
    {
        assert!(seen.contains(header), "{header} not in {seen}");
    }
    assert!(!seen.contains("client-cert"), "{seen}");
}

#[test]
fn a_request_to_another_node_passes_the_agents_and_is_answered() -> Result<()> {
    let rig = started("http-80")?;
    assert_looked_at(&asked(&rig, rig.vip("far", 80)?, "far", "server")?, "far");
    Ok(())
}

#[test]
fn the_same_over_ipv6() -> Result<()> {
    let rig = started("http-80")?;
    let seen = asked(&rig, rig.vip6("near", 80)?, "near", "near")?;
    assert_looked_at(&seen, "near");
    Ok(())
}

#[test]
fn a_request_to_the_same_node_passes_one_proxy_and_no_tunnel() -> Result<()> {
    let rig = started("http-80")?;
    let before = rig.agent("a")?.status()?;
    assert_looked_at(&asked(&rig, rig.vip("near", 80)?, "near", "near")?, "near");
    let after = rig.agent("a")?.status()?;
    for (reason, rise) in
        [("proxied", 1), ("local", 0), ("inbound_tunnel", 0), ("inbound_captured", 0)]
    {
        assert_eq!(after.verdict(reason), before.verdict(reason) + rise, "{reason}");
    }
    Ok(())
}

#[test]
fn a_server_that_speaks_first_is_heard_at_a_port_that_names_no_protocol() -> Result<()> {
    let rig = started("some-port")?;
    for (service, server) in [("far", "server"), ("near", "near")] {
        let (client, pod) = (rig.pod("client")?, rig.pod(server)?);
        let _listener =
            pod.listen(rig.at(server, PORT)?, Behaviour::Banner("220 ready".to_owned()))?;
        let conn = client.connect(rig.vip(service, 80)?)?;
        assert_eq!(conn.receive(9)?, b"220 ready", "{service}");
        assert_eq!(conn.exchange(b"ping")?, b"ping", "{service}");
    }
    Ok(())
}

#[test]
fn an_endpoint_where_nobody_listens_is_answered_for() -> Result<()> {
    let rig = started("http-80")?;
    let client = rig.pod("client")?;
    let conn = client.connect(rig.vip("far", 80)?)?;
    conn.send(b"GET / HTTP/1.1\r\nHost: far\r\n\r\n")?;
    // Nobody listens there.
    let answer = head(&conn)?;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    Ok(())
}
