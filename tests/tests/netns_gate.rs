//! The startup gate: what becomes of pods that connect before they are programmed.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use undermesh_tests::{
    Agent, Capture, PORT, Placement, PodSpec, Rig, RigBuilder, ServiceSpec, Status,
    pod::protocol::Behaviour, undermesh, wait_for,
};

const WITHIN: Duration = Duration::from_secs(10);
/// Pods that come one after the other.
const NEWCOMERS: usize = 50;

/// Node `a` with the pods `early` and `new` (enrolled; the latter is found by its cgroup) and
/// `outsider` (not enrolled), and node `b` with `server`, the service `far` and `stranger`, who is
/// outside the mesh.
fn rig() -> RigBuilder {
    let outsider = PodSpec::new("outsider").listed();
    Rig::builder()
        .node("a", [PodSpec::new("early"), PodSpec::new("new"), outsider])
        .node("b", [PodSpec::new("server"), PodSpec::new("stranger").unlisted()])
        .service(ServiceSpec::new("far", 80, PORT, &["server"]))
}

/// Builds it, with the gate's settings for node `a`. No agent runs yet.
fn gated(settings: &[(&str, &str)]) -> Result<Rig> {
    let mut rig = rig().build()?;
    let node = rig.node_mut("a")?;
    let pods = node.cgroup.join("pods").display().to_string();
    node.settings.set("podCgroup", &pods);
    for (key, value) in settings {
        node.settings.set(key, value);
    }
    rig.init_ca()?;
    edit(&rig, |text| by_cgroup(&rig, text))?;
    Ok(rig)
}

/// Starts the agents and waits for all pods but `new`.
fn start(rig: &mut Rig) -> Result<()> {
    for (node, pod) in [("a", "early"), ("b", "server")] {
        let agent = Agent::start(rig.node(node)?)?;
        agent.wait_enrolled(pod)?;
        rig.node_mut(node)?.agent = Some(agent);
    }
    Ok(())
}

/// Edits the manifest of `new`.
fn edit(rig: &Rig, change: impl FnOnce(&str) -> Result<String>) -> Result<()> {
    let text = fs::read_to_string(rig.manifests.path("pod-new"))?;
    rig.manifests.write("pod-new", &change(&text)?)
}

/// Replaces one text by another that must be there.
fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    text.contains(from)
        .then(|| text.replace(from, to))
        .with_context(|| format!("no {from}: {text}"))
}

fn by_cgroup(rig: &Rig, text: &str) -> Result<String> {
    let place = rig.place("new")?;
    let netns = format!("undermesh.io/netns: {}", place.netns.path().display());
    replaced(text, &netns, &format!("undermesh.io/cgroup: {}", place.cgroup.display()))
}

/// A rig whose pod `new` cannot be programmed: the only place in the kernel's table is that of `early`.
fn never_programmed(settings: &[(&str, &str)]) -> Result<Rig> {
    let mut rig = gated(&[&[("maxPods", "1")], settings].concat())?;
    start(&mut rig)?;
    Ok(rig)
}

#[test]
fn a_pod_that_is_not_programmed_is_refused_until_it_is() -> Result<()> {
    let rig = never_programmed(&[])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let stranger = rig.pod("stranger")?;
    stranger.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let new = rig.pod("new")?;
    let agent = rig.agent("a")?;
    for to in [rig.vip("far", 80)?, rig.vip6("far", 80)?, rig.at("server", PORT)?] {
        assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED", "{to}");
    }
    for to in [rig.at("stranger", PORT)?, rig.at6("stranger", PORT)?] {
        let what = "what is outside the mesh stays reachable";
        assert_eq!(new.connect(to)?.exchange(b"hello")?, b"hello", "{what}: {to}");
    }
    let line = agent.access_log().wait(&[("event", "denied"), ("reason", "gated")])?;
    assert_eq!(line.get("source.pod"), "new");
    let status = agent.wait_status("a held pod", WITHIN, |status| status.gate.held_pods == 1)?;
    assert_eq!((status.gate.state.as_str(), status.verdict("gated")), ("refuse", 3));

    rig.set_placement("early", Placement::Listed)?;
    agent.wait_enrolled("new")?;
    let conn = new.connect(rig.vip("far", 80)?)?;
    assert_eq!(conn.exchange(b"hello")?, b"hello");
    agent.access_log().wait(&[
        ("event", "open"),
        ("transport", "native"),
        ("source.pod", "new"),
    ])?;
    let status = agent.wait_status("nobody held", WITHIN, |status| status.gate.held_pods == 0)?;
    assert_eq!(status.verdict("gated"), 3);
    Ok(())
}

