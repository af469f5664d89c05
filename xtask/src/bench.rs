//! `bench`: the same work with and without the mesh, interleaved in one run, as ratios.
//!
//! Every round measures both sides, in alternating order; what is reported is the median of the
//! rounds' ratios and their spread. Absolute figures are those of this machine at this hour.

mod http;
mod load;
mod scale;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::{
    build_ebpf::Builder,
    demo,
    install::{self, Need, Policy},
    progress::step,
    workspace::Workspace,
};

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which to run [default: all]
    names: Vec<Name>,
    /// Rounds, each of which measures both sides
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Writes the results as JSON to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// A benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Name {
    /// Two pods of one node, against no mesh
    Local,
    /// A destination outside the mesh, from an enrolled pod, against one that is not enrolled
    Passthrough,
    /// Ten thousand pods and five thousand policies: time to apply them, and a single change
    Scale,
}

/// One figure of a benchmark.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    bench: &'static str,
    what: String,
    /// As text, with unit.
    value: String,
}

/// Builds, measures, and prints a table.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    demo::check_machine()?;
    let policy = Policy::from_flag(args.no_install);
    install::ensure(Need::Bench, policy)?;
    Builder::prepare(workspace, policy)?.build(false)?;
    demo::build_binaries(workspace)?;
    let wanted = |name| args.names.is_empty() || args.names.contains(&name);
    let plan = http::Plan { rounds: args.rounds, seconds: args.seconds };
    let mut figures = Vec::new();
    if wanted(Name::Local) {
        figures.extend(step("two pods of one node", || http::local(plan))?);
    }
    if wanted(Name::Passthrough) {
        figures.extend(step("a destination outside the mesh", || http::passthrough(plan))?);
    }
    if wanted(Name::Scale) {
        figures.extend(step("ten thousand pods and five thousand policies", scale::run)?);
    }
    print(&figures);
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(figures: &[Figure]) {
    let mut by_bench: BTreeMap<&str, Vec<&Figure>> = BTreeMap::new();
    for figure in figures {
        by_bench.entry(figure.bench).or_default().push(figure);
    }
    let width = figures.iter().map(|figure| figure.what.len()).max().unwrap_or(0);
    for (bench, figures) in by_bench {
        println!("\n{bench}");
        for Figure { what, value, .. } in figures {
            println!("  {what:width$}  {value}");
        }
    }
}
