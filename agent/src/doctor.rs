//! `undermesh doctor`: what of this node, its kernel and its configuration keeps the mesh from
//! working, or will. Looks, and changes nothing; runs before anything is installed (`--preflight`)
//! and beside a running agent.
//!
//! A check is a function from the situation to findings. What a finding is called, how bad it is,
//! what follows from it and what to do stands in the catalogue, and in `docs/reference/doctor.md`.

mod agent;
mod capabilities;
mod catalogue;
mod certificates;
mod cgroups;
mod clock;
mod cni;
mod dns;
mod finding;
mod kernel;
mod manifests;
mod pins;
mod pods;
mod ports;
mod programs;
mod report;
mod runner;
mod settings;
mod situation;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::config::{Outline, RawConfig};
use finding::Check;
use report::Report;
use situation::Situation;

/// Every check, in the order in which they are shown.
const CHECKS: [Check; 15] = [
    Check { name: "settings", run: settings::check },
    Check { name: "kernel", run: kernel::check },
    Check { name: "capabilities", run: capabilities::check },
    Check { name: "cgroups", run: cgroups::check },
    Check { name: "bpffs", run: pins::check_file_system },
    Check { name: "pins", run: pins::check_pins },
    Check { name: "programs", run: programs::check },
    Check { name: "cni", run: cni::check },
    Check { name: "clock", run: clock::check },
    Check { name: "dns", run: dns::check },
    Check { name: "ports", run: ports::check },
    Check { name: "certificates", run: certificates::check },
    Check { name: "agent", run: agent::check },
    Check { name: "manifests", run: manifests::check },
    Check { name: "pods", run: pods::check },
];

/// Arguments of `undermesh doctor`.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Look at a node on which nothing of Undermesh runs yet.
    #[arg(long)]
    preflight: bool,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The agent's configuration file; the settings below mean what they mean to the agent.
    #[arg(long, env = "UNDERMESH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Box<RawConfig>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; stable field names.
    Json,
}

/// What a running agent's node is like, as JSON, and the settings that were looked at.
///
/// # Errors
/// Where the settings cannot be read at all.
pub(crate) fn report(file: Option<&Path>, settings: RawConfig) -> Result<(Outline, String)> {
    let situation = Arc::new(Situation::find(false, file, settings)?);
    let rows = runner::run(&CHECKS, &situation);
    let report = Report::new(&situation, rows);
    Ok((situation.outline.clone(), serde_json::to_string_pretty(&report)?))
}

/// Exit code 0: nothing worse than notes; 1: warnings; 2: errors.
pub(crate) fn run(args: DoctorArgs) -> Result<ExitCode> {
    let situation = Situation::find(args.preflight, args.config.as_deref(), *args.settings)?;
    let situation = Arc::new(situation);
    let rows = runner::run(&CHECKS, &situation);
    let report = Report::new(&situation, rows);
    match args.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(report.exit_code())
}