#[test]
fn the_gate_lets_through_and_counts_where_the_node_says_so() -> Result<()> {
    let rig = never_programmed(&[("startupGate", "pass")])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let new = rig.pod("new")?;
    for to in [rig.at("server", PORT)?, rig.at6("server", PORT)?] {
        assert_eq!(new.connect(to)?.exchange(b"hello")?, b"hello", "{to}");
    }
    let status = rig.agent("a")?.status()?;
    assert_eq!((status.verdict("gated_open"), status.verdict("gated")), (2, 0));
    assert_eq!(status.gate.state, "pass");
    Ok(())
}

#[test]
fn without_a_gate_nothing_is_held() -> Result<()> {
    let rig = never_programmed(&[("startupGate", "off")])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    assert_eq!(rig.first_act("new", rig.at("server", PORT)?, "hello")?.attempts, 1);
    let status = rig.agent("a")?.status()?;
    assert_eq!((status.verdict("gated_open"), status.verdict("gated")), (0, 0));
    assert_eq!((status.gate.state.as_str(), status.entries("GATE_MARKS")), ("off", 0));
    Ok(())
}

#[test]
fn pods_of_system_critical_namespaces_are_never_held() -> Result<()> {
    let mut rig = gated(&[("maxPods", "1")])?;
    edit(&rig, |text| replaced(text, "namespace: shop", "namespace: kube-system"))?;
    start(&mut rig)?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let act = rig.first_act("new", rig.at("server", PORT)?, "hello")?;
    assert_eq!(act.attempts, 1, "{act:?}");
    let status = rig.agent("a")?.status()?;
    assert_eq!((status.verdict("gated"), status.gate.held_pods), (0, 0));
    assert!(!status.is_enrolled("new"));
    Ok(())
}

#[test]
fn the_namespaces_that_are_never_held_are_a_setting() -> Result<()> {
    let rig = never_programmed(&[("startupGateExempt", "[shop, other]")])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    assert_eq!(rig.first_act("new", rig.at("server", PORT)?, "hello")?.attempts, 1);
    Ok(())
}

#[test]
fn who_is_not_to_be_in_the_mesh_is_left_alone_from_the_first_connection_on() -> Result<()> {
    let rig = never_programmed(&[])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    let (node, new) = (rig.node("a")?, rig.place("new")?);
    let pods = node.cgroup.join("pods");
    for (who, netns, cgroup) in [
        ("a listed pod", &rig.place("outsider")?.netns, &rig.place("outsider")?.cgroup),
        ("the host's namespace, where pods run", &node.netns, &pods.join("hostnetwork")),
        ("the host's namespace, in a pod's cgroup", &node.netns, &new.cgroup),
        ("a pod's namespace, from elsewhere", &new.netns, &node.cgroup.join("elsewhere")),
        ("a pod's namespace, from the pods' cgroup itself", &new.netns, &pods),
    ] {
        let act = rig.first_act_in(netns, cgroup, to, "hello")?;
        assert_eq!(act.attempts, 1, "{who}: {act:?}");
    }
    assert_eq!(rig.agent("a")?.status()?.verdict("gated"), 0);
    Ok(())
}

