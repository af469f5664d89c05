//! The native wire between pods of two nodes: at the application's own port, reused, resumed, reset,
//! and left for HBONE where it is not spoken.

use std::time::Duration;

use anyhow::{Result, ensure};
use undermesh_tests::{
    Agent, Conn, PORT, Pod, PodSpec, Rig, ServiceSpec,
    pod::protocol::{Behaviour, Burst},
    wait_for,
};

const PATIENCE: Duration = Duration::from_secs(20);
const NATIVE: [(&str, &str); 3] =
    [("event", "open"), ("transport", "native"), ("security", "mutual_tls")];

fn sessions(agent: &Agent, connection: &str) -> Result<u64> {
    agent.metric("undermesh_native_sessions_total", &format!("connection=\"{connection}\""))
}

fn handshakes(agent: &Agent, result: &str) -> Result<u64> {
    agent.metric("undermesh_native_handshakes_total", &format!("result=\"{result}\""))
}

/// A word there and back, and an orderly end.
fn exchange(pod: &Pod, to: std::net::SocketAddr) -> Result<()> {
    let conn = pod.connect(to)?;
    ensure!(conn.exchange(b"word")? == b"word");
    conn.shutdown_write()?;
    ensure!(conn.receive_to_end()?.is_empty());
    Ok(conn.close()?)
}

#[test]
fn peers_meet_at_the_applications_own_port_and_both_see_whom_they_should() -> Result<()> {
    let rig = Rig::started()?;
    let capture = rig.capture()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    for (to, from) in [
        (rig.vip("far", 80)?, rig.at("client", 0)?),
        (rig.vip6("far", 80)?, rig.at6("client", 0)?),
        (rig.at("server", PORT)?, rig.at("client", 0)?),
    ] {
        let before = listener.accepted()?.len();
        let conn = client.connect(to)?;
        assert_eq!(conn.exchange(b"secret-of-the-mesh")?, b"secret-of-the-mesh", "{to}");
        assert_eq!(conn.peer_name()?, to);
        let seen = listener.accepted()?[before].peer;
        assert_eq!(seen.ip().to_canonical(), from.ip());
        assert_eq!(seen.port(), conn.socket_name()?.port());
    }
    for (node, reporter) in [("a", "source"), ("b", "destination")] {
        let log = rig.agent(node)?.access_log();
        log.wait(&[&NATIVE[..], &[("reporter", reporter)]].concat())?;
    }
    let line = rig.agent("b")?.access_log().wait(&NATIVE)?;
    assert_eq!(line.get("source.identity"), "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!(line.get("destination.address"), rig.at("server", PORT)?.to_string());
    assert!(!capture.contains(b"secret-of-the-mesh")?);
    assert!(capture.payload_bytes(PORT)? > 3 * 2 * "secret-of-the-mesh".len());
    assert_eq!(capture.payload_bytes(15008)?, 0, "a tunnel was opened");
    Ok(())
}

#[test]
fn a_warm_pair_opens_connections_without_a_full_handshake() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let to = rig.vip("far", 80)?;
    let agent = rig.agent("a")?;
    exchange(&client, to)?;
    assert_eq!(handshakes(agent, "full")?, 1);
    for _ in 0..40 {
        exchange(&client, to)?;
    }
    assert_eq!(handshakes(agent, "full")?, 1);
    // A session may come before the last one's connection is back.
    let (reused, prewarmed) = (sessions(agent, "reused")?, sessions(agent, "prewarmed")?);
    assert!(reused + prewarmed >= 35, "{}", agent.metrics()?);
    // While it is held, each needs a connection of its own: made in advance, or resumed.
    let mut held: Vec<Conn<'_>> = Vec::new();
    for _ in 0..40 {
        let conn = client.connect(to)?;
        conn.exchange(b"held")?;
        held.push(conn);
    }
    assert_eq!(handshakes(agent, "full")?, 1);
    assert!(handshakes(agent, "resumed")? >= 30, "{}", agent.metrics()?);
    Ok(())
}

#[test]
fn halves_and_resets_cross_the_native_wire() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen(rig.at("server", PORT)?, Behaviour::Manual)?;
    let to = rig.at("server", PORT)?;

    let near = client.connect(to)?;
    let (far, _) = listener.accept()?;
    near.send(b"question")?;
    near.shutdown_write()?;
    assert_eq!(far.receive_to_end()?, b"question");
    far.send(b"answer")?;
    far.close()?;
    assert_eq!(near.receive_to_end()?, b"answer");
    near.close()?;

    let near = client.connect(to)?;
    let (far, _) = listener.accept()?;
    far.send(b"x")?;
    near.receive(1)?;
    near.reset()?;
    assert_eq!(far.receive_within(1, PATIENCE).unwrap_err().errno, "ECONNRESET");

    let near = client.connect(to)?;
    let (far, _) = listener.accept()?;
    near.send(b"x")?;
    far.receive(1)?;
    far.reset()?;
    assert_eq!(near.receive_within(1, PATIENCE).unwrap_err().errno, "ECONNRESET");
    rig.agent("a")?.access_log().wait(&[("event", "close"), ("reason", "server_reset")])?;
    rig.agent("b")?.access_log().wait(&[("event", "close"), ("reason", "client_reset")])?;
    Ok(())
}

