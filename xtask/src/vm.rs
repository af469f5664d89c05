//! `vm`: the kernel ring, on kernels that are not this machine's. Debian's kernels are fetched into a
//! cache, booted under QEMU with the binaries that the namespace ring uses here, and asked to load,
//! attach and run everything.
//!
//! ```text
//! catalog ─ version   which kernels there are, and which are meant
//! apt ─ kernel, qemu  fetched and unpacked, never installed
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
mod outcome;
mod qemu;
mod report;
mod ring;
mod run;
mod version;

use std::{env, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    command,
    install::{self, Need, Policy},
    workspace::Workspace,
};
use apt::Apt;
use catalog::{Catalog, Choice};
use kernel::Kernel;
use outcome::{Ending, Outcome};
use qemu::{Accelerator, Qemu};

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
    /// How many machines run at once; as many as processors and memory allow if not said
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
    install::ensure(Need::Vm, policy)?;
    let cache = Cache::lock()?;
    let apt = Apt::open(&cache.directory)?;
    let catalog = apt.catalog()?;
    if args.list {
        print!("{}", list(&catalog, &cache));
        return Ok(ExitCode::SUCCESS);
    }
    let qemu = Qemu::find_or_fetch(&apt, &cache.directory, policy)?;
    let mut kernels = Vec::new();
    let mut outcomes = Vec::new();
    for choice in choices {
        match Kernel::fetch(choice, &catalog, &apt, &cache.directory) {
            Ok(kernel) if kernels.iter().any(|it: &Kernel| it.package == kernel.package) => {
                eprintln!("{choice} is {}, which runs anyway", kernel.package.version.as_str());
            }
            Ok(kernel) => kernels.push(kernel),
            // Not skipped: what cannot be had has not passed.
            Err(error) => outcomes.push(not_booted(args, choice, &format!("{error:#}"))),
        }
    }
    // What is there is only read from now on.
    drop(cache);
    let place = run::Place::prepare(workspace, args, qemu.clone(), policy)?;
    outcomes.extend(place.run_all(&kernels)?);
    finish(workspace, args, &outcomes, &qemu)
}

fn finish(
    workspace: &Workspace,
    args: &Args,
    outcomes: &[Outcome],
    qemu: &Qemu,
) -> Result<ExitCode> {
    eprint!("{}", report::failures(outcomes));
    match args.output {
        Output::Table => print!("\n{}", report::summary(outcomes)),
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

fn not_booted(args: &Args, choice: Choice, why: &str) -> Outcome {
    let mut outcome = Outcome::new(&choice.to_string(), "", PathBuf::new());
    outcome.end(Ending::NotBooted(why.to_owned()), &[], 0.0);
    outcome.checks.iter().for_each(|it| args.output.say(&report::line(outcome.kernel(), it)));
    outcome
}

/// Every kernel that can be named, newest last.
fn list(catalog: &Catalog, cache: &Cache) -> String {
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
        let cached = candidates.iter().any(|it| kernel::is_cached(&cache.directory, it));
        let cached = if cached { "yes" } else { "no" };
        let (version, name) = (package.version.as_str(), &package.name);
        text.push_str(&format!("{choice:<8} {version:<20} {run_by:<8} {cached:<7} {name}\n"));
    }
    text
}

/// Downloads that outlive a build directory, shared by all clones of this user; one run at a time
/// fetches.
struct Cache {
    directory: PathBuf,
    _lock: fs::File,
}

impl Cache {
    fn lock() -> Result<Self> {
        let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
        let directory =
            base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("undermesh/vm");
        let shown = directory.display();
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {shown}"))?;
        let lock = fs::File::create(directory.join("lock"))?;
        if lock.try_lock().is_err() {
            eprintln!("waiting for another run that uses {shown}");
            lock.lock().with_context(|| format!("cannot lock {shown}"))?;
        }
        Ok(Self { directory, _lock: lock })
    }
}