#[test]
fn what_nobody_describes_is_held_for_a_moment_only() -> Result<()> {
    let mut rig = gated(&[])?;
    start(&mut rig)?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    let pods = rig.node("a")?.cgroup.join("pods");
    rig.set_placement("outsider", Placement::Unlisted)?;
    let agent = rig.agent("a")?;
    // What is left is the mark of `new`.
    let gone = |status: &Status| status.entries("GATE_MARKS") == 1;
    agent.wait_status("the pod to be forgotten", WITHIN, gone)?;
    let netns = &rig.place("outsider")?.netns;
    let late = rig.first_act_in(netns, &pods.join("late"), to, "hello")?;
    assert_eq!(late.errors, ["ECONNREFUSED".to_owned()].into());
    assert!((900..8_000).contains(&late.elapsed_ms), "{late:?}");
    assert!(agent.status()?.verdict("gated") > 0);
    let again = rig.first_act_in(netns, &pods.join("late"), to, "hello")?;
    assert_eq!(again.attempts, 1, "what was let go once is not held again: {again:?}");
    Ok(())
}

#[test]
fn a_running_pod_joins_and_leaves_without_being_held() -> Result<()> {
    let mut rig = gated(&[])?;
    start(&mut rig)?;
    let (early, server) = (rig.pod("early")?, rig.pod("server")?);
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    for placement in [Placement::Listed, Placement::Enrolled, Placement::Unlisted] {
        rig.set_placement("early", placement)?;
        wait_for("the change to take effect", WITHIN, || {
            assert_eq!(early.connect(to)?.exchange(b"hello")?, b"hello");
            let enrolled = rig.agent("a")?.status()?.is_enrolled("early");
            Ok((enrolled == (placement == Placement::Enrolled)).then_some(()))
        })?;
        assert_eq!(early.connect(to)?.exchange(b"hello")?, b"hello", "{placement:?}");
    }
    assert_eq!(rig.agent("a")?.status()?.verdict("gated"), 0);
    Ok(())
}

#[test]
fn nothing_unknown_is_held_where_the_node_says_so() -> Result<()> {
    let mut rig = gated(&[("startupGateTimeout", "0s")])?;
    start(&mut rig)?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let unknown = rig.node("a")?.cgroup.join("pods/unknown");
    let netns = &rig.place("outsider")?.netns;
    let act = rig.first_act_in(netns, &unknown, rig.at("server", PORT)?, "hello")?;
    assert_eq!(act.attempts, 1, "{act:?}");
    Ok(())
}

/// Lets pods come one after the other, each of which connects as its very first act. Returns how many
/// were captured before they could.
fn newcomers(rig: &Rig, marks: &str) -> Result<usize> {
    let mut at_once = 0;
    for number in 0..NEWCOMERS {
        rig.remove_cgroup("new")?;
        rig.replace_namespace("new")?;
        let act = rig.first_act("new", rig.at("server", PORT)?, &format!("{marks} {number}."))?;
        let refused = ["ECONNREFUSED".to_owned()].into();
        assert!(act.errors.is_subset(&refused), "pod {number}: {act:?}");
        at_once += usize::from(act.errors.is_empty());
    }
    Ok(at_once)
}

/// What `newcomers` has sent went through the mesh, and nothing of it in plaintext.
fn all_went_through_the_mesh(rig: &Rig, capture: &Capture, marks: &str) -> Result<()> {
    let stranger = rig.pod("stranger")?;
    stranger.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let end = format!("the end of {marks}");
    let outsider = rig.first_act("outsider", rig.at("stranger", PORT)?, &end)?;
    assert_eq!(outsider.attempts, 1);
    capture.wait_for(end.as_bytes())?;
    assert!(!capture.contains(format!("{marks} ").as_bytes())?, "something went in plaintext");
    let tunnelled = [("event", "open"), ("reporter", "source"), ("transport", "native")];
    let log = rig.agent("a")?.access_log();
    wait_for("every newcomer in the log", WITHIN, || {
        Ok((log.matching(&tunnelled)?.len() >= NEWCOMERS).then_some(()))
    })
}

#[test]
fn no_pod_found_by_its_cgroup_speaks_plaintext_however_early_it_speaks() -> Result<()> {
    let mut rig = gated(&[])?;
    start(&mut rig)?;
    let capture = rig.capture()?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    newcomers(&rig, "found by cgroup")?;
    all_went_through_the_mesh(&rig, &capture, "found by cgroup")
}

