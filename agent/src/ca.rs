//! `undermesh ca`: a certificate authority on disk, for hosts without a control plane.

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};
use undermesh_identity::{CaDirectory, CaInfo, CaOptions};

#[derive(Subcommand)]
pub(crate) enum CaCommand {
    /// Make a root and an intermediate in a new directory.
    Init(Make),
    /// Show the certificates of a directory; never its keys.
    Show(Show),
    /// Make a directory for another node: an intermediate of its own, without the root's key.
    Intermediate(Intermediate),
    /// Replace root and intermediate; both roots are trusted until `prune`.
    Rotate(Rotate),
    /// Stop trusting every root but the current one.
    Prune(Directory),
}

#[derive(Args)]
pub(crate) struct Directory {
    /// The authority's directory.
    #[arg(long, env = "UNDERMESH_CA_DIR", default_value = "/var/lib/undermesh/ca")]
    dir: PathBuf,
}

#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    directory: Directory,
    /// Print JSON.
    #[arg(short, long, value_parser = ["table", "json"], default_value = "table")]
    output: String,
}

#[derive(Args)]
pub(crate) struct Make {
    #[command(flatten)]
    directory: Directory,
    /// Trust domain that the authority vouches for.
    #[arg(long, env = "UNDERMESH_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Lifetime of the root.
    #[arg(long, default_value = "3650days", value_parser = humantime::parse_duration)]
    root_lifetime: Duration,
    /// Lifetime of the intermediate.
    #[arg(long, default_value = "365days", value_parser = humantime::parse_duration)]
    intermediate_lifetime: Duration,
}

impl Make {
    fn options(&self) -> Result<CaOptions> {
        Ok(CaOptions {
            trust_domain: self.trust_domain.parse()?,
            root_lifetime: self.root_lifetime,
            intermediate_lifetime: self.intermediate_lifetime,
        })
    }
}

#[derive(Args)]
pub(crate) struct Intermediate {
    #[command(flatten)]
    make: Make,
    /// The new directory.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
pub(crate) struct Rotate {
    #[command(flatten)]
    make: Make,
    /// How long to wait, after publishing the new root, until certificates are signed under it.
    /// Agents read the bundle twice a second.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    settle: Duration,
}

impl CaCommand {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Init(args) => {
                let directory = CaDirectory::init(&args.directory.dir, &args.options()?)?;
                print(&directory.describe()?);
                println!(
                    "Point the agents' caDir here; `ca intermediate` makes one for another host."
                );
            }
            Self::Show(args) => {
                let info = CaDirectory::open(&args.directory.dir)?.describe()?;
                if args.output == "json" {
                    println!("{}", serde_json::to_string_pretty(&info)?);
                } else {
                    print(&info);
                }
            }
            Self::Intermediate(args) => {
                let options = args.make.options()?;
                let made =
                    CaDirectory::issue_intermediate(&args.make.directory.dir, &args.out, &options)?;
                print(&made.describe()?);
            }
            Self::Rotate(args) => {
                let settle = || {
                    println!(
                        "The new root is in the bundle; waiting {:?} for agents to read it.",
                        args.settle
                    );
                    thread::sleep(args.settle);
                };
                let options = args.make.options()?;
                let made = CaDirectory::rotate(&args.make.directory.dir, &options, settle)?;
                print(&made.describe()?);
                println!(
                    "Agents renew their certificates now. Run `undermesh ca prune` when `undermesh \
                     status` shows new serial numbers everywhere."
                );
            }
            Self::Prune(args) => {
                let removed = CaDirectory::prune(&args.dir)?;
                println!("{}: removed {removed} roots from the bundle", args.dir.display());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn print(info: &CaInfo) {
    println!("{}", info.path.display());
    println!("  issuer  {}  until {}", info.intermediate.subject, info.intermediate.not_after);
    for root in &info.roots {
        println!("  trusts  {}  until {}", root.subject, root.not_after);
    }
    if info.has_root_key {
        println!(
            "  the root's key is here: keep this directory off the nodes, or take a copy away"
        );
    }
}
