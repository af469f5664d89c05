//! What crosses from node to node, and who is allowed to say it: ciphertext between workloads that
//! have proven who they are, and never plaintext in its place.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use undermesh_tests::{LogLine, PORT, Rig, pod::protocol::Behaviour};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

/// The wires between agents, and the port that each uses on the network: the application's own, or
/// that of the tunnel.
const WIRES: [(&str, u16); 2] = [("native", PORT), ("hbone", HBONE)];
const HBONE: u16 = 15008;

fn started(wire: &str) -> Result<Rig> {
    let mut rig = Rig::speaking(wire).build()?;
    rig.start()?;
    Ok(rig)
}

#[test]
fn what_the_mesh_carries_never_crosses_the_wire_in_clear() -> Result<()> {
    WIRES.into_iter().try_for_each(|(wire, port)| never_in_clear(wire, port))
}

fn never_in_clear(wire: &str, port: u16) -> Result<()> {
    let rig = started(wire)?;
    let capture = rig.capture()?;
    let (client, outsider) = (rig.pod("client")?, rig.pod("outsider")?);
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;

    for to in [rig.vip("far", 80)?, rig.vip6("far", 80)?, rig.at("server", PORT)?] {
        let conn = client.connect(to)?;
        assert_eq!(conn.exchange(b"secret-of-the-mesh")?, b"secret-of-the-mesh", "{to}");
    }
    assert!(capture.payload_bytes(port)? > 3 * 2 * "secret-of-the-mesh".len(), "{wire}");
    let other = if port == PORT { HBONE } else { PORT };
    assert_eq!(capture.payload_bytes(other)?, 0, "{wire}");
    // The same bytes from a pod outside the mesh, on the same wire: the capture would see them.
    let conn = outsider.connect(rig.at("server", PORT)?)?;
    conn.exchange(b"plain-as-day")?;
    capture.wait_for(b"plain-as-day")?;

    assert!(!capture.contains(b"secret-of-the-mesh")?, "{wire}");
    Ok(())
}

#[test]
fn the_servers_agent_logs_and_counts_the_clients_proven_identity() -> Result<()> {
    WIRES.into_iter().try_for_each(|(wire, _)| proven_identity(wire))
}

fn proven_identity(wire: &str) -> Result<()> {
    let rig = started(wire)?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let conn = client.connect(rig.vip("far", 80)?)?;
    conn.exchange(b"0123456789")?;
    conn.close()?;

    let proven = [
        ("reporter", "destination"),
        ("source.identity", CLIENT),
        ("destination.identity", SERVER),
        ("security", "mutual_tls"),
        ("transport", wire),
    ];
    let log = rig.agent("b")?.access_log();
    let opened = log.wait(&[&[("event", "open")], &proven[..]].concat())?;
    assert_eq!(opened.get("destination.address"), rig.at("server", PORT)?.to_string());
    let closed = log.wait(&[&[("event", "close")], &proven[..]].concat())?;
    assert_eq!((closed.number("bytes_received"), closed.number("bytes_sent")), (10, 10));
    assert_eq!(closed.get("reason"), "closed");

    let log = rig.agent("a")?.access_log();
    let opened = log.wait(&[("event", "open"), ("reporter", "source")])?;
    let service = opened.get("service");
    assert_eq!(service, "far.shop.svc.cluster.local");
    assert_eq!(opened.get("destination.identity"), SERVER);
    assert_eq!(opened.get("dialled"), rig.vip("far", 80)?.to_string());

    let principal = format!("source_principal=\"{CLIENT}\"");
    let agent = rig.agent("b")?;
    assert_eq!(agent.metric("istio_tcp_connections_opened_total", &principal)?, 1);
    assert_eq!(agent.metric("istio_tcp_received_bytes_total", &principal)?, 10);
    Ok(())
}

#[test]
fn while_the_servers_agent_is_down_the_client_is_reset_and_nothing_falls_back() -> Result<()> {
    WIRES.into_iter().try_for_each(|(wire, _)| nothing_falls_back(wire))
}

