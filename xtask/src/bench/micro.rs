//! `micro`: single steps of the agent, by criterion. What they are is said where they are, in `benches/` of the
//! crates; here they are run, and what criterion has written about each is gathered.

mod estimates;

use std::{process::Stdio, time::SystemTime};

use anyhow::{Context as _, Result, bail};

pub(super) use self::estimates::Measured;
use super::{report::Findings, rounds::Plan};
use crate::{
    build_ebpf::Builder, command, install::Policy, machine::Machine, progress::step,
    workspace::Workspace,
};

/// Packages and their benchmarks.
const BENCHES: [(&str, &[&str]); 3] = [
    ("undermesh-snapshot", &["snapshot", "routes", "policies"]),
    ("undermesh-proxy", &["bytes", "records"]),
    ("undermesh-telemetry", &["requests"]),
];
/// The one that makes maps in the kernel.
const MAPS: (&str, &[&str]) = ("undermesh-datapath", &["maps"]);
/// Shows them what nobody else may see.
const FEATURES: &str = "undermesh-proxy/fuzzing";

/// Which of them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Selection {
    /// For `micro`: only benchmarks whose name (`group/function`) matches this regular expression
    #[arg(long, value_name = "REGEX")]
    filter: Option<String>,
}

impl Selection {
    /// Whether anything has been asked for that only `micro` knows.
    pub(super) fn are_given(&self) -> bool {
        self.filter.is_some()
    }
}

/// Builds and runs them; each is measured for `plan.each`.
pub(super) fn run(
    workspace: &Workspace,
    policy: Policy,
    plan: Plan,
    selection: &Selection,
) -> Result<Findings> {
    let missing = Machine::read().missing_for_bpf();
    let mut findings = Findings::new("micro: single steps of the agent", None);
    let mut benches = BENCHES.to_vec();
    if missing.is_empty() {
        Builder::prepare(workspace, policy)?.build(false)?;
        benches.push(MAPS);
    } else {
        let why = missing.join("; ");
        findings.note(format!("left out: map apply, which makes eBPF maps and cannot here: {why}"));
    }
    let cargo = || {
        let mut cargo = command::cargo();
        cargo.current_dir(workspace.root()).args(["bench", "--features", FEATURES]);
        for (package, names) in &benches {
            cargo.args(["--package", package]);
            cargo.args(names.iter().flat_map(|name| ["--bench", name]));
        }
        cargo
    };
    step("building the benchmarks (some minutes the first time)", || {
        command::run(cargo().args(["--quiet", "--no-run"]).stdout(Stdio::null()))
    })?;
    let home = workspace.root().join("target/bench/micro");
    let began = SystemTime::now();
    let mut cargo = cargo();
    cargo.args(["--quiet", "--", "--noplot", "--warm-up-time", "0.5", "--measurement-time"]);
    cargo.arg(plan.each.as_secs().to_string()).args(&selection.filter);
    // What criterion says of each is progress; the table comes at the end.
    cargo.env("CRITERION_HOME", &home).stdout(std::io::stderr());
    command::run(&mut cargo)?;
    findings.micro = estimates::since(&home, began).context("cannot read what criterion found")?;
    if findings.micro.is_empty() {
        bail!("no benchmark's name matches {:?}", selection.filter.as_deref().unwrap_or_default());
    }
    Ok(findings)
}
