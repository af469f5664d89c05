//! `test`: build everything once, then run the test executables ring by ring: unit -> process ->
//! netns. The executables are run directly, so that choosing a ring never makes cargo see another
//! set of packages, unify features anew and compile twice.

pub(crate) mod build;
mod execute;
mod ring;
mod summary;

use std::{
    env,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::Result;

use crate::{
    build_ebpf::Builder,
    command,
    install::{self, Need, Policy},
    machine::Machine,
    workspace::Workspace,
};
use build::Built;
use ring::Ring;
use summary::{Summary, Tally};

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
    /// Run only this ring
    #[arg(long, value_enum, default_value = "all")]
    ring: RingChoice,
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Passed on to the test executables, for example `-- --nocapture`
    #[arg(last = true)]
    extra: Vec<String>,
}

/// A ring, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RingChoice {
    /// Tests beside the code, and examples in the documentation
    Unit,
    /// Whole agents in one process, or started as processes
    Process,
    /// Real programs between network namespaces; needs root and BPF
    Netns,
    /// Every ring
    All,
}

impl RingChoice {
    fn rings(self) -> Vec<Ring> {
        match self {
            Self::Unit => vec![Ring::Unit],
            Self::Process => vec![Ring::Process],
            Self::Netns => vec![Ring::Netns],
            Self::All => vec![Ring::Unit, Ring::Process, Ring::Netns],
        }
    }
}

/// Builds, runs, and ends with the summary and `N passed, N failed`.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let mut rings = args.ring.rings();
    let mut summary = Summary::default();
    if rings.contains(&Ring::Netns)
        && let Err(reason) = prepare_netns(workspace, Policy::from_flag(args.no_install))?
    {
        rings.retain(|ring| *ring != Ring::Netns);
        summary.not_run(Ring::Netns, reason);
    }
    if !rings.is_empty() {
        let built = build::everything(workspace)?;
        for ring in rings {
            let started = Instant::now();
            let tally = run_ring(workspace, args, &built, ring)?;
            summary.add(ring, tally, started.elapsed());
        }
    }
    let in_ci = env::var_os("CI").is_some_and(|value| value == "true");
    print!("\n{}", summary.render(in_ci));
    Ok(if summary.is_success(in_ci) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tools and programs for the namespace ring. The inner error is the reason why this machine
/// cannot run it; the outer one is a build that failed, which stops everything.
fn prepare_netns(workspace: &Workspace, policy: Policy) -> Result<Result<(), String>> {
    let missing = Machine::read().missing_for_bpf();
    if !missing.is_empty() {
        return Ok(Err(missing.join("; ")));
    }
    if let Err(error) = install::ensure(Need::Netns, policy) {
        return Ok(Err(format!("{error:#}")));
    }
    match Builder::prepare(workspace, policy) {
        Ok(builder) => builder.build(false).map(Ok),
        Err(error) => Ok(Err(format!("{error:#}"))),
    }
}

fn run_ring(workspace: &Workspace, args: &Args, built: &Built, ring: Ring) -> Result<Tally> {
    let mut total = Tally::default();
    for test in built.tests.iter().filter(|test| test.ring == ring) {
        println!("\n{ring}: {}", test.label);
        let mut command = test.command();
        command.env("UNDERMESH_BIN", &built.agent);
        libtest_arguments(&mut command, args, ring);
        total.add(execute::run(&mut command, &test.label, ring.deadline())?);
    }
    if ring == Ring::Unit {
        let label = "examples in the documentation";
        println!("\n{ring}: {label}");
        let mut command = command::cargo();
        command.current_dir(workspace.root());
        command.args(["test", "--workspace", "--doc", "--no-fail-fast", "--"]);
        libtest_arguments(&mut command, args, ring);
        total.add(execute::run(&mut command, label, ring.deadline())?);
    }
    Ok(total)
}

fn libtest_arguments(command: &mut Command, args: &Args, ring: Ring) {
    command.args(&args.filter);
    if let Some(threads) = ring.threads() {
        command.arg(format!("--test-threads={threads}"));
    }
    command.args(&args.extra);
}
