//! `vm`: the kernel ring, on kernels that are not this machine's. Debian's kernels are fetched into a
//! cache, booted under QEMU with the binaries that the namespace ring uses here, and asked to load,
//! attach and run everything.
//!
//! ```text
//! catalog ─ version   which kernels there are, and which are meant
//! apt ─ kernel, qemu  fetched and unpacked, never installed
//! machines            all of these, for `vm` and for the ring `vm` of `test`
//! initramfs ─ cpio    what a machine boots into; ring: what it has to pass
//! boot ─ outcome      one run, and what it comes to; budget: what programs may cost
//! report, docs        for the terminal, and for the reference
//! ```

mod apt;
mod boot;
mod budget;
mod catalog;
mod cpio;
mod docs;
mod initramfs;
mod kernel;
mod machines;
mod outcome;
mod qemu;
mod report;
mod ring;
mod run;
mod version;

use std::{fs, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf::Builder, command, install::Policy, progress::step, test::build,
    workspace::Workspace,
};
use catalog::{Catalog, Choice};
pub(crate) use machines::Machines;
use machines::Store;
use outcome::Outcome;
use qemu::{Accelerator, Qemu};
use run::Manner;

/// Options of `vm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernels: a series (6.12), `newest`, or `rc`; the oldest, a middle one and the newest if none
    /// is named
    kernels: Vec<String>,
    /// Run the whole matrix
    #[arg(long)]
    all: bool,
    /// Say which kernels there are, and run nothing
    #[arg(long)]
    list: bool,
    /// Instead of the kernel ring, run every namespace test whose name contains this
    #[arg(long, value_name = "FILTER")]
    test: Option<String>,
    /// How many machines run at once; three for two processors if not said, as far as memory allows
    #[arg(long, short)]
    jobs: Option<usize>,
    /// How processors are had
    #[arg(long, value_enum, default_value = "tcg")]
    accel: Accelerator,
    /// How to print the results
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
    /// Write docs/reference/kernels.md from this run; with --all only
    #[arg(long, requires = "all", conflicts_with = "test")]
    write_docs: bool,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs; progress goes to standard error
    Json,
}

impl Output {
    /// Shows a line of progress; standard output belongs to the results where programs read them.
    fn say(self, line: &str) {
        match self {
            Self::Table => println!("{line}"),
            Self::Json => eprintln!("{line}"),
        }
    }
}

/// Fetches, builds, boots, and ends with the summary and `N passed, N failed`.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let policy = Policy::from_flag(args.no_install);
    let choices = catalog::choices(&args.kernels, args.all)?;
    let store = Store::open(policy)?;
    if args.list {
        print!("{}", list(&store.catalog, &store));
        return Ok(ExitCode::SUCCESS);
    }
    let machines = Machines::fetch(store, &choices, policy)?;
    Builder::prepare(workspace, policy)?.build(false)?;
    let built = step("building the agent and the tests", || build::everything(workspace))?;
    let tests = match &args.test {
        Some(filter) => ring::matching(&built, filter)?,
        None => ring::tests(),
    };
    let manner = Manner { accelerator: args.accel, jobs: args.jobs, output: args.output };
    // Not skipped: what cannot be had has not passed.
    let mut outcomes = machines.outcomes_of_missing(args.output);
    outcomes.extend(machines.run(workspace, &built, tests, manner)?);
    finish(workspace, args, &outcomes, &machines.qemu)
}

fn finish(
    workspace: &Workspace,
    args: &Args,
    outcomes: &[Outcome],
    qemu: &Qemu,
) -> Result<ExitCode> {
    eprint!("{}", report::failures(outcomes));
    match args.output {
        Output::Table => print!("\n{}{}", report::table(outcomes), report::total(outcomes)),
        Output::Json => println!("{}", serde_json::to_string_pretty(outcomes)?),
    }
    if args.write_docs {
        let day = command::stdout(std::process::Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let page = docs::page(outcomes, day.trim(), &qemu.version()?);
        let path = workspace.root().join("docs/reference/kernels.md");
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let passed = !outcomes.is_empty() && outcomes.iter().all(|it| it.tally().1 == 0);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every kernel that can be named, newest last.
fn list(catalog: &Catalog, store: &Store) -> String {
    let series = catalog.series().into_iter().map(Choice::Series);
    let mut text =
        format!("{:<8} {:<20} {:<8} {:<7} PACKAGE\n", "KERNEL", "VERSION", "RUN BY", "CACHED");
    for choice in series.chain([Choice::Newest, Choice::Candidate]) {
        let candidates = catalog.candidates(choice);
        let Some(package) = candidates.first() else { continue };
        let run_by = match catalog::membership(choice) {
            (_, true) => "default",
            (true, false) => "--all",
            (false, false) => "name",
        };
        let cached = candidates.iter().any(|it| kernel::is_cached(store.directory(), it));
        let cached = if cached { "yes" } else { "no" };
        let (version, name) = (package.version.as_str(), &package.name);
        text.push_str(&format!("{choice:<8} {version:<20} {run_by:<8} {cached:<7} {name}\n"));
    }
    text
}