#[test]
fn a_pod_found_by_its_namespace_is_captured_before_its_first_connection() -> Result<()> {
    let mut rig = gated(&[])?;
    rig.set_placement("new", Placement::Enrolled)?;
    start(&mut rig)?;
    let capture = rig.capture()?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let at_once = newcomers(&rig, "found by name")?;
    // The others were refused once or twice, while the machine was busy with other things.
    assert!(at_once >= NEWCOMERS * 8 / 10, "only {at_once} of {NEWCOMERS} were there in time");
    all_went_through_the_mesh(&rig, &capture, "found by name")
}

#[test]
fn a_dead_agents_marks_stay_in_force_and_the_unknown_goes_on() -> Result<()> {
    let mut rig = never_programmed(&[])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    let new = rig.pod("new")?;
    assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
    rig.take_agent("a")?.kill()?;
    assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
    let unknown = rig.node("a")?.cgroup.join("pods/unknown");
    let netns = rig.place("outsider")?.netns.clone();
    let act = rig.first_act_in(&netns, &unknown, to, "hello")?;
    assert_eq!(act.attempts, 1, "nobody could say whose it is: {act:?}");

    let agent = Agent::start(rig.node("a")?)?;
    agent.wait_enrolled("early")?;
    assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
    rig.set_placement("early", Placement::Listed)?;
    agent.wait_enrolled("new")?;
    rig.node_mut("a")?.agent = Some(agent);
    assert_eq!(new.connect(to)?.exchange(b"hello")?, b"hello");
    let log = rig.agent("a")?.access_log();
    log.wait(&[("event", "open"), ("transport", "native"), ("source.pod", "new")])?;
    Ok(())
}

#[test]
fn the_gate_outlives_a_change_of_agents() -> Result<()> {
    let mut rig = never_programmed(&[("startupGateTimeout", "300ms")])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    let new = rig.pod("new")?;
    let successor = Agent::start(rig.node("a")?)?;
    let pid = successor.pid();
    wait_for("the successor to be in charge", WITHIN * 3, || {
        assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
        Ok((successor.status()?.agent.pid == pid).then_some(()))
    })?;
    assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
    rig.take_agent("a")?.kill()?;
    assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
    rig.set_placement("outsider", Placement::Unlisted)?;
    let what = "the pod to be forgotten";
    successor.wait_status(what, WITHIN, |status| status.entries("GATE_MARKS") == 1)?;
    let unknown = rig.node("a")?.cgroup.join("pods/unknown");
    let act = rig.first_act_in(&rig.place("outsider")?.netns, &unknown, to, "hello")?;
    assert_eq!(
        act.errors,
        ["ECONNREFUSED".to_owned()].into(),
        "the successor keeps watch: {act:?}"
    );
    rig.node_mut("a")?.agent = Some(successor);
    Ok(())
}

#[test]
fn an_agent_without_a_gate_removes_that_of_the_one_before() -> Result<()> {
    let mut rig = never_programmed(&[])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    let new = rig.pod("new")?;
    assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
    rig.take_agent("a")?.kill()?;
    rig.node_mut("a")?.settings.set("startupGate", "off");
    let agent = Agent::start(rig.node("a")?)?;
    // Until its first pass, an agent knows of no gate, and has not removed one either.
    agent.wait_enrolled("early")?;
    agent.wait_status("the gate to be gone", WITHIN * 3, |status| status.gate.state == "off")?;
    assert_eq!(new.connect(to)?.exchange(b"hello")?, b"hello");
    Ok(())
}

#[test]
fn cleanup_removes_the_gate() -> Result<()> {
    let mut rig = never_programmed(&[])?;
    let server = rig.pod("server")?;
    server.listen("[::]:8080".parse()?, Behaviour::Echo)?;
    let to = rig.at("server", PORT)?;
    let new = rig.pod("new")?;
    assert_eq!(new.connect(to).unwrap_err().errno, "ECONNREFUSED");
    rig.take_agent("a")?.kill()?;
    let pins = rig.node("a")?.settings.get("pinDir").context("no pinDir")?.to_owned();
    undermesh(["cleanup", "--force", "--pin-dir", &pins])?;
    assert!(!Path::new(&pins).exists());
    assert_eq!(new.connect(to)?.exchange(b"hello")?, b"hello");
    Ok(())
}
