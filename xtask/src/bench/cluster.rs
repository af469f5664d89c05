//! `cluster`: 1,000 nodes, 10,000 services and 100,000 endpoints, as the real agent of one node sees them through a real
//! controller: how long a changed endpoint takes until maps have it, in how many bytes, and what the agent occupies.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::json;
use undermesh_tests::{
    Agent, CONTROLLER, Controller, Plane, PodSpec, Rig, apiserver::Options,
    certificates::replace_file, wait_for,
};

use super::{
    TAG,
    distribution::{Cluster, share, wait_until_read},
    report::Findings,
    rounds::Plan,
};
use crate::progress::step;

const WITHIN: Duration = Duration::from_secs(180);
const GRPC: u16 = 25012;
/// Changes of endpoints that are measured.
const CHANGES: usize = 60;
/// How long processes have to come to rest: freed memory goes back within a second or two.
const SETTLED: Duration = Duration::from_secs(4);
/// What the agent says when maps have a state.
const IN_FORCE: &str = "configuration in force";

pub(super) fn run(_: Plan) -> Result<Findings> {
    let cluster = Cluster { nodes: 1000, namespaces: 100, services: 10_000, endpoints: 10 };
    let mut findings = Findings::new(
        "cluster: 1,000 nodes, 10,000 services, 100,000 endpoints; one real agent, through a controller",
        None,
    );
    let mut rig = Rig::builder()
        .tag(&format!("{TAG}{}c", std::process::id()))
        .node("a", [PodSpec::new("local0")])
        .build()?;
    let node = rig.node("a")?;
    let host = node.addresses[0];
    let options =
        Options { address: (host, 26443).into(), addresses: vec![host], ..Options::default() };
    let dir = rig.footprint().dir().join("plane");
    let plane = Plane::within(&dir, options, Some(&node.netns))?;
    step("putting 121,000 objects into the API server", || {
        cluster.put(&plane.api)?;
        // A pod of this node, so that it needs what there is.
        plane.api.put(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "local0", "namespace": "team-0"},
            "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
            "status": {"phase": "Running", "podIP": "10.99.0.1", "podIPs": [{"ip": "10.99.0.1"}]},
        }))
    })?;
    let grpc = format!("{host}:{GRPC}");
    let settings =
        [("distribute", "true"), ("grpcAddress", grpc.as_str()), ("statusInterval", "0s")];
    let mut controller = plane.controller("one", &settings)?;
    let started = Instant::now();
    controller.wait_ready()?;
    step("the controller reads everything", || wait_until_read(&controller))?;
    let read = started.elapsed();
    std::thread::sleep(SETTLED);
    findings.note(format!(
        "controller: everything read after {:.0} s, {} MiB resident",
        read.as_secs_f64(),
        controller.resident_bytes()? >> 20
    ));
    for narrow in [false, true] {
        if narrow {
            narrow_reach(&plane, cluster)?;
        }
        let what = if narrow {
            "two namespaces reached (Sidecar, REGISTRY_ONLY)"
        } else {
            "everything reached"
        };
        let found = step(what, || measure(&mut rig, &plane, &controller, &cluster, narrow))?;
        for note in found {
            findings.note(format!("{what}: {note}"));
        }
    }
    Ok(findings)
}

/// Every namespace says that it reaches itself and the next.
fn narrow_reach(plane: &Plane, cluster: Cluster) -> Result<()> {
    for number in 0..cluster.namespaces {
        let next = format!("team-{}/*", (number + 1) % cluster.namespaces);
        plane.api.put(&json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": {"name": "default", "namespace": format!("team-{number}")},
            "spec": {"egress": [{"hosts": ["./*", next]}]},
        }))?;
    }
    Ok(())
}

