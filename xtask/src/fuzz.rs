//! `fuzz`: bytes that a peer might send, by the million, to every parser of them.
//!
//! ```text
//! targets    what there is, from the files of `tests/fuzz`
//! build      one executable of all targets, instrumented, with a stable compiler
//! campaign   one target for so many seconds
//! output     what libFuzzer says while it runs
//! report     the summary
//! ```

mod build;
mod campaign;
mod output;
mod report;
mod targets;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};

use crate::{
    install::{self, Need, Policy},
    workspace::Workspace,
};
use build::Fuzzer;
use campaign::Outcome;
use targets::Target;

/// Options of `fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which targets; all of them if none is named
    targets: Vec<String>,
    /// How long each target is run
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    seconds: u64,
    /// How many targets run at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Only say which targets there are
    #[arg(long)]
    list: bool,
    /// Run one target with this input alone
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// Builds, runs, and ends with a summary. A finding is a failure.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let all = targets::read(workspace)?;
    if args.list {
        print!("{}", targets::table(&all));
        return Ok(ExitCode::SUCCESS);
    }
    let chosen = targets::choose(all, &args.targets)?;
    install::ensure(Need::Fuzz, Policy::from_flag(args.no_install))?;
    let fuzzer = build::build(workspace)?;
    if let Some(file) = &args.replay {
        let [target] = &chosen[..] else { bail!("--replay needs the name of one target") };
        return fuzzer.replay(target, file);
    }
    let each = Duration::from_secs(args.seconds);
    let outcomes = run_all(workspace, &fuzzer, chosen, each, usize::from(args.jobs))?;
    print!("\n{}", report::render(workspace, &outcomes));
    let clean = outcomes.iter().all(|outcome| outcome.finding.is_none());
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs targets in their order, so many at a time.
fn run_all(
    workspace: &Workspace,
    fuzzer: &Fuzzer,
    targets: Vec<Target>,
    each: Duration,
    jobs: usize,
) -> Result<Vec<Outcome>> {
    let queue = Mutex::new(targets.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> Result<Vec<Outcome>> {
        let targets = std::iter::from_fn(next);
        targets.map(|target| campaign::run(workspace, fuzzer, &target, each)).collect()
    };
    let parts: Vec<Result<Vec<Outcome>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| bail!("a worker has panicked")))
            .collect()
    });
    let mut outcomes: Vec<Outcome> =
        parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    outcomes.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(outcomes)
}
