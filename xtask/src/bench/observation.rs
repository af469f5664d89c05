//! `observation`: what it costs that agents tell what they do: access log, flow records and spans, against none of them.
//! Metrics are counted in either case, since that cannot be turned off; how long they take to be read is a note.
//!
//! With requests, agents of both kinds are measured at the same time ([`together`]): what is looked for is smaller than
//! what samples differ by that are taken one after the other. It is also smaller than what two agents differ by that do
//! the same, since each has its memory where it happened to be free, and than what two rigs differ by. So agents are
//! started anew for every round, and those of either rig tell all in every other one.

use std::{net::IpAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use undermesh_tests::Receiver;

use super::{
    compare::{Comparison, Ratio},
    ground::{Ground, HTTP_PORT, NODES, Variant},
    load::Load,
    report::{Findings, Goal},
    rounds::{self, Plan, Sample},
    together,
};

/// What the local path may lose, and what the path of requests may.
const LOCAL: Goal = Goal { rate: 0.95, cpu: 1.10 };
const REQUESTS: Goal = Goal { rate: 0.97, cpu: 1.10 };
/// Agents tell nothing in what comes first, and all in what comes second.
const NAMES: [&str; 2] = ["telling nothing", "telling all"];

/// A rig, and where receivers of spans listen on its nodes.
struct Site {
    ground: Ground,
    spans: [u16; 2],
}

/// A kind of work, and what was measured of it.
struct Measured {
    load: Load,
    pairs: Vec<(Sample, Sample)>,
}

pub(super) fn run(plan: Plan) -> Result<[Findings; 2]> {
    let receiver = Receiver::new()?;
    let mut sites = [Site::new("s", &receiver)?, Site::new("t", &receiver)?];
    let mut near = [Load::KeepAlive, Load::NewConnections].map(Measured::new);
    let mut far = [Load::KeepAlive, Load::Paced, Load::NewConnections].map(Measured::new);
    let (mut lost, mut reads) = (0, Vec::new());
    for round in 0..plan.rounds {
        let [silent, telling] = &mut sites;
        silent.ground.restart(None)?;
        telling.ground.restart(Some(telling.spans))?;
        for Measured { load, pairs } in &mut near {
            let variants = variants(&sites, |ground| ground.address("server"))?;
            rounds::warm_up(*load, &variants)?;
            let samples = rounds::one(*load, &variants, plan, round)?;
            pairs.push((samples[0], samples[1]));
        }
        for Measured { load, pairs } in &mut far {
            let variants = variants(&sites, |ground| Ok(ground.rig.vip("far", HTTP_PORT)?.ip()))?;
            rounds::warm_up(*load, &variants)?;
            pairs.push(together::one(*load, &variants, plan, round)?);
        }
        for node in NODES {
            let began = Instant::now();
            let metrics = sites[1].ground.rig.agent(node)?.metrics()?;
            reads.push(began.elapsed().as_secs_f64() * 1e3);
            lost += lost_lines(&metrics)?;
        }
        sites.reverse();
    }
    let lines: usize = sites.iter().map(|site| site.ground.forgotten()).sum();
    let spans = receiver.spans().len();
    ensure!(lines > 1000 && spans > 0, "that was not observed: {lines} lines, {spans} spans");
    let mut local = Findings::new("observation: pod to pod on one node", Some(LOCAL));
    local.comparisons.extend(near.iter().map(Measured::comparison));
    let mut requests =
        Findings::new("observation: requests that are looked at, to another node", Some(REQUESTS));
    requests.comparisons.extend(far.iter().map(Measured::comparison));
    requests.note(format!("{lines} lines of access log, {lost} more were lost"));
    requests.note(format!("{spans} spans arrived"));
    requests.note(format!("metrics are read within {:.1} ms", Ratio::of(reads).median));
    Ok([local, requests])
}

impl Site {
    fn new(kind: &str, receiver: &Receiver) -> Result<Self> {
        let ground = Ground::observed(kind)?;
        let port = |node: &str| receiver.listen(&ground.rig.node(node)?.netns, "grpc");
        let [a, b] = NODES.map(port);
        Ok(Self { spans: [a?, b?], ground })
    }
}

impl Measured {
    fn new(load: Load) -> Self {
        Self { load, pairs: Vec::new() }
    }

    fn comparison(&self) -> Comparison {
        Comparison::new(self.load.name(), NAMES, &self.pairs)
    }
}

/// The clients of both sites, each with the address that `to` says.
fn variants(sites: &[Site; 2], to: impl Fn(&Ground) -> Result<IpAddr>) -> Result<[Variant<'_>; 2]> {
    let variant = |at: usize| {
        let ground = &sites[at].ground;
        Ok::<_, anyhow::Error>(Variant { name: NAMES[at], ground, from: "client", to: to(ground)? })
    };
    Ok([variant(0)?, variant(1)?])
}

/// Lines that an agent has not written, of its metrics.
fn lost_lines(metrics: &str) -> Result<u64> {
    let name = "undermesh_access_log_dropped_total ";
    let lost = metrics.lines().find_map(|line| line.strip_prefix(name));
    Ok(lost.context("no such metric")?.parse()?)
}