fn nothing_falls_back(wire: &str) -> Result<()> {
    let mut rig = started(wire)?;
    let capture = rig.capture()?;
    let (client, outsider) = (rig.pod("client")?, rig.pod("outsider")?);
    let server = rig.pod("server")?;
    let listener = server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let before = client.connect(rig.vip("far", 80)?)?;
    before.exchange(b"secret-while-up")?;

    rig.take_agent("b")?.kill()?;
    let cut = before.send(b"secret-late").and_then(|()| before.receive(1));
    assert_eq!(cut.err().context("the connection goes on")?.errno, "ECONNRESET");
    let served = listener.accepted()?.len();
    for to in [rig.vip("far", 80)?, rig.at("server", PORT)?] {
        // Which call meets the reset first is a race; that one does is not.
        let answer = client.connect(to).and_then(|conn| {
            conn.send(b"secret-while-down")?;
            conn.receive(1)
        });
        let error = answer.err().context("somebody answers")?.errno;
        assert!(["ECONNRESET", "EPIPE"].contains(&error.as_str()), "{to}: {error}");
    }
    assert_eq!(listener.accepted()?.len(), served, "the server was reached past its agent");
    outsider.connect(rig.at("server", PORT)?)?.exchange(b"plain-as-day")?;
    capture.wait_for(b"plain-as-day")?;
    assert!(!capture.contains(b"secret")?);
    let denied = rig.agent("a")?.access_log().wait(&[("event", "denied")])?;
    assert!(!denied.get("reason").is_empty());
    Ok(())
}

#[test]
fn a_strict_pod_refuses_plaintext_and_says_so_and_still_takes_the_mesh() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("b")?.settings.set("mtls", "STRICT");
    rig.start()?;
    let (client, outsider) = (rig.pod("client")?, rig.pod("outsider")?);
    let server = rig.pod("server")?;
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;

    for to in [rig.at("server", PORT)?, rig.at6("server", PORT)?] {
        assert_eq!(outsider.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
    }
    assert_eq!(listener.accepted()?, []);
    let log = rig.agent("b")?.access_log();
    let denied = log.wait(&[("event", "denied"), ("reason", "strict_plaintext")])?;
    let from = rig.at("outsider", 0)?.ip().to_string();
    assert!(denied.get("source.address").starts_with(&from), "{denied:?}");

    for to in [rig.vip("far", 80)?, rig.at6("server", PORT)?] {
        assert_eq!(client.connect(to)?.exchange(b"meshed")?, b"meshed", "{to}");
    }
    Ok(())
}

#[test]
fn a_permissive_pod_takes_plaintext_from_outside_the_mesh() -> Result<()> {
    let rig = Rig::started()?;
    let (outsider, server) = (rig.pod("outsider")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for to in [rig.at("server", PORT)?, rig.at6("server", PORT)?] {
        let conn = outsider.connect(to)?;
        assert_eq!(conn.exchange(b"plain")?, b"plain");
        let peer = listener.accepted()?.last().map(|one| one.peer);
        let peer =
            peer.map(|peer| std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port()));
        assert_eq!(peer, Some(conn.socket_name()?), "the client's address was changed");
    }
    assert_eq!(rig.agent("b")?.status()?.verdict("inbound_plaintext"), 2);
    Ok(())
}

#[test]
fn what_leaves_the_mesh_costs_no_byte_in_user_space() -> Result<()> {
    let rig = Rig::started()?;
    let (client, stranger) = (rig.pod("client")?, rig.pod("stranger")?);
    let listener = stranger.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let before = rig.agent("a")?.status()?;
    for to in [rig.at("stranger", PORT)?, rig.at6("stranger", PORT)?] {
        let conn = client.connect(to)?;
        assert_eq!(conn.exchange(b"hello")?, b"hello");
        assert_eq!(conn.peer_name()?, to);
        let peer = listener.accepted()?.last().map(|one| one.peer.port());
        assert_eq!(peer, Some(conn.socket_name()?.port()), "somebody stands in between");
    }
    let after = rig.agent("a")?.status()?;
    assert_eq!(after.verdict("outside_mesh"), before.verdict("outside_mesh") + 2);
    assert_eq!(after.verdict("proxied"), before.verdict("proxied"));
    assert_eq!(rig.agent("a")?.access_log().lines()?, Vec::<LogLine>::new());
    Ok(())
}

#[test]
fn ordinary_programs_work_through_the_mesh() -> Result<()> {
    let rig = Rig::started()?;
    let server = rig.pod("server")?;
    server.listen(
        rig.at("server", PORT)?,
        Behaviour::Banner("HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned()),
    )?;
    let mut curl: Command = rig.command_in("client")?;
    let url = format!("http://{}/", rig.vip("far", 80)?);
    let output =
        curl.args(["curl", "--silent", "--show-error", "--max-time", "10", &url]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"hello");
    Ok(())
}