#[test]
fn megabytes_cross_unharmed_and_a_slow_reader_stops_the_writer() -> Result<()> {
    const LENGTH: u64 = 48 << 20;
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen(rig.at("server", PORT)?, Behaviour::Manual)?;
    let near = client.connect(rig.vip("far", 80)?)?;
    let (far, _) = listener.accept()?;
    let stalled = near.send_pattern(0, 256 << 20, Duration::from_secs(2))?;
    assert!(stalled > 0 && stalled < 64 << 20, "{stalled} bytes are buffered somewhere");
    assert!(far.receive_pattern(0, stalled)?);
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| far.receive_pattern(stalled, LENGTH));
        assert_eq!(near.send_pattern(stalled, LENGTH, PATIENCE)?, LENGTH);
        assert!(matches!(reader.join(), Ok(Ok(true))), "bytes arrived changed");
        Ok(())
    })
}

#[test]
fn a_pod_that_is_said_to_speak_hbone_is_spoken_to_in_it() -> Result<()> {
    let mut rig = Rig::builder()
        .node("a", [PodSpec::new("client")])
        .node("b", [PodSpec::new("server"), PodSpec::new("old").annotated("wire", "hbone")])
        .service(ServiceSpec::new("far", 80, PORT, &["server"]))
        .build()?;
    rig.start()?;
    let client = rig.pod("client")?;
    for (name, wire) in [("server", "native"), ("old", "hbone")] {
        let pod = rig.pod(name)?;
        pod.listen(rig.at(name, PORT)?, Behaviour::Echo)?;
        exchange(&client, rig.at(name, PORT)?)?;
        let log = rig.agent("a")?.access_log();
        log.wait(&[("event", "open"), ("transport", wire), ("destination.pod", name)])?;
    }
    Ok(())
}

#[test]
fn a_closed_port_is_reached_over_neither_wire_and_nobody_is_shown_plaintext() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    let answer = client.connect(rig.at("server", 9999)?).and_then(|conn| conn.exchange(b"word"));
    assert!(["ECONNRESET", "EPIPE"].contains(&answer.unwrap_err().errno.as_str()));
    let log = rig.agent("a")?.access_log();
    let denied = log.wait(&[("event", "denied"), ("reporter", "source")])?;
    assert_eq!(denied.get("reason"), "destination_unreachable");
    assert!(denied.get("detail").contains("connection_refused"), "{denied:?}");
    Ok(())
}

#[test]
fn a_policy_that_begins_to_refuse_resets_sessions_and_refuses_new_ones() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let held = client.connect(rig.at("server", PORT)?)?;
    held.exchange(b"before")?;
    rig.apply(
        "nobody",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: nobody, namespace: shop}\n\
         spec:\n  selector: {matchLabels: {app: server}}\n",
    )?;
    assert_eq!(held.receive_within(1, PATIENCE).unwrap_err().errno, "ECONNRESET");
    let answer = client.connect(rig.at("server", PORT)?).and_then(|conn| conn.exchange(b"word"));
    assert!(["ECONNRESET", "EPIPE"].contains(&answer.unwrap_err().errno.as_str()));
    let log = rig.agent("b")?.access_log();
    log.wait(&[("event", "close"), ("reason", "policy_denied_late"), ("transport", "native")])?;
    log.wait(&[("event", "denied"), ("reason", "policy_denied"), ("transport", "native")])?;
    let agent = rig.agent("a")?;
    assert_eq!(agent.metric("undermesh_native_fallbacks_total", "reason")?, 0);
    Ok(())
}

#[test]
fn an_agent_that_comes_back_is_spoken_to_again_and_bursts_lose_nothing() -> Result<()> {
    let mut rig = Rig::started()?;
    let client = rig.pod("client")?;
    let server = rig.pod("server")?;
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let to = rig.vip("far", 80)?;
    let burst = || Burst { to: vec![to], count: 200, threads: 8, payload: 512, expect: None };
    assert_eq!(client.burst(burst())?.ok, 200);
    rig.take_agent("b")?.kill()?;
    rig.start_agents()?;
    // What is left idle of the old agent is not used: it was reset.
    wait_for("the new agent to be reached", PATIENCE, || Ok(exchange(&client, to).ok()))?;
    assert_eq!(client.burst(burst())?.ok, 200);
    rig.agent("b")?.access_log().wait(&NATIVE)?;
    Ok(())
}
