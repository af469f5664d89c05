//! `test`: build everything once, then run the test executables ring by ring: unit -> process ->
//! netns, and some of the last on other kernels: -> vm. The executables are run directly, so that choosing a ring never makes cargo see another
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

use anyhow::{Result, ensure};

use crate::{
    build_ebpf::Builder,
    command,
    install::{self, Need, Policy},
    machine::Machine,
    vm::Machines,
    workspace::Workspace,
};
use build::Built;
use execute::Execution;
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
    /// Those of them that depend on the kernel, on three other kernels in virtual machines
    Vm,
    /// Every ring
    All,
}

impl RingChoice {
    fn rings(self) -> Vec<Ring> {
        match self {
            Self::Unit => vec![Ring::Unit],
            Self::Process => vec![Ring::Process],
            Self::Netns => vec![Ring::Netns],
            Self::Vm => vec![Ring::Vm],
            Self::All => vec![Ring::Unit, Ring::Process, Ring::Netns, Ring::Vm],
        }
    }
}

/// Builds, runs, and ends with the summary and `N passed, N failed`.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let mut rings = args.ring.rings();
    let mut summary = Summary::default();
    let machines = prepare(workspace, args, &mut rings, &mut summary)?;
    if !rings.is_empty() {
        let built = build::everything(workspace)?;
        for ring in rings {
            let started = Instant::now();
            let tally = match &machines {
                Some(machines) if ring == Ring::Vm => {
                    run_machines(workspace, args, &built, machines)?
                }
                _ => run_ring(workspace, args, &built, ring)?,
            };
            summary.add(ring, tally, started.elapsed());
        }
    }
    let in_ci = env::var_os("CI").is_some_and(|value| value == "true");
    print!("\n{}", summary.render(in_ci));
    Ok(if summary.is_success(in_ci) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gets what the rings need beyond a build, and takes those off the list that this machine cannot
/// run. An error is a build that failed, which stops everything.
fn prepare(
    workspace: &Workspace,
    args: &Args,
    rings: &mut Vec<Ring>,
    summary: &mut Summary,
) -> Result<Option<Machines>> {
    let policy = Policy::from_flag(args.no_install);
    install::ensure(Need::Agent, policy)?;
    let mut machines = None;
    for ring in [Ring::Netns, Ring::Vm] {
        if !rings.contains(&ring) {
            continue;
        }
        let ready = match ring {
            Ring::Vm => Machines::of_the_ring(policy).map(|it| machines = Some(it)),
            _ => prepare_netns(workspace, policy),
        };
        let ready = match ready {
            Ok(()) => build_programs(workspace, policy)?,
            Err(error) => Err(error),
        };
        if let Err(reason) = ready {
            rings.retain(|it| *it != ring);
            summary.not_run(ring, format!("{reason:#}"));
        }
    }
    for (kernel, reason) in machines.iter().flat_map(Machines::missing) {
        summary.not_run(Ring::Vm, format!("kernel {kernel}: {reason}"));
    }
    Ok(machines)
}

/// Tools for the namespace ring. The error is why this machine cannot run it.
fn prepare_netns(workspace: &Workspace, policy: Policy) -> Result<()> {
    let missing = Machine::read().missing_for_bpf();
    ensure!(missing.is_empty(), "{}", missing.join("; "));
    install::ensure(Need::Netns, policy)?;
    // Installed, it would run as a service of this machine.
    install::debian_package(workspace, "prometheus", "scrapes agents under test", policy)?;
    Ok(())
}

/// The programs. The inner error is why this machine cannot build any.
fn build_programs(workspace: &Workspace, policy: Policy) -> Result<Result<()>> {
    match Builder::prepare(workspace, policy) {
        Ok(builder) => builder.build(false).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

fn run_machines(
    workspace: &Workspace,
    args: &Args,
    built: &Built,
    machines: &Machines,
) -> Result<Tally> {
    println!("\n{}: on other kernels", Ring::Vm);
    let mut tally = Tally::default();
    for (check, passed) in machines.run_ring(workspace, built, args.filter.as_deref())? {
        if passed { tally.pass() } else { tally.fail(check) }
    }
    Ok(tally)
}

fn run_ring(workspace: &Workspace, args: &Args, built: &Built, ring: Ring) -> Result<Tally> {
    let mut executions = Vec::new();
    for test in built.tests.iter().filter(|test| test.ring == ring) {
        let mut command = test.command();
        command.env("UNDERMESH_BIN", &built.agent);
        libtest_arguments(&mut command, args, ring);
        executions.push(Execution { label: test.label.clone(), command });
    }
    if ring == Ring::Unit {
        let mut command = command::cargo();
        command.current_dir(workspace.root());
        command.args(["test", "--workspace", "--doc", "--no-fail-fast", "--"]);
        libtest_arguments(&mut command, args, ring);
        let label = "examples in the documentation".to_owned();
        executions.push(Execution { label, command });
    }
    execute::run_all(executions, ring, ring.at_once(), ring.limits())
}

fn libtest_arguments(command: &mut Command, args: &Args, ring: Ring) {
    command.args(&args.filter);
    if let Some(threads) = ring.threads() {
        command.arg(format!("--test-threads={threads}"));
    }
    command.args(&args.extra);
}
