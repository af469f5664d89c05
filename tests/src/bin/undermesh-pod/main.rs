//! `undermesh-pod`: runs inside a pod of a rig.
//!
//! ```text
//! undermesh-pod --netns PATH --cgroup PATH [drive]          commands as JSON lines on stdin
//! undermesh-pod --netns PATH --cgroup PATH exec -- CMD ...  any program, inside the pod
//! undermesh-pod --netns PATH --cgroup PATH first TO MARK    connects at once, until it works
//! undermesh-pod guard --tag TAG                             removes a rig when stdin ends
//! ```

mod ask;
mod burst;
mod driver;
mod first;
mod http;
mod load;
mod serve;
mod sockets;

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{self, Command},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use undermesh_tests::{enter_netns, watch_owner};

/// Runs inside a pod of a rig of network namespaces.
#[derive(Parser)]
struct Cli {
    /// The pod's network namespace, /run/netns/NAME for example.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// The pod's cgroup, which is made where it is missing.
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Take commands as JSON lines from standard input (the default).
    Drive,
    /// Become another program, inside the pod.
    Exec {
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Connect as the first thing, try again while that fails, and exchange a text.
    First {
        /// With whom.
        to: SocketAddr,
        /// What to say.
        mark: String,
    },
    /// Remove what bears a tag when standard input ends.
    Guard {
        /// The rig's tag.
        #[arg(long)]
        tag: String,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    // Before any socket and any thread exists: sockets belong to where they were opened.
    if let Some(cgroup) = &cli.cgroup {
        fs::create_dir_all(cgroup)
            .and_then(|()| fs::write(cgroup.join("cgroup.procs"), process::id().to_string()))
            .with_context(|| format!("cannot enter cgroup {}", cgroup.display()))?;
    }
    if let Some(netns) = &cli.netns {
        enter_netns(netns)?;
    }
    match cli.action.unwrap_or(Action::Drive) {
        Action::Drive => driver::run(),
        Action::Exec { command } => become_program(&command),
        Action::First { to, mark } => first::run(to, &mark),
        Action::Guard { tag } => watch_owner(&tag),
    }
}

/// Returns only where it fails.
fn become_program(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program is named")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
