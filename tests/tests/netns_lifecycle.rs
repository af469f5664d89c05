//! Pods join and leave, agents die and come back, manifests break: traffic minds none of it more
//! than it must.

use std::{
    ffi::OsStr,
    fs,
    process::Output,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use undermesh_tests::{
    Agent, PORT, Placement, Pod, Rig, ServiceSpec,
    pod::protocol::{Behaviour, Burst},
};

const SOON: Duration = Duration::from_secs(10);

/// Whether a connection of `client` to the far pod goes through the proxy at this moment.
fn is_proxied(rig: &Rig, client: &Pod) -> Result<bool> {
    let proxied = || anyhow::Ok(rig.agent("a")?.status()?.verdict("proxied"));
    let before = proxied()?;
    let conn = client.connect(rig.at("server", PORT)?)?;
    ensure!(conn.exchange(b"probe")? == b"probe", "the connection failed");
    conn.close()?;
    Ok(proxied()? > before)
}

/// Runs `undermesh` on node a.
fn on_node(rig: &Rig, args: &[&OsStr]) -> Result<Output> {
    Ok(rig.undermesh_on("a")?.args(args).output()?)
}

#[test]
fn a_running_pod_joins_and_leaves_within_a_second() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let held = client.connect(rig.at("server", PORT)?)?;
    held.exchange(b"from the first moment on")?;
    for placement in [Placement::Listed, Placement::Enrolled, Placement::Unlisted] {
        let wanted = placement == Placement::Enrolled;
        assert_eq!(is_proxied(&rig, &client)?, !wanted);
        let edited = Instant::now();
        rig.set_placement("client", placement)?;
        while is_proxied(&rig, &client)? != wanted {
            assert!(edited.elapsed() < SOON, "{placement:?} never took effect");
        }
        let took = edited.elapsed();
        println!("{placement:?} took effect after {took:?}");
        assert!(took < Duration::from_secs(1), "{placement:?} took {took:?}");
    }
    assert_eq!(held.exchange(b"to the last")?, b"to the last", "a live connection was cut");
    Ok(())
}

#[test]
fn a_pod_that_leaves_is_called_in_clear_and_one_that_joins_is_not() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    // Between the two agents' reloads a connection may be refused, but only then.
    rig.set_placement("server", Placement::Listed)?;
    let edited = Instant::now();
    while is_proxied(&rig, &client).unwrap_or(true) {
        assert!(edited.elapsed() < SOON, "the server's leaving never took effect");
    }
    rig.set_placement("server", Placement::Enrolled)?;
    let edited = Instant::now();
    while !is_proxied(&rig, &client).unwrap_or(false) {
        assert!(edited.elapsed() < SOON, "the server's joining never took effect");
    }
    Ok(())
}

#[test]
fn a_killed_agent_refuses_while_it_is_down_and_recovers_without_touching_pods() -> Result<()> {
    let mut rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    client.connect(rig.vip("far", 80)?)?.exchange(b"before")?;

    rig.take_agent("a")?.kill()?;
    let served = listener.accepted()?.len();
    for to in [rig.vip("far", 80)?, rig.vip6("far", 80)?, rig.at("server", PORT)?] {
        assert_eq!(client.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
    }
    assert_eq!(listener.accepted()?.len(), served);
    rig.start_agents()?;
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"after")?, b"after");
    let status = rig.agent("a")?.status()?;
    assert_eq!(status.verdict("proxy_down"), 3, "counters do not outlive the agent");

    rig.take_agent("b")?.kill()?;
    rig.start_agents()?;
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"again")?, b"again");
    Ok(())
}

#[test]
fn a_pod_that_left_while_the_agent_was_down_is_let_go() -> Result<()> {
    let mut rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    assert!(is_proxied(&rig, &client)?);
    rig.take_agent("a")?.kill()?;
    rig.set_placement("client", Placement::Listed)?;
    let node = rig.node_mut("a")?;
    let mut agent = Agent::start(node)?;
    agent.wait_ready()?;
    node.agent = Some(agent);
    let restarted = Instant::now();
    while is_proxied(&rig, &client).unwrap_or(true) {
        assert!(restarted.elapsed() < SOON, "it was never let go");
    }
    Ok(())
}

