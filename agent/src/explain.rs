//! `undermesh explain`: what would become of a connection or a request, and why. The data path's own decisions are asked,
//! on the configuration that an agent has in force, or on manifests.
//!
//! `ends` finds who is meant, `walk` follows the way from the client (`kernel`: the programs' decisions; `trail`: its steps),
//! `routes` through the proxy (`destination`: whom a rule chooses), `arrive` to its end (`judge`: requests); `answer` sums up,
//! `report` is what is said, `text` how.

mod answer;
mod arrive;
mod destination;
mod ends;
mod judge;
pub(crate) mod kernel;
mod mesh;
mod near;
pub(crate) mod question;
pub(crate) mod report;
mod routes;
mod text;
mod trail;
mod walk;

use std::{
    cell::RefCell, collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use hyper::StatusCode;
use undermesh_control::{Input, analyze};
use undermesh_model::{Generation, TrustDomain};
use undermesh_proxy::explain::Present;
use undermesh_snapshot::{Options, lint};

use crate::{
    admin::Answer,
    analyze::Found,
    cli::DEFAULT_ADMIN,
    client,
    config::{Mtls, OutboundTrafficPolicy, SameNodeValue},
};
pub(crate) use mesh::Mesh;
use question::{Question, RequestLine};
use report::{Explanation, Verdict};
use walk::Walk;

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// Who dials: NAMESPACE/POD, the address of a pod, or a NAMESPACE if it is the same for all of its pods.
    #[arg(value_name = "SOURCE")]
    source: String,
    /// What is dialled: a host name, NAMESPACE/SERVICE, NAMESPACE/POD, or an address; with `:PORT` unless there is only
    /// one.
    #[arg(value_name = "DESTINATION[:PORT]")]
    destination: String,
    /// Method of a request.
    #[arg(value_name = "METHOD", requires = "path")]
    method: Option<String>,
    /// Path and query of the request.
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// A header of the request, `name: value`; may be given several times. `host` is the destination's where it is not
    /// given.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Manifests, files or directories, in place of what the agent of this node has in force. Several are read
    /// together.
    #[arg(long, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// With --files: the agents' setting `rootNamespace`.
    #[arg(long, env = "UNDERMESH_ROOT_NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// With --files: the agents' setting `trustDomain`.
    #[arg(long, env = "UNDERMESH_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// With --files: the agents' setting `mtls`.
    #[arg(long, env = "UNDERMESH_MTLS", value_enum, ignore_case = true, default_value_t = Mtls::Permissive)]
    mtls: Mtls,
    /// With --files: the agents' setting `sameNode`.
    #[arg(long, env = "UNDERMESH_SAME_NODE", value_enum, default_value_t = SameNodeValue::Direct)]
    same_node: SameNodeValue,
    /// With --files: the agents' setting `outboundTrafficPolicy`.
    #[arg(long, env = "UNDERMESH_OUTBOUND_TRAFFIC_POLICY", value_enum, ignore_case = true, default_value_t = OutboundTrafficPolicy::AllowAny)]
    outbound_traffic_policy: OutboundTrafficPolicy,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs; stable field names.
    Json,
}

/// Exit code 0: it would be carried; 1: it would be refused; 2: it cannot be told, or nobody knows who is meant.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    look(args).or_else(|error| {
        eprintln!("error: {error:#}");
        Ok(ExitCode::from(2))
    })
}

