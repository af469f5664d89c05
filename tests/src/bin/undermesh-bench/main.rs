//! `undermesh-bench`: what benchmarks need and no well-known tool does.
//!
//! ```text
//! undermesh-bench relay LISTEN=TO ...   hands bytes on, and does nothing else: the floor of all proxies
//! undermesh-bench hold TO COUNT         opens connections, asks once on each, and keeps them
//! ```

mod hold;
mod relay;

use std::net::SocketAddr;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Parts of benchmarks.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Hand on what arrives at one address to another.
    Relay {
        /// Pairs of addresses.
        #[arg(required = true, value_parser = relay::pair)]
        pairs: Vec<relay::Pair>,
    },
    /// Open connections, make a request on each, say so, and keep them until standard input ends.
    Hold {
        /// The server.
        to: SocketAddr,
        /// How many.
        count: usize,
        /// A header of the requests.
        #[arg(long, default_value = "x-nothing: 1")]
        header: String,
    },
}

fn main() -> Result<()> {
    match Cli::parse().action {
        Action::Relay { pairs } => relay::run(&pairs),
        Action::Hold { to, count, header } => hold::run(to, count, &header),
    }
}
