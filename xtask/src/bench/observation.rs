//! `observation`: what it costs that agents tell what they do: access log, flow records and spans, against none of them.
//! Metrics are counted in either case, since that cannot be turned off; how long they take to be read is a note.
//!
//! With requests, agents of both kinds are measured at the same time ([`together`]): what is looked for is smaller than
//! what samples differ by that are taken one after the other.

use std::{net::IpAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use undermesh_tests::{Receiver, Rig};

use super::{
    compare::Ratio,
    ground::{Ground, HTTP_PORT, Variant},
    load::Load,
    report::{Findings, Goal},
    rounds::{self, Plan},
    together,
};

/// What the local path may lose, and what the path of requests may.
const LOCAL: Goal = Goal { rate: 0.95, cpu: 1.10 };
const REQUESTS: Goal = Goal { rate: 0.97, cpu: 1.10 };
/// How often metrics are read.
const READS: usize = 20;

pub(super) fn run(plan: Plan) -> Result<[Findings; 2]> {
    let receiver = Receiver::new()?;
    let spans = |rig: &Rig| -> Result<Option<[u16; 2]>> {
        let port = |node: &str| receiver.listen(&rig.node(node)?.netns, "grpc");
        Ok(Some([port("a")?, port("b")?]))
    };
    let silent = Ground::observed("s", |_| Ok(None))?;
    let telling = Ground::observed("t", spans)?;
    let mut local = Findings::new("observation: pod to pod on one node", Some(LOCAL));
    let near = [
        way("telling nothing", &silent, silent.address("server")?),
        way("telling all", &telling, telling.address("server")?),
    ];
    for load in [Load::KeepAlive, Load::NewConnections] {
        local.comparisons.extend(rounds::run(load, &near, plan)?);
    }
    let mut requests =
        Findings::new("observation: requests that are looked at, to another node", Some(REQUESTS));
    let far = |ground: &Ground| Ok::<_, anyhow::Error>(ground.rig.vip("far", HTTP_PORT)?.ip());
    let far = [
        way("telling nothing", &silent, far(&silent)?),
        way("telling all", &telling, far(&telling)?),
    ];
    for load in [Load::KeepAlive, Load::Paced, Load::NewConnections] {
        requests.comparisons.push(together::run(load, &far, plan)?);
    }
    let agent = telling.rig.agent("a")?;
    let lines = telling.lines()?;
    ensure!(lines > 1000 && !receiver.spans().is_empty(), "that was not observed: {lines} lines");
    let metrics = agent.metrics()?;
    let name = "undermesh_access_log_dropped_total ";
    let lost =
        metrics.lines().find_map(|line| line.strip_prefix(name)).context("no such metric")?;
    requests.note(format!("{lines} lines of access log; {lost} more were lost on node a"));
    requests.note(format!("{} spans arrived", receiver.spans().len()));
    let mut reads = Vec::new();
    for _ in 0..READS {
        let began = Instant::now();
        agent.metrics()?;
        reads.push(began.elapsed().as_secs_f64() * 1e3);
    }
    requests.note(format!("metrics are read within {:.1} ms", Ratio::of(reads).median));
    Ok([local, requests])
}

fn way<'a>(name: &'static str, ground: &'a Ground, to: IpAddr) -> Variant<'a> {
    Variant { name, ground, from: "client", to }
}
