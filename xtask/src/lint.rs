//! `lint`: taste and architecture, checked by a program. Formatting and clippy are cargo's; the
//! checks in `lint/` are ours, each a pure function from texts to findings.

mod cargo_tools;
mod features;
mod layout;
mod links;
mod metrics;
mod names;
mod rows;
mod sources;
pub(crate) mod tree;
mod walls;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;

use crate::{
    chart, codegen,
    install::{self, Need, Policy},
    workspace::Workspace,
};

/// Options of `lint`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The checks to make [default: all but `deny`]
    #[arg(value_enum)]
    checks: Vec<Check>,
    /// Also check licences, bans, sources and advisories of dependencies; installs cargo-deny if
    /// it is missing, which takes minutes
    #[arg(long)]
    deny: bool,
}

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// Only allowed entries at the top of the repository
    Layout,
    /// Crates depend on what the architecture lets them
    Walls,
    /// Nothing is built a second time for tests
    Features,
    /// Every file has a head, is short enough and is finished
    Sources,
    /// Relative links in documents lead somewhere
    Links,
    /// Names that users rely on are in docs/reference
    Names,
    /// Metrics are declared, and their tables in docs/reference are made of that
    Metrics,
    /// Tests that tables in docs/reference name exist
    Rows,
    /// The manifest in deploy/kubernetes is of the chart in deploy/helm
    Chart,
    /// Types are those of the protobuf files
    Codegen,
    /// rustfmt
    Fmt,
    /// clippy, warnings are errors
    Clippy,
    /// cargo-deny
    Deny,
}

/// Cheap ones first, so that a small mistake is seen before the compiler starts.
const DEFAULT: [Check; 12] = [
    Check::Layout,
    Check::Walls,
    Check::Features,
    Check::Sources,
    Check::Links,
    Check::Names,
    Check::Metrics,
    Check::Rows,
    Check::Chart,
    Check::Codegen,
    Check::Fmt,
    Check::Clippy,
];

/// Something that a check has to say about a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: PathBuf,
    /// From 1; `None` speaks of the whole file.
    line: Option<usize>,
    message: String,
    /// A warning is shown and does not fail the run.
    warning: bool,
}

impl Finding {
    fn error(path: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), line, message: message.into(), warning: false }
    }

    fn warning(path: &Path, message: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(path, None, message) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.warning {
            write!(f, "warning: ")?;
        }
        write!(f, "{}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Makes the chosen checks, all of them even if one fails, and says which failed.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let mut checks = args.checks.clone();
    if checks.is_empty() {
        checks.extend(DEFAULT);
    }
    if args.deny && !checks.contains(&Check::Deny) {
        checks.push(Check::Deny);
    }
    let mut failed = Vec::new();
    for check in checks {
        let findings = check.findings(workspace)?;
        for finding in &findings {
            println!("{finding}");
        }
        let errors = findings.iter().filter(|finding| !finding.warning).count();
        let name = format!("{check:?}").to_lowercase();
        if errors == 0 {
            println!("ok      {name}");
        } else {
            println!("failed  {name}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("lint failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// That the chart makes what Kubernetes reads, `cargo xtask chart --check` and tests of `undermesh-control` show.
fn manifest(workspace: &Workspace) -> Result<Vec<Finding>> {
    let path = workspace.manifest();
    let message = "is not what the chart makes: run `cargo xtask chart`";
    let stale = !chart::is_fresh(workspace)?;
    Ok(stale
        .then(|| Finding::error(workspace.relative(&path), None, message))
        .into_iter()
        .collect())
}

/// That types are what comes of the protobuf files.
fn types(workspace: &Workspace) -> Result<Vec<Finding>> {
    let message = "is not what comes of agent/control/proto: run `cargo xtask codegen`";
    let stale = codegen::stale(workspace)?;
    Ok(stale.iter().map(|path| Finding::error(path, None, message)).collect())
}

impl Check {
    fn findings(self, workspace: &Workspace) -> Result<Vec<Finding>> {
        match self {
            Self::Layout => layout::check(workspace),
            Self::Walls => walls::check(workspace),
            Self::Features => features::check(workspace),
            Self::Sources => sources::check(workspace),
            Self::Links => links::check(workspace),
            Self::Names => names::check(workspace),
            Self::Metrics => metrics::check(workspace),
            Self::Rows => rows::check(workspace),
            Self::Chart => manifest(workspace),
            Self::Codegen => types(workspace),
            Self::Fmt => cargo_tools::fmt(workspace),
            Self::Clippy => {
                // Nobody is there to be told.
                let unattended = env::var_os("CI").is_some_and(|value| value == "true");
                install::ensure(Need::Agent, Policy::from_flag(!unattended))?;
                cargo_tools::clippy(workspace)
            }
            Self::Deny => cargo_tools::deny(workspace),
        }
    }
}
