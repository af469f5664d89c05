//! `undermesh analyze`: what is wrong with configuration, in files before it is applied or in the state that
//! an agent has. The very code of the agent reads and compiles it; some checks are made only here.

mod found;
mod report;
mod rules;
mod sarif;
mod suppress;

use std::{
    collections::BTreeSet,
    io::{Read as _, stdin},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use undermesh_control::{Analysis, Input, analyze};
use undermesh_model::{Severity, TrustDomain};
use undermesh_snapshot::{Options, lint};

use crate::{cli::DEFAULT_ADMIN, client};
pub(crate) use found::Found;
use report::Report;
use suppress::Suppression;

/// The largest text that is read from standard input, in bytes.
const MAX_TEXT: u64 = 64 << 20;
/// What a manifest on standard input is called.
const STDIN: &str = "stdin";

#[derive(Args)]
pub(crate) struct AnalyzeArgs {
    /// Manifests: files, directories with `*.yaml`, `*.yml` and `*.json` below them, or `-` for standard input.
    /// They are read together, as if they were all that the cluster has.
    #[arg(value_name = "PATH", required_unless_present = "live")]
    paths: Vec<PathBuf>,
    /// What the agent of this node has found in its configuration, in place of files.
    #[arg(long, conflicts_with = "paths")]
    live: bool,
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// Leave out a code, everywhere or about some objects: `unknown-field`,
    /// `unknown-field=DestinationRule shop/cart`, `selects-nothing=* shop/*`. May be given several times.
    #[arg(long = "suppress", value_name = "CODE[=KIND NAMESPACE/NAME]")]
    suppressions: Vec<Suppression>,
    /// The least severity at which the exit code is 1.
    #[arg(long, value_enum, default_value_t = FailOn::Error)]
    fail_on: FailOn,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// The namespace whose policies are about the whole mesh, as the agent's setting `rootNamespace` has it.
    #[arg(long, env = "UNDERMESH_ROOT_NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// The trust domain, as the agent's setting `trustDomain` has it.
    #[arg(long, env = "UNDERMESH_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; stable field names.
    Json,
    /// SARIF 2.1.0, for the code views of forges and editors.
    Sarif,
}

#[derive(Clone, Copy, ValueEnum)]
enum FailOn {
    /// Everything that is found.
    Info,
    Warning,
    Error,
    /// Nothing.
    Never,
}

impl FailOn {
    fn is_reached(self, severity: Severity) -> bool {
        match self {
            Self::Info => true,
            Self::Warning => severity >= Severity::Warning,
            Self::Error => severity >= Severity::Error,
            Self::Never => false,
        }
    }
}

/// Exit code 0: nothing as bad as `--fail-on` says; 1: something. What cannot be looked at at all is an
/// error, and ends with 2.
pub(crate) fn run(args: &AnalyzeArgs) -> Result<ExitCode> {
    look(args).or_else(|error| {
        eprintln!("error: {error:#}");
        Ok(ExitCode::from(2))
    })
}

fn look(args: &AnalyzeArgs) -> Result<ExitCode> {
    let (scope, findings) = if args.live { live(args)? } else { files(args)? };
    let mut used = BTreeSet::new();
    let before = findings.len();
    let kept: Vec<Found> = findings
        .into_iter()
        .filter(|finding| {
            let by = args.suppressions.iter().position(|one| one.is_about(finding));
            used.extend(by);
            by.is_none()
        })
        .collect();
    for (index, unused) in args.suppressions.iter().enumerate() {
        if !used.contains(&index) {
            eprintln!("note: --suppress {:?} leaves nothing out", unused.text);
        }
    }
    let failed = kept.iter().any(|finding| args.fail_on.is_reached(finding.severity));
    let report = Report { scope, suppressed: before - kept.len(), findings: kept };
    match args.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Sarif => println!("{}", serde_json::to_string_pretty(&sarif::log(&report))?),
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// What is found in files, and a word about what was read.
fn files(args: &AnalyzeArgs) -> Result<(String, Vec<Found>)> {
    let mut text = String::new();
    if args.paths.iter().any(|path| path == Path::new("-")) {
        let read = stdin().take(MAX_TEXT + 1).read_to_string(&mut text);
        read.context("standard input cannot be read as text")?;
        ensure!(
            text.len() as u64 <= MAX_TEXT,
            "standard input has more than {} MiB; write it into several files",
            MAX_TEXT >> 20
        );
    }
    let inputs: Vec<Input<'_>> = args
        .paths
        .iter()
        .map(|path| match path.to_str() {
            Some("-") => Input::Text(Path::new(STDIN), &text),
            _ => Input::Path(path),
        })
        .collect();
    let mut analysis = analyze(&inputs);
    ensure!(
        analysis.files > 0 || !analysis.diagnostics.is_empty(),
        "there is no manifest (*.yaml, *.yml, *.json) in {}",
        args.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    );
    compiled(&mut analysis, args);
    let scope = format!("{} objects in {} files", analysis.objects(), analysis.files);
    let findings = analysis.into_diagnostics();
    Ok((scope, findings.iter().map(Found::from).collect()))
}

/// Adds what the compiler says.
fn compiled(analysis: &mut Analysis, args: &AnalyzeArgs) {
    let options = Options {
        trust_domain: args.trust_domain.clone(),
        root_namespace: args.root_namespace.clone(),
        ..Options::default()
    };
    let found = lint::findings(&analysis.cluster, &options);
    analysis.add(found);
}

/// What the agent has found.
fn live(args: &AnalyzeArgs) -> Result<(String, Vec<Found>)> {
    let json = client::get(args.admin, "/findings")?;
    let findings = serde_json::from_str(&json)
        .with_context(|| format!("the agent at {} answers something else", args.admin))?;
    Ok((format!("the configuration of the agent at {}", args.admin), findings))
}

#[cfg(test)]
mod tests;
