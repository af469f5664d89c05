//! The command line.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use undermesh_datapath::ProgramCost;

use crate::{
    agent, analyze, bugreport, ca, client, cluster, config::RawConfig, controller, crds, dashboard,
    doctor, dump, explain, flows, logging, status, top, trace,
};

/// Address of the admin interface where nothing else is said.
pub(crate) const DEFAULT_ADMIN: &str = "127.0.0.1:15000";
/// Pin directory where nothing else is said.
pub(crate) const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/undermesh";

/// Undermesh, a service mesh without sidecars.
#[derive(Parser)]
#[command(version, about, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent of this node.
    Agent(AgentArgs),
    /// Run the control plane: certificates for agents. Several replicas may run; one of them writes into
    /// the cluster.
    Controller(controller::ControllerArgs),
    /// Show what the agent of this node does: pods, certificates, programs, maps, warnings.
    Status(StatusArgs),
    /// Show connections and refusals as they happen, with the reason of each.
    Flows(Box<flows::FlowsArgs>),
    /// Say where the dashboard of the agent of this node, or of a controller, is; or lead to one of a cluster.
    Dashboard(dashboard::DashboardArgs),
    /// Show services, who calls whom, and pods, with rates, success and latency, live.
    Top(top::TopArgs),
    /// Say what is wrong with configuration: in manifests, before they are applied, or in what the agent of
    /// this node has.
    Analyze(analyze::AnalyzeArgs),
    /// Say what would become of a connection or a request, and why: every rule that decides, and those that
    /// lose.
    Explain(explain::ExplainArgs),
    /// Follow one real connection of a pod, step by step: the next one, or one that is made for it.
    Trace(trace::TraceArgs),
    /// Connect from inside a pod, for the agent.
    #[command(hide = true)]
    Probe(trace::ProbeArgs),
    /// Print what the agent of this node works with: maps, snapshot, certificates, pools.
    Dump(dump::DumpArgs),
    /// Collect in one archive what somebody needs who is to find out what is wrong; without secrets.
    Bugreport(bugreport::BugreportArgs),
    /// Show or change, while they run, what the agent of this node or the controllers log.
    Log(logging::LogArgs),
    /// Look for what keeps the mesh from working on this node, before or after installation.
    Doctor(doctor::DoctorArgs),
    /// Make and look after a certificate authority on disk.
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Print the definitions of the mesh's own kinds, for an API server.
    Crds(crds::CrdsArgs),
    /// Look at a cluster through its API server: whether the mesh can be installed there, or does its work.
    Check(cluster::CheckArgs),
    /// Put the mesh into a cluster, and wait until it works.
    Install(cluster::InstallArgs),
    /// Put another version into a cluster where it is installed.
    Upgrade(cluster::UpgradeArgs),
    /// Take the mesh out of a cluster, and what it has left on nodes.
    Uninstall(cluster::UninstallArgs),
    /// Detach every program and remove every map that an agent has left behind.
    Cleanup(CleanupArgs),
    /// Load every program for a moment, attached to nothing, and say what the kernel's verifier
    /// makes of it.
    #[command(hide = true)]
    Verify(VerifyArgs),
}

#[derive(Args)]
struct AgentArgs {
    /// YAML file with any of the settings below, in camelCase (`pinDir`). A flag beats its
    /// environment variable, and that beats the file.
    #[arg(long, env = "UNDERMESH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Box<RawConfig>,
}

#[derive(Args)]
struct StatusArgs {
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Ask the agents of all nodes of a cluster, through its API server.
    #[arg(long)]
    all_nodes: bool,
    #[command(flatten)]
    cluster: cluster::ClusterArgs,
}

#[derive(Args)]
struct CleanupArgs {
    /// The agent's pin directory.
    #[arg(long, env = "UNDERMESH_PIN_DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
    /// Clean up although an agent answers at the admin address.
    #[arg(long)]
    force: bool,
    /// Then wait to be stopped, as pods of a DaemonSet do.
    #[arg(long)]
    stay: bool,
    /// Admin address at which to look for a running agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
}

