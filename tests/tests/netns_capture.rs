//! Connections from outside the mesh to a pod's own ports: judged by the agent where only it can
//! judge, refused where nobody listens, and the kubelet's probes.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use undermesh_tests::{
    Family, PORT, Rig,
    pod::{Pod, protocol::Behaviour},
    wait_for,
};

/// Longer than any agent takes to notice a change.
const NOTICED: Duration = Duration::from_secs(10);

/// Allows clients at these addresses to reach `server`, whoever they are.
fn allow_addresses(rig: &Rig, addresses: &[String]) -> Result<()> {
    let blocks = addresses.join("', '");
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: by-address, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: server}}}}\n\
         \x20 rules: [{{from: [{{source: {{ipBlocks: ['{blocks}']}}}}]}}]\n"
    );
    rig.apply("by-address", &yaml)
}

fn addresses(rig: &Rig, pod: &str) -> Result<[String; 2]> {
    let place = rig.place(pod)?;
    Ok([Family::V4, Family::V6].map(|family| place.ip(family).to_string()))
}

#[test]
fn plaintext_is_judged_by_its_address_and_the_application_sees_who_it_is() -> Result<()> {
    let rig = Rig::started()?;
    let (outsider, stranger, server) =
        (rig.pod("outsider")?, rig.pod("stranger")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    allow_addresses(&rig, &addresses(&rig, "outsider")?)?;
    for (to, family) in
        [(rig.at("server", PORT)?, Family::V4), (rig.at6("server", PORT)?, Family::V6)]
    {
        let before = listener.accepted()?.len();
        let conn = outsider.connect(to)?;
        assert_eq!(conn.exchange(b"hello")?, b"hello", "{to}");
        let accepted = listener.accepted()?;
        assert_eq!(accepted.len(), before + 1);
        let peer = accepted[before].peer;
        assert_eq!(peer.ip().to_canonical(), rig.place("outsider")?.ip(family));
        let refused = stranger.connect(to).and_then(|conn| conn.exchange(b"hello"));
        assert_eq!(refused.unwrap_err().errno, "ECONNRESET", "{to}");
        assert_eq!(listener.accepted()?.len(), before + 1, "the stranger came through");
    }
    let log = rig.agent("b")?.access_log();
    let line =
        log.wait(&[("event", "denied"), ("reason", "policy_denied"), ("transport", "plain")])?;
    assert_eq!(
        line.get("detail"),
        "not allowed by AuthorizationPolicy shop/by-address, rule[0] from[0] ipBlocks"
    );
    let line = log.wait(&[("event", "open"), ("transport", "plain")])?;
    assert_eq!(line.get("security"), "none");
    assert_eq!(line.get("destination.pod"), "server");
    Ok(())
}

#[test]
fn a_policy_that_begins_to_refuse_closes_captured_plaintext() -> Result<()> {
    let rig = Rig::started()?;
    let (outsider, server) = (rig.pod("outsider")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    allow_addresses(&rig, &addresses(&rig, "outsider")?)?;
    let conn = outsider.connect(rig.at("server", PORT)?)?;
    conn.exchange(b"before")?;
    allow_addresses(&rig, &addresses(&rig, "client")?)?;
    assert_eq!(conn.receive_within(1, NOTICED).unwrap_err().errno, "ECONNRESET");
    let log = rig.agent("b")?.access_log();
    log.wait(&[("event", "close"), ("reason", "policy_denied_late")])?;
    Ok(())
}

#[test]
fn a_server_that_speaks_first_is_not_kept_waiting_by_strangers() -> Result<()> {
    let rig = Rig::started()?;
    let (outsider, server) = (rig.pod("outsider")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Banner("220 welcome".to_owned()))?;
    allow_addresses(&rig, &addresses(&rig, "outsider")?)?;
    let conn = outsider.connect(rig.at("server", PORT)?)?;
    assert_eq!(conn.receive(11)?, b"220 welcome");
    Ok(())
}

/// What `connect` says, without a byte: refused by the kernel, or accepted by somebody.
fn connects(pod: &Pod, to: std::net::SocketAddr) -> bool {
    pod.connect(to).is_ok()
}

#[test]
fn closed_ports_stay_closed_and_open_ones_are_found_at_once() -> Result<()> {
    let rig = Rig::standard().build()?;
    let early = rig.pod("server")?;
    early.listen("[::]:7000".parse()?, Behaviour::Echo)?;
    let mut rig = rig;
    rig.start()?;
    let (outsider, server) = (rig.pod("outsider")?, rig.pod("server")?);
    allow_addresses(&rig, &addresses(&rig, "outsider")?)?;
    assert!(connects(&outsider, rig.at("server", 7000)?), "it listened before it was enrolled");
    assert!(connects(&outsider, rig.at6("server", 7000)?));
    for port in 9000..9020 {
        let (v4, v6) = (rig.at("server", port)?, rig.at6("server", port)?);
        for to in [v4, v6] {
            assert_eq!(outsider.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
        }
        let listener = server.listen(format!("[::]:{port}").parse()?, Behaviour::Echo)?;
        for to in [v4, v6] {
            let echo = outsider.connect(to).and_then(|conn| conn.exchange(b"hello"));
            assert_eq!(echo?, b"hello", "{to}");
        }
        listener.close()?;
        wait_for("the port to be closed again", NOTICED, || {
            let closed = [v4, v6].iter().all(|to| {
                outsider.connect(*to).is_err_and(|failure| failure.errno == "ECONNREFUSED")
            });
            Ok(closed.then_some(()))
        })?;
    }
    let only_v6 = server.listen(rig.at6("server", 9101)?, Behaviour::Echo)?;
    assert_eq!(outsider.connect(rig.at("server", 9101)?).unwrap_err().errno, "ECONNREFUSED");
    assert_eq!(outsider.connect(rig.at6("server", 9101)?)?.exchange(b"hello")?, b"hello");
    only_v6.close()?;
    let local = server.listen("127.0.0.1:9100".parse()?, Behaviour::Echo)?;
    assert_eq!(outsider.connect(rig.at("server", 9100)?).unwrap_err().errno, "ECONNREFUSED");
    local.close()?;
    let verdicts = rig.agent("b")?.status()?.verdicts;
    ensure!(verdicts.get("port_closed").is_some_and(|count| *count > 20), "{verdicts:?}");
    Ok(())
}

#[test]
fn a_port_that_several_sockets_share_stays_open_until_the_last_is_closed() -> Result<()> {
    let rig = Rig::started()?;
    let (outsider, server) = (rig.pod("outsider")?, rig.pod("server")?);
    allow_addresses(&rig, &addresses(&rig, "outsider")?)?;
    let v4 = server.listen("0.0.0.0:8080".parse()?, Behaviour::Echo)?;
    let v6 = server.listen(rig.at6("server", PORT)?, Behaviour::Echo)?;
    v6.close()?;
    wait_for("IPv6 to be closed", NOTICED, || {
        Ok(outsider.connect(rig.at6("server", PORT)?).is_err().then_some(()))
    })?;
    assert_eq!(outsider.connect(rig.at("server", PORT)?)?.exchange(b"hello")?, b"hello");
    v4.close()?;
    Ok(())
}

#[test]
fn what_the_agent_has_to_judge_is_refused_while_it_is_dead() -> Result<()> {
    let mut rig = Rig::started()?;
    let (outsider, server) = (rig.pod("outsider")?, rig.pod("server")?);
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    allow_addresses(&rig, &addresses(&rig, "outsider")?)?;
    assert_eq!(outsider.connect(rig.at("server", PORT)?)?.exchange(b"hello")?, b"hello");
    rig.take_agent("b")?.kill()?;
    assert_eq!(outsider.connect(rig.at("server", PORT)?).unwrap_err().errno, "ECONNREFUSED");
    assert_eq!(listener.accepted()?.len(), 1);
    let started = Instant::now();
    rig.start_agents()?;
    println!("serving again after {:?}", started.elapsed());
    assert_eq!(outsider.connect(rig.at("server", PORT)?)?.exchange(b"hello")?, b"hello");
    Ok(())
}

/// Adds a container with a readiness probe at port 8080.
fn add_probe(rig: &Rig, pod: &str) -> Result<()> {
    let name = format!("pod-{pod}");
    let text = fs::read_to_string(rig.manifests.path(&name))?;
    let probe = "  containers:\n  - name: main\n    ports: [{name: http, containerPort: 8080}]\n    \
                 readinessProbe: {httpGet: {port: http}}\nstatus:";
    rig.apply(&name, &text.replace("status:", probe))
}

#[test]
fn the_kubelet_reaches_the_ports_that_it_probes_and_nobody_else_from_its_node_does() -> Result<()> {
    let mut rig = Rig::standard().build()?;
    let group = rig.node("b")?.cgroup.join("kubelet");
    fs::create_dir_all(&group)?;
    let settings = &mut rig.node_mut("b")?.settings;
    settings.set("mtls", "STRICT");
    settings.set("kubeletCgroup", &group.display().to_string());
    rig.start()?;
    let server = rig.pod("server")?;
    let listener = server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    server.listen("[::]:8081".parse()?, Behaviour::Echo)?;
    let (kubelet, other) = (rig.process_on("b", "kubelet")?, rig.process_on("b", "other")?);
    let probed = [rig.at("server", PORT)?, rig.at6("server", PORT)?];
    for to in probed {
        assert_eq!(kubelet.connect(to).unwrap_err().errno, "ECONNREFUSED", "no probe is declared");
    }
    add_probe(&rig, "server")?;
    let deny_all = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                    metadata: {name: nobody, namespace: shop}\nspec: {}\n";
    rig.apply("nobody", deny_all)?;
    for to in probed {
        assert_eq!(kubelet.connect(to)?.exchange(b"hello")?, b"hello", "{to}");
        assert_eq!(other.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
    }
    let elsewhere = rig.at("server", 8081)?;
    assert_eq!(kubelet.connect(elsewhere).unwrap_err().errno, "ECONNREFUSED");
    let accepted = listener.accepted()?;
    assert_eq!(accepted.len(), 2);
    let node = "10.2.0.1".parse::<std::net::IpAddr>()?;
    assert_eq!(accepted[0].peer.ip().to_canonical(), node, "the node's own address, untranslated");
    let verdicts = rig.agent("b")?.status()?.verdicts;
    assert_eq!(verdicts.get("inbound_probe"), Some(&2), "{verdicts:?}");
    assert_eq!(rig.agent("b")?.status()?.entries("PROBE_PORTS"), 2);

    // A closed port is closed for the kubelet, too: probes tell the truth.
    listener.close()?;
    assert_eq!(kubelet.connect(probed[0]).unwrap_err().errno, "ECONNREFUSED");
    // Probes go on while the agent is dead.
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    rig.take_agent("b")?.kill()?;
    assert_eq!(kubelet.connect(probed[0])?.exchange(b"hello")?, b"hello");
    assert_eq!(other.connect(probed[0]).unwrap_err().errno, "ECONNREFUSED");
    Ok(())
}