#[test]
fn a_pod_that_is_replaced_is_released_and_its_successor_enrolled() -> Result<()> {
    let rig = Rig::started()?;
    let client = rig.pod("client")?;
    for round in 0..3 {
        let server = rig.pod("server")?;
        server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
        // A tunnel leads to it, and one leads away from it.
        let edited = Instant::now();
        while !is_proxied(&rig, &client).unwrap_or(false) {
            assert!(edited.elapsed() < SOON, "round {round}: the successor was never enrolled");
        }
        let peer = rig.pod("near")?;
        peer.listen(rig.at("near", PORT)?, Behaviour::Echo)?;
        assert_eq!(server.connect(rig.vip("near", 80)?)?.exchange(b"away")?, b"away");
        drop(server);
        rig.replace_namespace("server")?;
    }
    rig.agent("b")?.wait_status("one pod", SOON, |status| {
        status.is_enrolled("server") && status.entries("PODS") == 1
    })?;
    Ok(())
}

#[test]
fn an_application_may_have_taken_the_agents_port() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    client.listen("127.0.0.1:15001".parse()?, Behaviour::Echo)?;
    client.listen("[::1]:15001".parse()?, Behaviour::Echo)?;
    server.listen("[::]:8080".parse()?, Behaviour::Banner("server".to_owned()))?;
    rig.start()?;
    for to in [rig.vip("far", 80)?, rig.vip6("far", 80)?] {
        assert_eq!(client.connect(to)?.receive(6)?, b"server", "{to}");
    }
    let own = client.connect("127.0.0.1:15001".parse()?)?;
    assert_eq!(own.exchange(b"own")?, b"own");
    Ok(())
}

#[test]
fn an_agent_may_be_killed_again_and_again() -> Result<()> {
    let mut rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    for round in 0..5 {
        for node in ["a", "b"] {
            rig.take_agent(node)?.kill()?;
        }
        rig.start_agents()?;
        let word = format!("round {round}");
        let conn = client.connect(rig.vip("far", 80)?)?;
        assert_eq!(conn.exchange(word.as_bytes())?, word.as_bytes());
    }
    let status = rig.agent("a")?.status()?;
    assert_eq!(status.entries("PODS"), 2, "pods of dead agents are still there");
    assert!(status.programs.iter().all(|program| program.attached), "{:?}", status.programs);
    Ok(())
}

#[test]
fn an_agent_that_stops_leaves_no_hole_and_its_live_connections_run_out() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("drainTimeout", "20s");
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let held = client.connect(rig.vip("far", 80)?)?;
    held.exchange(b"before")?;
    let agent = rig.take_agent("a")?;
    agent.signal(rustix::process::Signal::TERM)?;
    let asked = Instant::now();
    let refused = loop {
        match client.connect(rig.vip("far", 80)?) {
            Err(error) => break error,
            Ok(conn) => conn.close()?,
        }
        assert!(asked.elapsed() < SOON, "a stopping agent goes on taking connections");
    };
    assert_eq!(refused.errno, "ECONNREFUSED");
    assert_eq!(held.exchange(b"draining")?, b"draining");
    held.close()?;
    let status = agent.stop()?;
    assert!(status.success(), "{status}");
    assert!(asked.elapsed() < Duration::from_secs(15), "an idle agent waits for nothing");
    Ok(())
}

#[test]
fn while_the_agent_is_down_a_pod_that_may_dials_directly() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    rig.node_mut("a")?.settings.set("outboundFailure", "open");
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    client.connect(rig.at("server", PORT)?)?.exchange(b"meshed")?;
    rig.take_agent("a")?.kill()?;
    for to in [rig.at("server", PORT)?, rig.at6("server", PORT)?] {
        let conn = client.connect(to)?;
        assert_eq!(conn.exchange(b"direct")?, b"direct");
        let peer = listener.accepted()?.last().map(|one| one.peer.port());
        assert_eq!(peer, Some(conn.socket_name()?.port()), "somebody stands in between");
    }
    rig.start_agents()?;
    assert!(is_proxied(&rig, &client)?, "the agent is back and not used");
    assert_eq!(rig.agent("a")?.status()?.verdict("proxy_down_failed_open"), 2);
    Ok(())
}

