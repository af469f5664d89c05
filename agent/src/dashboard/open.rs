//! `undermesh dashboard`: says where the dashboard is, once it is known to be there.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use super::PATH;
use crate::{cli::DEFAULT_ADMIN, client};

#[derive(Args)]
pub(crate) struct DashboardArgs {
    /// Admin address of the agent, or the controller's `dashboardAddress`.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
}

/// Prints the address.
pub(crate) fn run(args: &DashboardArgs) -> Result<ExitCode> {
    client::get(args.admin, PATH).context("there is no dashboard")?;
    println!("http://{}{PATH}", args.admin);
    Ok(ExitCode::SUCCESS)
}
