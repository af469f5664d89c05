//! Agents replaced while they carry connections: nobody notices, on either side.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::Signal;
use undermesh_tests::{
    Agent, Conn, PORT, Pod, PodSpec, Rig, ServiceSpec,
    pod::protocol::{Behaviour, Burst},
    wait_for,
};

/// Starts another agent on a node beside the one that runs, and waits until it is in charge.
fn replace(rig: &mut Rig, node: &str) -> Result<Agent> {
    let new = Agent::start(rig.node(node)?)?;
    new.wait_in_charge()?;
    let old = rig.take_agent(node)?;
    rig.node_mut(node)?.agent = Some(new);
    Ok(old)
}

fn hold<'a>(pod: &'a Pod, to: std::net::SocketAddr, count: usize) -> Result<Vec<Conn<'a>>> {
    (0..count).map(|_| Ok(pod.connect(to)?)).collect()
}

/// Sends through every connection and gets it back.
fn talk(connections: &[Conn<'_>], word: &[u8]) -> Result<()> {
    for connection in connections {
        assert_eq!(connection.exchange(word)?, word);
    }
    Ok(())
}

fn wait_for_line(agent: &Agent, text: &str) -> Result<()> {
    let found =
        wait_for(text, Duration::from_secs(30), || Ok(agent.log().contains(text).then_some(())));
    found.with_context(|| agent.log())
}

/// A client, a server on its own node, and one on another node for each wire.
fn rig_of_all_paths() -> Result<Rig> {
    let speaking = |name: &str, wire| PodSpec::new(name).annotated("wire", wire);
    let mut rig = Rig::builder()
        .node("a", [PodSpec::new("client"), PodSpec::new("near")])
        .node("b", [speaking("server", "native"), speaking("elder", "hbone")])
        .service(ServiceSpec::new("near", 80, PORT, &["near"]))
        .service(ServiceSpec::new("far", 80, PORT, &["server"]))
        .service(ServiceSpec::new("elder", 80, PORT, &["elder"]))
        .build()?;
    rig.start()?;
    Ok(rig)
}

#[test]
fn ten_replacements_under_load_reset_nothing_and_refuse_nobody() -> Result<()> {
    let mut rig = rig_of_all_paths()?;
    let servers = ["near", "server", "elder"];
    let servers = servers.iter().map(|name| rig.pod(name)).collect::<Result<Vec<_>>>()?;
    for server in &servers {
        server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    }
    let to = ["near", "far", "elder"].iter().map(|service| rig.vip(service, 80));
    let to = to.collect::<Result<Vec<_>>>()?;
    let client = rig.pod("client")?;
    let locals = hold(&client, to[0], 80)?;
    let mut proxied = hold(&client, to[1], 60)?;
    proxied.extend(hold(&client, to[2], 60)?);
    let log = rig.agent("a")?.access_log();
    for transport in ["local", "native", "hbone"] {
        log.wait(&[("event", "open"), ("transport", transport)])?;
    }
    let newcomer = rig.pod("client")?;

    let (stop, bursts) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut replaced = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let load = scope.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                let to = to.clone();
                let burst = Burst { to, count: 42, threads: 4, payload: 64, expect: None };
                let report = newcomer.burst(burst)?;
                assert_eq!(report.ok, 42, "a new connection failed: {report:?}");
                bursts.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let result = (0..10).try_for_each(|round| {
            replaced.push(replace(&mut rig, if round % 2 == 0 { "a" } else { "b" })?);
            talk(&locals, b"local")?;
            talk(&proxied, b"proxied")
        });
        stop.store(true, Ordering::Relaxed);
        let load = load.join();
        result?;
        assert!(matches!(load, Ok(Ok(()))), "{load:?}");
        Ok(())
    })?;
    assert!(bursts.load(Ordering::Relaxed) >= 10, "there was no load to speak of");

    // Whoever carries the held connections is still there, and ends with them.
    assert!(replaced[0].is_running()? && replaced[1].is_running()?);
    proxied.into_iter().try_for_each(Conn::close)?;
    for agent in &mut replaced {
        let ended = agent.wait_end(Duration::from_secs(30))?;
        assert!(ended.success(), "{ended}");
    }
    talk(&locals, b"to the end")?;
    for node in ["a", "b"] {
        let status = rig.agent(node)?.status()?;
        assert!(status.programs.iter().all(|program| program.attached), "{:?}", status.programs);
        assert_eq!(status.warnings, Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn a_draining_agent_still_ends_what_a_later_policy_refuses() -> Result<()> {
    let mut rig = rig_of_all_paths()?;
    let (server, elder) = (rig.pod("server")?, rig.pod("elder")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    elder.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let client = rig.pod("client")?;
    let refused = hold(&client, rig.vip("far", 80)?, 3)?;
    let kept = hold(&client, rig.vip("elder", 80)?, 3)?;
    talk(&refused, b"before")?;
    talk(&kept, b"before")?;
    let mut old = replace(&mut rig, "b")?;
    talk(&refused, b"handed over")?;
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: late, namespace: shop}\n\
                spec: {action: DENY, selector: {matchLabels: {app: server}}, rules: [{}]}\n";
    rig.apply("late", deny)?;
    for conn in &refused {
        let cut = conn.receive_within(1, Duration::from_secs(10));
        assert_eq!(cut.unwrap_err().errno, "ECONNRESET");
    }
    talk(&kept, b"after")?;
    assert!(old.is_running()?);
    kept.into_iter().try_for_each(Conn::close)?;
    assert!(old.wait_end(Duration::from_secs(30))?.success());
    Ok(())
}

#[test]
fn who_has_handed_over_and_is_told_to_stop_ends_with_its_last_connection() -> Result<()> {
    let mut rig = rig_of_all_paths()?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let client = rig.pod("client")?;
    let kept = hold(&client, rig.vip("far", 80)?, 3)?;
    talk(&kept, b"before")?;
    let mut old = replace(&mut rig, "b")?;
    old.signal(Signal::TERM)?;
    wait_for_line(&old, "told to stop")?;
    talk(&kept, b"told to stop")?;
    assert!(old.is_running()?);
    kept.into_iter().try_for_each(Conn::close)?;
    assert!(old.wait_end(Duration::from_secs(30))?.success());
    Ok(())
}

#[test]
fn who_would_be_started_again_waits_to_be_stopped_after_a_handover() -> Result<()> {
    let mut rig = rig_of_all_paths()?;
    rig.node_mut("b")?.settings.set("handoverExit", "false");
    // One that has the setting takes over, and hands over; it can be asked to as soon as it has taken everything.
    let _first = replace(&mut rig, "b")?;
    wait_for_line(rig.agent("b")?, "took over from the former agent")?;
    let mut old = replace(&mut rig, "b")?;
    wait_for_line(&old, "the last connection has ended")?;
    assert!(old.is_running()?, "it would be started again, and take over again");
    old.signal(Signal::TERM)?;
    assert!(old.wait_end(Duration::from_secs(10))?.success());
    Ok(())
}

#[test]
fn a_successor_that_dies_half_way_leaves_its_predecessor_in_charge() -> Result<()> {
    let mut rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let held = hold(&client, rig.vip("far", 80)?, 5)?;
    // It takes the pods over, and then waits for a certificate that it will not get.
    rig.node_mut("a")?.settings.set("trustDomain", "no-such.domain");
    let old = rig.agent("a")?.pid();
    let directory = rig.footprint().dir().join("empty");
    std::fs::create_dir_all(&directory)?;
    rig.node_mut("a")?.settings.set("manifests", &directory.join("missing").display().to_string());
    let successor = Agent::start(rig.node("a")?)?;
    successor.wait_status("the successor to answer", Duration::from_secs(20), |status| {
        status.agent.pid == successor.pid()
    })?;
    successor.kill()?;

    let agent = rig.agent("a")?;
    let back = |status: &undermesh_tests::Status| status.agent.pid == old && status.agent.ready;
    agent.wait_status("the old agent to be back", Duration::from_secs(20), back)?;
    talk(&held, b"held")?;
    let again = hold(&client, rig.vip("far", 80)?, 5)?;
    talk(&again, b"again")?;
    assert!(agent.log().contains("taking everything back"), "{}", agent.log());
    Ok(())
}

#[test]
fn local_connections_that_outlive_an_agent_are_closed_in_the_log_of_the_next() -> Result<()> {
    let mut rig = Rig::started()?;
    let (client, near) = (rig.pod("client")?, rig.pod("near")?);
    near.listen(rig.at("near", PORT)?, Behaviour::Echo)?;
    let conn = client.connect(rig.vip("near", 80)?)?;
    conn.exchange(b"before")?;
    let source = conn.socket_name()?.to_string();
    let mut old = replace(&mut rig, "a")?;
    assert!(old.wait_end(Duration::from_secs(30))?.success());
    conn.exchange(b"after!")?;
    conn.close()?;
    let log = rig.agent("a")?.access_log();
    let closed = log.wait(&[("event", "close"), ("source.address", &source)])?;
    assert_eq!(closed.get("reason"), "closed");
    assert_eq!((closed.number("bytes_received"), closed.number("bytes_sent")), (12, 12));
    Ok(())
}