#[test]
fn an_agent_below_its_own_attach_point_does_not_intercept_itself() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    for node in ["a", "b"] {
        let node = rig.node_mut(node)?;
        let whole = node.cgroup.display().to_string();
        node.settings.set("cgroup", &whole);
    }
    rig.init_ca()?;
    for name in ["a", "b"] {
        // Among the pods even: the same cgroup as one of them.
        let pod = if name == "a" { "client" } else { "server" };
        let cgroup = rig.place(pod)?.cgroup.clone();
        let node = rig.node_mut(name)?;
        node.agent = Some(Agent::start_in(node, &cgroup)?);
    }
    rig.start_agents()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let dialled = [rig.vip("far", 80)?, rig.vip6("far", 80)?, rig.at("server", PORT)?];
    for to in dialled {
        assert_eq!(client.connect(to)?.exchange(b"once")?, b"once", "{to}");
    }
    let status = rig.agent("a")?.status()?;
    assert_eq!(status.verdict("proxied"), 3, "more connections than the client has made");
    assert!(status.verdict("agent_own") > 0, "the tunnel was not seen by the programs at all");
    Ok(())
}

#[test]
fn cleanup_removes_every_trace_and_leaves_pods_as_they_were() -> Result<()> {
    let mut rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    let listener = server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    client.connect(rig.vip("far", 80)?)?.exchange(b"meshed")?;
    let pins = rig.footprint().bpffs().join("a");
    let cleanup = ["cleanup".as_ref(), "--pin-dir".as_ref(), pins.as_os_str()];
    let refused = on_node(&rig, &cleanup)?;
    assert!(!refused.status.success(), "it took the programs from under a running agent");
    assert!(client.connect(rig.vip("far", 80)?)?.exchange(b"still")? == b"still");

    rig.take_agent("a")?.kill()?;
    assert_eq!(client.connect(rig.at("server", PORT)?).unwrap_err().errno, "ECONNREFUSED");
    let done = on_node(&rig, &cleanup)?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(!pins.exists(), "{:?} is left", fs::read_dir(&pins)?.flatten().collect::<Vec<_>>());
    let conn = client.connect(rig.at("server", PORT)?)?;
    assert_eq!(conn.exchange(b"plain")?, b"plain");
    let peer = listener.accepted()?.last().map(|one| one.peer);
    assert_eq!(peer, Some(conn.socket_name()?), "somebody still stands in between");
    assert!(on_node(&rig, &cleanup)?.status.success(), "cleaning up twice is an error");
    Ok(())
}

#[test]
fn a_broken_manifest_is_named_with_its_line_and_the_last_good_state_stays() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let agent = rig.agent("a")?;
    let before = agent.status()?;
    assert_eq!(before.warnings, Vec::<String>::new());

    let good = fs::read_to_string(rig.manifests.path("service-far"))?;
    let broken = good.replacen("port: 80\n", "port: eighty\n", 1);
    ensure!(broken != good, "the manifest has another shape than this test expects");
    let line = broken.lines().take_while(|line| !line.contains("port: eighty")).count() + 1;
    rig.manifests.write("service-far", &broken)?;
    let status = agent.wait_status("a warning", SOON, |status| !status.warnings.is_empty())?;
    let warning = status.warnings.join("\n");
    for part in ["Service shop/far", "service-far.yaml", &format!(":{line}"), "port"] {
        assert!(warning.contains(part), "{part:?} is not in {warning:?}");
    }
    assert!(agent.log().contains("service-far.yaml"), "the log says nothing of it");
    assert_eq!(status.agent.generation, before.agent.generation);
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"still")?, b"still");

    rig.manifests.write("service-far", "kind: Service\nmetadata: [not, closed\n")?;
    agent.wait_status("another warning", SOON, |status| {
        status.warnings.iter().any(|text| text.contains("service-far.yaml") && *text != warning)
    })?;
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"still")?, b"still");

    rig.manifests.write("service-far", &good)?;
    agent.wait_status("no warning", SOON, |status| status.warnings.is_empty())?;
    assert_eq!(client.connect(rig.vip("far", 80)?)?.exchange(b"good")?, b"good");
    Ok(())
}