#[derive(Args)]
struct VerifyArgs {
    /// A pin directory; maps are pinned beside it for as long as it takes.
    #[arg(long, env = "UNDERMESH_PIN_DIR", default_value = DEFAULT_PIN_DIR)]
    pin_dir: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs; stable field names.
    Json,
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Agent(args) => agent::run(args.config.as_deref(), *args.settings),
            Command::Controller(args) => args.run(),
            Command::Status(args) => show_status(&args),
            Command::Flows(args) => flows::run(&args),
            Command::Dashboard(args) => dashboard::run(&args),
            Command::Top(args) => top::run(&args),
            Command::Analyze(args) => analyze::run(&args),
            Command::Explain(args) => explain::run(&args),
            Command::Trace(args) => trace::run(&args),
            Command::Probe(args) => trace::probe(&args),
            Command::Dump(args) => dump::run(&args),
            Command::Bugreport(args) => bugreport::run(args),
            Command::Log(args) => logging::run(&args),
            Command::Doctor(args) => doctor::run(args),
            Command::Ca(command) => command.run(),
            Command::Crds(args) => crds::run(&args),
            Command::Check(args) => cluster::check(&args),
            Command::Install(args) => args.run(),
            Command::Upgrade(args) => args.run(),
            Command::Uninstall(args) => args.run(),
            Command::Cleanup(args) => cleanup(&args),
            Command::Verify(args) => verify(&args),
        }
    }
}

/// Exit code 0: ready; 1: the agent says that it is not.
fn show_status(args: &StatusArgs) -> Result<ExitCode> {
    if args.all_nodes {
        return cluster::status(&args.cluster, matches!(args.output, Output::Json));
    }
    let json = client::get(args.admin, "/status")?;
    let status: status::Status = serde_json::from_str(&json)?;
    match args.output {
        Output::Json => println!("{json}"),
        Output::Table => print!("{status}"),
    }
    Ok(if status.agent.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cleanup(args: &CleanupArgs) -> Result<ExitCode> {
    anyhow::ensure!(
        args.force || client::get(args.admin, "/status").is_err(),
        "an agent answers at {}; stop it first, or pass --force to take the programs from under it",
        args.admin
    );
    let report = undermesh_datapath::cleanup(&args.pin_dir)?;
    if report.links + report.maps + report.routes == 0 {
        println!("{}: nothing to remove", args.pin_dir.display());
    } else {
        println!(
            "{}: removed {} links (their programs are detached), {} maps, and the routes of {} pods",
            args.pin_dir.display(),
            report.links,
            report.maps,
            report.routes
        );
    }
    if args.stay {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(agent::wait_for_signal())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Exit code 0: the kernel takes every program; 1: it refuses one.
fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let programs = undermesh_datapath::verify(&args.pin_dir)?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string(&programs)?),
        Output::Table => print!("{}", verifier_table(&programs)),
    }
    let refused = programs.iter().any(|program| program.refused.is_some());
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn verifier_table(programs: &[ProgramCost]) -> String {
    let mut table = format!(
        "{:<24} {:<20} {:>12} {:>11} {:>9} {:>12} {:>11}\n",
        "PROGRAM",
        "HOOK",
        "INSTRUCTIONS",
        "JITED BYTES",
        "PROCESSED",
        "TOTAL STATES",
        "PEAK STATES"
    );
    for it in programs {
        let ProgramCost { name, hook, instructions, jited_bytes, processed, .. } = it;
        let (total, peak) = (it.total_states, it.peak_states);
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "{name:<24} {hook:<20} {instructions:>12} {jited_bytes:>11} {processed:>9} {total:>12} {peak:>11}"
        );
        if let Some(reason) = &it.refused {
            let _ = writeln!(table, "  refused: {reason}");
        }
    }
    table
}
