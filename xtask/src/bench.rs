//! `bench`: what the mesh costs, as ratios to the same work without it.
//!
//! ```text
//! build      the agent, optimised
//! ground     a rig with servers in it; with the mesh or without
//! process    what runs inside pods until it is killed
//! load       what is done: a load generator, and how its report is read
//! rounds     every variant in turn, several times, in changing order
//! cpu        what a stretch of time has cost the machine, and whether it was ours alone
//! compare    pairs of samples -> ratios, their median and their spread
//! local, passthrough, scale, fairness, observation    benchmarks of one thing
//! micro      single steps of the agent, by criterion
//! distribution    agents at a controller, and at an API server
//! cluster    an endpoint's way through a cluster of 100,000 to a map
//! mesh       everything against everything: no mesh, Undermesh, sidecars, relays
//! report     for the terminal, and as JSON
//! ```
//!
//! Everything runs in namespaces and cgroups of its own. Only ratios within one run mean anything:
//! machines differ, and so do hours.

mod build;
mod cluster;
mod compare;
mod cpu;
mod distribution;
mod fairness;
mod ground;
mod load;
mod local;
mod mesh;
mod micro;
mod observation;
mod passthrough;
mod process;
mod report;
mod rounds;
mod scale;
mod together;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use undermesh_tests::Rig;

use crate::{
    install::{self, Need, Policy},
    machine::Machine,
    workspace::Workspace,
};
use report::Report;
use rounds::Plan;

/// What all rigs of this command are called; those of dead runs are removed by it.
const TAG: &str = "bench";

/// All benchmarks, in the order in which they are run.
const ALL: [Name; 9] = [
    Name::Micro,
    Name::Local,
    Name::Passthrough,
    Name::Scale,
    Name::Distribution,
    Name::Cluster,
    Name::Fairness,
    Name::Observation,
    Name::Mesh,
];

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which benchmarks; all of them if none is named
    #[arg(value_enum)]
    names: Vec<Name>,
    /// How often each variant is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long one measurement takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How results are written to standard output
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    mesh: mesh::Options,
    #[command(flatten)]
    micro: micro::Selection,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Between two pods of one node, against no mesh at all
    Local,
    /// To a destination outside the mesh, against no mesh at all
    Passthrough,
    /// Ten thousand pods and five thousand policies: how long a change takes, and what they occupy
    Scale,
    /// 1, 100 and 1,000 agents at a controller, and at an API server: bytes, watches, memory
    Distribution,
    /// 1,000 nodes, 10,000 services and 100,000 endpoints through a controller to one agent's maps
    Cluster,
    /// Every kind of work through no mesh, Undermesh, Envoy as sidecars, and plain relays
    Mesh,
    /// A pod beside one that asks for ten times its share: what it loses, with fairness and without
    Fairness,
    /// What access log, flow records and spans cost, within a node and where requests are looked at
    Observation,
    /// Single steps of the agent (compile, look up, judge, rewrite, frame, encrypt, apply), by criterion
    Micro,
}

impl Args {
    /// What is to be run: what is named, or what the options are about, or everything.
    fn names(&self) -> Vec<Name> {
        if !self.names.is_empty() {
            return self.names.clone();
        }
        match (self.mesh.are_given(), self.micro.are_given()) {
            (true, true) => vec![Name::Micro, Name::Mesh],
            (true, false) => vec![Name::Mesh],
            (false, true) => vec![Name::Micro],
            (false, false) => ALL.to_vec(),
        }
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Tables
    Text,
    /// One JSON object
    Json,
}

/// Builds, measures, and prints what came out.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let policy = Policy::from_flag(args.no_install);
    let plan = Plan { rounds: args.rounds, each: Duration::from_secs(args.seconds) };
    let names = args.names();
    if names != [Name::Micro] {
        prepare(workspace, policy)?;
    }
    let mut report = Report::new(plan)?;
    for name in names {
        let found = match name {
            Name::Observation => observation::run(plan)?.into(),
            Name::Local => vec![local::run(plan)?],
            Name::Passthrough => vec![passthrough::run(plan)?],
            Name::Scale => vec![scale::run(plan)?],
            Name::Distribution => vec![distribution::run(plan)?],
            Name::Cluster => vec![cluster::run(plan)?],
            Name::Fairness => vec![fairness::run(plan)?],
            Name::Mesh => vec![mesh::run(workspace, policy, plan, &args.mesh)?],
            Name::Micro => vec![micro::run(workspace, policy, plan, &args.micro)?],
        };
        found.into_iter().for_each(|findings| report.add(findings));
    }
    match args.output {
        Output::Text => print!("{}", report.text()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that rigs can be built, and with what.
fn prepare(workspace: &Workspace, policy: Policy) -> Result<()> {
    let missing = Machine::read().missing_for_bpf();
    if !missing.is_empty() {
        bail!(
            "benchmarks load eBPF programs and make network namespaces, and cannot do so here: {}",
            missing.join("; ")
        )
    }
    install::ensure(Need::Bench, policy)?;
    build::build(workspace, policy)?;
    Rig::cleanup_stale(TAG)
}

#[cfg(test)]
mod tests {
    use clap::{Parser, ValueEnum as _};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_choose_the_benchmark_that_they_are_about_unless_one_is_named() {
        let names = |line: &str| {
            let words = ["bench"].into_iter().chain(line.split_whitespace());
            Cli::try_parse_from(words).unwrap().args.names()
        };
        assert_eq!(names("--filter policy"), [Name::Micro]);
        assert_eq!(names("--variant l4"), [Name::Mesh]);
        assert_eq!(names("local --filter policy"), [Name::Local]);
        assert_eq!(names("").len(), Name::value_variants().len());
    }
}