#[test]
fn who_edits_manifests_is_told_each_time_what_is_wrong_with_them() -> Result<()> {
    let rig = Rig::started()?;
    for retries in 1..4 {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: far, namespace: shop}}\nspec:\n  host: far\n  trafficPolicy:\n    \
             loadBalancer: {{Simple: RANDOM}}\n    \
             connectionPool: {{http: {{maxRetries: {retries}}}}}\n"
        );
        let log = rig.submit("rule", &rule)?;
        ensure!(log.contains("unknown-field"), "nothing is said of edit {retries}: {log}");
    }
    let args = ["analyze", "--live", "--fail-on", "warning", "-o", "json"].map(OsStr::new);
    let output = on_node(&rig, &args)?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let found = &report["findings"][0];
    assert_eq!(
        (&found["code"], &found["kind"]),
        (&"unknown-field".into(), &"DestinationRule".into())
    );
    assert!(found["file"].as_str().is_some_and(|file| file.ends_with("rule.yaml")), "{found}");
    Ok(())
}

#[test]
fn a_service_that_appears_or_changes_is_reachable_without_a_restart() -> Result<()> {
    let mut rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen(rig.at("server", PORT)?, Behaviour::Echo)?;
    let near = rig.pod("near")?;
    near.listen(rig.at("near", PORT)?, Behaviour::Banner("near".to_owned()))?;
    for (backend, answer) in [("server", "word"), ("near", "near")] {
        rig.set_service(&ServiceSpec::new("late", 80, PORT, &[backend]))?;
        let to = rig.vip("late", 80)?;
        let edited = Instant::now();
        loop {
            let conn = client.connect(to);
            let got = conn.and_then(|conn| conn.exchange(b"word"));
            if got.as_deref() == Ok(answer.as_bytes()) {
                break;
            }
            assert!(edited.elapsed() < SOON, "{backend} was never reached: {got:?}");
        }
    }
    Ok(())
}

#[test]
fn changing_endpoints_under_load_breaks_no_connection() -> Result<()> {
    let mut rig = Rig::started()?;
    let client = rig.pod("client")?;
    let pods = [rig.pod("server")?, rig.pod("near")?];
    for pod in &pods {
        pod.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    }
    let mut versions = Vec::new();
    for backends in [&["server", "near"][..], &["server"], &["near"]] {
        rig.set_service(&ServiceSpec::new("moving", 80, PORT, backends))?;
        versions.push(fs::read_to_string(rig.manifests.path("service-moving"))?);
    }
    let to = vec![rig.vip("moving", 80)?, rig.vip6("moving", 80)?];
    let agent = rig.agent("a")?;
    agent.wait_status("the service", SOON, |status| status.entries("SERVICES") == 6)?;
    let before = agent.status()?.agent.generation;

    let burst = Burst { to, count: 10_000, threads: 8, payload: 32, expect: None };
    let done = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        let editor = scope.spawn(|| -> Result<()> {
            for version in versions.iter().cycle() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let generation = agent.status()?.agent.generation;
                rig.manifests.write("service-moving", version)?;
                agent.wait_status("the change", SOON, |status| {
                    status.agent.generation > generation
                })?;
            }
            Ok(())
        });
        let report = client.burst(burst);
        done.store(true, Ordering::Relaxed);
        editor.join().map_err(|_| anyhow!("the editor panicked"))??;
        anyhow::Ok(report?)
    })?;
    let changes = agent.status()?.agent.generation - before;
    println!("{} over {changes} changes", report.describe());
    assert!(changes >= 5, "only {changes} changes were made meanwhile");
    assert_eq!((report.ok, report.wrong), (10_000, 0), "{}", report.describe());
    Ok(())
}

#[test]
fn status_shows_pods_certificates_programs_and_maps() -> Result<()> {
    let rig = Rig::started()?;
    let status = rig.agent("a")?.status()?;
    let mut pods: Vec<_> = status.pods.iter().map(|pod| pod.name.as_str()).collect();
    pods.sort_unstable();
    assert_eq!(pods, ["client", "near"]);
    assert!(
        status.certificates.iter().all(|one| one.expires_in_seconds > 0 && !one.serial.is_empty())
    );
    assert_eq!(status.certificates.len(), 2);
    assert!(!status.programs.is_empty() && status.programs.iter().all(|one| one.attached));
    assert_eq!((status.entries("PODS"), status.entries("WORKLOADS")), (2, 6));

    let output = on_node(&rig, &["status".as_ref()])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout)?;
    for part in ["shop/client", "spiffe://cluster.local/ns/shop/sa/near", "undermesh_connect4"] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
    Ok(())
}
