//! `demo`: two nodes with an agent each, real clients and servers, and what a sceptic wants to see.
//!
//! Everything it makes bears the tag `demo`; a guard process removes it even if this one is killed.

mod requests;
mod show;
mod story;

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use undermesh_tests::Footprint;

use crate::{
    build_ebpf::Builder,
    command,
    install::{self, Need, Policy},
    machine::Machine,
    progress::step,
    workspace::Workspace,
};

/// The tag of everything that the demo makes.
const TAG: &str = "demo";

/// Options of `demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave everything up at the end, and print commands to explore it with
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// Take a demo down that was kept
    #[arg(long)]
    down: bool,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

/// Builds, shows, and cleans up.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    if args.down {
        return take_down();
    }
    check_machine()?;
    let policy = Policy::from_flag(args.no_install);
    install::ensure(Need::Demo, policy)?;
    Builder::prepare(workspace, policy)?.build(false)?;
    build_binaries(workspace)?;
    // A demo that was kept, or one whose guard was killed as well.
    step("removing what a former demo has left", || Footprint::of(TAG)?.remove())?;
    story::tell(args.keep)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn check_machine() -> Result<()> {
    let missing = Machine::read().missing_for_bpf();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this loads eBPF programs and makes network namespaces, and cannot do so here: {}",
        missing.join("; ")
    )
}

/// The agent and the tool that runs programs inside pods.
pub(crate) fn build_binaries(workspace: &Workspace) -> Result<()> {
    step("building the agent (some minutes the first time)", || {
        let mut cargo = command::cargo();
        cargo.current_dir(workspace.root()).args(["build", "--quiet", "--workspace", "--bins"]);
        command::run(&mut cargo)
    })
    .context("the agent does not build")?;
    for name in ["undermesh", "undermesh-pod"] {
        beside_us(name)?;
    }
    Ok(())
}

/// A binary of this workspace, in the directory that this program runs from.
fn beside_us(name: &str) -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name(name);
    path.is_file().then_some(path).with_context(|| format!("cargo built no {name}"))
}

fn take_down() -> Result<ExitCode> {
    let footprint = Footprint::of(TAG)?;
    let found = footprint.leftovers();
    footprint.remove()?;
    if found.is_empty() {
        println!("no demo is up");
    } else {
        println!("removed {} things:", found.len());
        for thing in found {
            println!("  {thing}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a program to its end and gives its output and whether it succeeded.
fn output(command: &mut Command) -> Result<(bool, String)> {
    let shown = command::display(command);
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), text))
}