fn measure(
    rig: &mut Rig,
    plane: &Plane,
    controller: &Controller,
    cluster: &Cluster,
    narrow: bool,
) -> Result<Vec<String>> {
    configure(rig, plane, narrow)?;
    let sent = sent_bytes(controller)?;
    let started = Instant::now();
    let node = rig.node("a")?;
    // A former agent has written to the same file.
    let before = std::fs::metadata(node.dir.join("agent.log")).map_or(0, |it| it.len());
    let mut agent = Agent::start(node)?;
    let mut log = Log { path: agent.log_path(), read: before };
    let first = wait_for("the first configuration", WITHIN, || {
        anyhow::ensure!(agent.is_running()?, "the agent has ended: {}", agent.log());
        Ok(log.next())
    })?;
    let first = (started.elapsed().as_secs_f64(), first, sent_bytes(controller)? - sent);
    // What follows from the start (its own certificate, its pod) is over.
    std::thread::sleep(SETTLED);
    log.skip();
    let (sent, mut times, mut inner) = (sent_bytes(controller)?, Vec::new(), Vec::new());
    let services: Vec<usize> = (0..cluster.services)
        .filter(|service| !narrow || service % cluster.namespaces < 2)
        .collect();
    for change in 0..CHANGES {
        let service = services.get(change * 37 % services.len()).copied().context("no services")?;
        let at = Instant::now();
        cluster.change_an_endpoint_of(&plane.api, service)?;
        let line = wait_for("a change to be in force", WITHIN, || {
            std::thread::sleep(Duration::from_micros(500));
            Ok(log.next())
        })?;
        times.push(at.elapsed().as_secs_f64() * 1e3);
        inner.push(line);
    }
    let bytes = (sent_bytes(controller)? - sent) / CHANGES as u64;
    times.sort_by(f64::total_cmp);
    let compile = inner.iter().map(|line| line.compile).sum::<f64>() / inner.len() as f64;
    let mut notes = vec![
        format!(
            "first configuration in maps {:.1} s after the agent's start, {} entries, {} KiB sent",
            first.0,
            first.1.entries,
            first.2 >> 10
        ),
        format!(
            "an endpoint's change is in its map after {:.0} ms (p50), {:.0} ms (p99), of that compiling {compile:.0} ms; \
             {bytes} bytes sent for it",
            share(&times, 0.5)?,
            share(&times, 0.99)?,
        ),
        memory(&agent)?,
    ];
    notes.extend(super::scale::maps(rig, &agent)?.into_iter().take(1));
    agent.kill()?;
    Ok(notes)
}

/// After the last change, when what it has cost is given back; and the most that there ever was.
fn memory(agent: &Agent) -> Result<String> {
    std::thread::sleep(SETTLED);
    let (now, peak) = (agent.resident_bytes()? >> 20, agent.peak_bytes()? >> 20);
    Ok(format!("the agent occupies {now} MiB at rest, and {peak} MiB at most"))
}

fn configure(rig: &mut Rig, plane: &Plane, narrow: bool) -> Result<()> {
    let dir: PathBuf = plane.dir().to_owned();
    let (roots, token) = (dir.join("roots.pem"), dir.join("token"));
    replace_file(&roots, &plane.roots()?)?;
    replace_file(&token, &plane.agent("a")?)?;
    let node = rig.node_mut("a")?;
    let host = node.addresses[0];
    let settings = &mut node.settings;
    settings.remove("manifests");
    settings.remove("caDir");
    let policy = if narrow { "REGISTRY_ONLY" } else { "ALLOW_ANY" };
    for (key, value) in [
        ("source", "controller".to_owned()),
        ("cacheDir", "none".to_owned()),
        ("caAddress", format!("https://{host}:{GRPC}")),
        ("caName", CONTROLLER.to_owned()),
        ("caRoots", roots.display().to_string()),
        ("caToken", token.display().to_string()),
        ("outboundTrafficPolicy", policy.to_owned()),
        ("maxWorkloads", "262144".to_owned()),
        ("logLevel", "info,undermesh::agent::reload=debug".to_owned()),
    ] {
        settings.set(key, &value);
    }
    Ok(())
}

fn sent_bytes(controller: &Controller) -> Result<u64> {
    let (_, metrics) = controller.page("metricsAddress", "/metrics")?;
    let name = "undermesh_controller_distribution_sent_bytes_total ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.unwrap_or("0").trim().parse()?)
}

/// What an agent says about states in force, line by line.
struct Log {
    path: PathBuf,
    read: u64,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct InForce {
    entries: u64,
    compile: f64,
}

impl Log {
    /// The next line that has not been seen.
    fn next(&mut self) -> Option<InForce> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let mut file = std::fs::File::open(&self.path).ok()?;
        file.seek(SeekFrom::Start(self.read)).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let end = text.find(IN_FORCE).and_then(|at| Some(at + text[at..].find('\n')?))?;
        let line = text[..end].lines().last()?;
        self.read += end as u64 + 1;
        let field = |name: &str| {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(name))?;
            value.parse::<f64>().ok()
        };
        Some(InForce { entries: field("entries=")? as u64, compile: field("compile_ms=")? })
    }

    fn skip(&mut self) {
        while self.next().is_some() {}
    }
}