fn look(args: &ExplainArgs) -> Result<ExitCode> {
    let request = RequestLine::new(args.method.clone(), args.path.clone(), args.headers.clone())?;
    let (source, destination) = (args.source.clone(), args.destination.clone());
    let question = Question { source, destination, request };
    let explanation = if args.files.is_empty() {
        let json = client::get(args.admin, &format!("/explain?{}", question.query()))?;
        serde_json::from_str(&json)
            .with_context(|| format!("the agent at {} answers something else", args.admin))?
    } else {
        answer(&of_files(args)?, &question)?
    };
    match args.output {
        Output::Text => print!("{explanation}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&explanation)?),
    }
    Ok(ExitCode::from(match explanation.verdict {
        Verdict::Carried => 0,
        Verdict::Refused => 1,
        Verdict::Depends => 2,
    }))
}

/// What manifests say, as agents would read them.
fn of_files(args: &ExplainArgs) -> Result<Mesh> {
    let inputs: Vec<Input<'_>> = args.files.iter().map(|path| Input::Path(path)).collect();
    let mut analysis = analyze(&inputs);
    ensure!(
        analysis.files > 0,
        "there is no manifest (*.yaml, *.yml, *.json) in {}",
        args.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    );
    let options = Options {
        trust_domain: args.trust_domain.clone(),
        root_namespace: args.root_namespace.clone(),
        mtls: args.mtls.into(),
        same_node: args.same_node.into(),
        outbound_policy: args.outbound_traffic_policy.into(),
        ..Options::default()
    };
    let cluster = Arc::new(analysis.cluster.clone());
    let found = lint::findings(&cluster, &options);
    analysis.add(found);
    let findings = analysis.into_diagnostics().iter().map(Found::from).collect::<Vec<_>>();
    Ok(Mesh {
        cluster,
        options,
        generation: Generation::default(),
        own: None,
        partial: false,
        pods: Vec::new(),
        present: Present::default(),
        findings: said(&findings),
        compiled: RefCell::new(BTreeMap::new()),
    })
}

/// Findings by their objects.
pub(crate) fn said(findings: &[Found]) -> Vec<(String, String)> {
    let said = |found: &Found| {
        let text = format!("{} [{}]", found.message, found.code);
        (found.object(), text)
    };
    findings.iter().map(said).collect()
}

/// The page: an explanation as JSON, or 400 and what cannot be understood.
pub(crate) fn page(mesh: Option<Mesh>, query: &str) -> Answer {
    let Some(mesh) = mesh else {
        let text = "no configuration is in force yet\n";
        return Answer::text(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    match Question::parse(query).and_then(|question| answer(&mesh, &question)) {
        Ok(explanation) => Answer::pretty(&explanation),
        Err(error) => Answer::text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    }
}

/// What a name stands for to a pod: the address that it dials, and the name that its requests have.
pub(crate) fn dialled(mesh: &Mesh, pod: &str, to: &str) -> Result<(SocketAddr, String)> {
    let sources = ends::sources(mesh, pod)?;
    let source = sources.first().context("nobody dials")?;
    let dialled = ends::dialled(mesh, to, source)?;
    Ok((dialled.address, dialled.host))
}

/// What would become of a connection of a pod, or of a request with this method and path.
pub(crate) fn explained(
    mesh: &Mesh,
    pod: &str,
    to: &str,
    request: Option<(String, String)>,
) -> Result<Explanation> {
    let (method, path) = request.unzip();
    let request = RequestLine::new(method, path, Vec::new())?;
    let (source, destination) = (pod.to_owned(), to.to_owned());
    answer(mesh, &Question { source, destination, request })
}

/// Answers a question. Of a namespace, all of its pods have to get the same answer.
fn answer(mesh: &Mesh, question: &Question) -> Result<Explanation> {
    let sources = ends::sources(mesh, &question.source)?;
    let mut answers: Vec<(String, Explanation)> = Vec::new();
    for source in &sources {
        let dialled = ends::dialled(mesh, &question.destination, source)?;
        let walk = Walk::new(mesh, source, &dialled);
        let explanation = walk.explain(question.request.as_ref())?;
        let like = |(_, known): &(String, Explanation)| {
            (known.verdict, &known.reason) == (explanation.verdict, &explanation.reason)
        };
        if !answers.iter().any(like) {
            answers.push((source.name.to_string(), explanation));
        }
    }
    if answers.len() > 1 {
        let each = answers
            .iter()
            .map(|(pod, one)| format!("{pod} is {} ({})", one.verdict.as_str(), one.reason))
            .collect::<Vec<_>>();
        bail!("pods of {} get different answers, say which: {}", question.source, each.join(", "));
    }
    let (_, mut explanation) = answers.pop().context("nobody dials")?;
    if sources.len() > 1 {
        let rest = sources.len() - 1;
        explanation
            .assumptions
            .push(format!("{rest} other pods of the namespace get the same answer"));
    }
    Ok(explanation)
}

#[cfg(test)]
mod tests;
