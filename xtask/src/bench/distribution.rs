//! `distribution`: what a controller and an API server have to do for 1, 100 and 1,000 agents, with every agent at the API server
//! and with all of them at the controller. Agents are simulated; the controller is real, the API server is the tests'.

mod cluster;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use undermesh_tests::{
    Controller, Plane,
    apiserver::{Call, Options},
    fleet::{Fleet, Got},
    watchers::Watchers,
};

pub(super) use self::cluster::Cluster;
use super::{report::Findings, rounds::Plan};
use crate::progress::step;

/// Agents of the controller.
const FLEETS: [usize; 3] = [1, 100, 1000];
/// Agents of the API server: each has its own watches, and a server in this process has to serve them all.
const FOLLOWERS: [usize; 2] = [1, 10];
/// Changes of endpoints for each number of agents.
const CHANGES: usize = 30;

pub(super) fn run(_: Plan) -> Result<Findings> {
    let cluster = Cluster { nodes: 1000, namespaces: 50, services: 1000, endpoints: 10 };
    let mut findings = Findings::new(
        "distribution: 1,000 nodes, 1,000 services, 10,000 endpoints; agents at the API server, and at the controller",
        None,
    );
    // Bookmarks would be counted with what changes.
    let bookmarks = Duration::from_secs(3600);
    let dir = std::env::temp_dir().join(format!("undermesh-bench-{}", std::process::id()));
    let plane = Plane::within(&dir, Options { bookmarks, ..Options::default() }, None)?;
    step("putting 12,000 objects into the API server", || cluster.put(&plane.api))?;
    let tokens: Result<Vec<(String, String)>> = (0..cluster.nodes)
        .map(|number| {
            let node = Cluster::node(number);
            Ok((node.clone(), plane.agent(&node)?))
        })
        .collect();
    let tokens = tokens?;
    plane.api.calls();
    let started = Instant::now();
    let settings = [
        ("distribute", "true"),
        ("csrRate", "100000"),
        ("csrBurst", "100000"),
        ("statusInterval", "0s"),
    ];
    let mut controller = plane.controller("one", &settings)?;
    controller.wait_ready()?;
    wait_until_read(&controller)?;
    let calls = plane.api.calls();
    let watches = calls.iter().filter(|call| call.verb == "watch").count();
    findings.note(format!(
        "controller: everything read {:.1} s after its start, by {watches} watches of the API server, {} MiB resident",
        started.elapsed().as_secs_f64(),
        controller.resident_bytes()? >> 20
    ));
    for agents in FLEETS {
        let told = format!("{agents} agents of the controller");
        for note in step(&told, || fleet(&cluster, &plane, &controller, &tokens[..agents]))? {
            findings.note(note);
        }
    }
    for agents in FOLLOWERS {
        let told = format!("{agents} agents of the API server");
        let note = step(&told, || followers(&cluster, &plane, &calls, agents))?;
        findings.note(note);
    }
    Ok(findings)
}

/// Waits until a controller has read everything.
pub(super) fn wait_until_read(controller: &Controller) -> Result<()> {
    let gauge = "undermesh_controller_distribution_objects";
    undermesh_tests::wait_for("everything to be read", Duration::from_secs(180), || {
        let (_, metrics) = controller.page("metricsAddress", "/metrics")?;
        let line = metrics.lines().find(|line| line.starts_with(gauge));
        Ok(line.filter(|line| !line.ends_with(" 0")).map(drop))
    })
}

fn fleet(
    cluster: &Cluster,
    plane: &Plane,
    controller: &Controller,
    agents: &[(String, String)],
) -> Result<Vec<String>> {
    let started = Instant::now();
    let (fleet, first) = Fleet::start(plane, controller, agents, false)?;
    let took = started.elapsed();
    let mut changes = Vec::with_capacity(CHANGES);
    let mut sizes = Vec::with_capacity(CHANGES * agents.len());
    for change in 0..CHANGES {
        let at = Instant::now();
        cluster.change_an_endpoint(&plane.api, change)?;
        let got = fleet.all()?;
        changes.extend(got.iter().map(|got| got.at.duration_since(at).as_secs_f64() * 1e3));
        sizes.extend(got.iter().map(|got| got.bytes));
    }
    changes.sort_by(f64::total_cmp);
    let watches = plane.api.calls().into_iter().filter(|call| call.verb == "watch").count();
    Ok(vec![format!(
        "controller, {} agents: {} KiB each at the start, all within {:.1} s; a changed endpoint {} bytes each, there after \
         {:.0} ms (p50), {:.0} ms (p99); {watches} more watches; the controller has {} MiB",
        agents.len(),
        mean(&first)? >> 10,
        took.as_secs_f64(),
        sizes.iter().sum::<u64>() / sizes.len().max(1) as u64,
        share(&changes, 0.5)?,
        share(&changes, 0.99)?,
        controller.resident_bytes()? >> 20,
    )])
}

fn followers(cluster: &Cluster, plane: &Plane, calls: &[Call], agents: usize) -> Result<String> {
    let watchers = Watchers::start(&plane.api, calls, agents)?;
    let start = watchers.bytes();
    for change in 0..CHANGES {
        cluster.change_an_endpoint(&plane.api, change)?;
    }
    // The last of them has come once nothing comes for a while.
    let mut before = watchers.bytes();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let now = watchers.bytes();
        if now == before {
            break;
        }
        before = now;
    }
    Ok(format!(
        "API server, {agents} agents: {} KiB each at the start; a changed endpoint {} bytes each; {} watches",
        (start / agents as u64) >> 10,
        (before - start) / (agents * CHANGES) as u64,
        watchers.count(),
    ))
}

fn mean(got: &[Got]) -> Result<u64> {
    let sum: u64 = got.iter().map(|got| got.bytes).sum();
    sum.checked_div(got.len() as u64).context("nobody has got anything")
}

/// The value that this share is not above, of values in order.
pub(super) fn share(sorted: &[f64], share: f64) -> Result<f64> {
    let at = (sorted.len() as f64 * share) as usize;
    let value = sorted.get(at.min(sorted.len().saturating_sub(1)));
    value.copied().context("nothing was measured")
}
