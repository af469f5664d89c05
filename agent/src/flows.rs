//! Flow records: the admin page `/flows`, and the command that asks for it. Both ends of the
//! question are here, so that they cannot drift apart.

mod filter;
mod merge;
mod nodes;
mod print;

use std::{
    io::{ErrorKind, Write as _, stdout},
    process::ExitCode,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use hyper::StatusCode;
use serde_json::{Value, json};
use undermesh_telemetry::Flows;

use crate::{
    admin::Answer,
    agent, client,
    cluster::{AdminArgs, MeshArgs},
    query::Escaped,
};
use filter::Query;

/// How often a follower asks.
const EVERY: Duration = Duration::from_millis(250);
/// How long a follower goes on asking an agent that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Of the agents of all nodes of a cluster, through its API server.
    #[arg(long, conflicts_with = "node")]
    all_nodes: bool,
    /// Of the agent of this node of a cluster, through its API server; may be given several times.
    #[arg(long, value_name = "NAME")]
    node: Vec<String>,
    /// Go on with what happens from now on.
    #[arg(short, long)]
    follow: bool,
    /// Only the newest N of the records that are kept.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Only connections of this pod, at either end. This and all that follow may be given several times: one of
    /// each name has to hold.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Vec<String>,
    /// Only connections of this namespace, at either end.
    #[arg(long)]
    namespace: Vec<String>,
    /// Only what was meant for this service: `cart`, `cart.shop`, or its whole name.
    #[arg(long)]
    service: Vec<String>,
    /// Only what has this identity at either end: `spiffe://...`, or `NAMESPACE/SERVICEACCOUNT`.
    #[arg(long)]
    identity: Vec<String>,
    /// Only what is seen from the client's side, `source`, or from the server's, `destination`.
    #[arg(long)]
    reporter: Vec<String>,
    /// Only what went so: `native`, `hbone`, `plain`, or `local` (by the kernel, within the node).
    #[arg(long)]
    transport: Vec<String>,
    /// Only what was `allowed`, or what was `denied`.
    #[arg(long)]
    verdict: Vec<String>,
    /// Only connections to this port, as dialled or as led to.
    #[arg(long)]
    port: Vec<u16>,
    /// Only requests that were answered with this status, `404` or `5xx`.
    #[arg(long)]
    status: Vec<String>,
    /// Only requests with this method.
    #[arg(long)]
    method: Vec<String>,
    /// Only requests whose path begins so.
    #[arg(long)]
    path: Vec<String>,
    /// Only records with this reason.
    #[arg(long)]
    reason: Vec<String>,
    /// Not what any of the filters above would show, as `namespace=kube-system`.
    #[arg(long, value_name = "FILTER=VALUE")]
    not: Vec<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    cluster: MeshArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// One line per record, for people.
    Text,
    /// The same, shorter.
    Compact,
    /// One JSON object per line; stable field names.
    Json,
}

/// The page: records as NDJSON, then, where it was asked for, what was lost and where to go on. Of what the
/// programs in the kernel could not report, `kernel_lost` knows how often that was.
pub(crate) fn page(flows: &Flows, query: &str, kernel_lost: impl FnOnce() -> u64) -> Answer {
    if !flows.is_on() {
        let text = "no flow records are kept; set flowBuffer to more than 0\n";
        return Answer::text(StatusCode::NOT_FOUND, text);
    }
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(error) => return Answer::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let found = flows.after(query.after);
    let mut lines = found.lines();
    lines.retain(|line| query.wants(line));
    if let Some(last) = query.last {
        lines.drain(..lines.len().saturating_sub(last));
    }
    let mut body = String::new();
    if found.lost > 0 {
        body += &format!("{}\n", json!({"event": "lost", "count": found.lost}));
    }
    for line in lines {
        body += &line;
        body.push('\n');
    }
    if query.cursor {
        body += &format!(
            "{}\n",
            json!({"event": "cursor", "next": found.next, "kernel_lost": kernel_lost()})
        );
    }
    Answer { status: StatusCode::OK, content_type: "application/x-ndjson", body }
}

/// Prints what is kept, and with `--follow` what comes, until a signal; at the end, what was lost. A closed pipe
/// is a quiet end.
pub(crate) fn run(args: &FlowsArgs) -> Result<ExitCode> {
    if args.all_nodes || !args.node.is_empty() {
        return nodes::run(args);
    }
    let filters = args.filters()?;
    let first = args.last.map(|last| format!("&last={last}")).unwrap_or_default();
    let mut tally = Tally::default();
    let stopped = if args.follow { Some(stop_signal()) } else { None };
    let mut next = show(args, &format!("/flows?cursor=1{first}{filters}"), &mut tally)?;
    let mut silent_since = None;
    while let (Some(stopped), Some(after)) = (&stopped, next) {
        if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        match show(args, &format!("/flows?cursor=1&after={after}{filters}"), &mut tally) {
            Ok(found) => (next, silent_since) = (found, None),
            // One agent may be taking over from another.
            Err(error) => {
                if silent_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
            }
        }
    }
    if next.is_some() {
        // Not among the records, which may go on to a program.
        if let Some(sum) = tally.sum() {
            eprintln!("{sum}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What was shown and what was not, of a whole run.
#[derive(Debug, Default)]
struct Tally {
    records: u64,
    /// Overwritten before they were read.
    lost: u64,
    /// What the programs in the kernel could not report so far, at first and now.
    kernel_lost: Option<(u64, u64)>,
    /// Of several nodes: more than are held to be put in order.
    not_held: u64,
}

impl Tally {
    fn cursor(&mut self, record: &Value) {
        if let Some(now) = record["kernel_lost"].as_u64() {
            // The count begins again with new maps.
            let first = self.kernel_lost.map_or(now, |(first, _)| first.min(now));
            self.kernel_lost = Some((first, now));
        }
    }

    /// Nothing where nothing was lost.
    fn sum(&self) -> Option<String> {
        let kernel = self.kernel_lost.map_or(0, |(first, now)| now - first);
        let Self { records, lost, not_held, .. } = self;
        (lost + kernel + not_held > 0).then(|| {
            let not_held = match not_held {
                0 => String::new(),
                count => format!("; {count} older ones left out because all nodes have too many"),
            };
            format!(
                "{records} records shown; {lost} lost because they came faster than they were read, \
                 {kernel} because the kernel's buffer was full{not_held}"
            )
        })
    }
}

/// Something comes of it when the command is to end.
fn stop_signal() -> Receiver<()> {
    let (tell, stopped) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime.map(|runtime| runtime.block_on(agent::wait_for_signal())) {
            Ok(Ok(())) => drop(tell.send(())),
            // Without it, a signal ends the command as it ends others.
            _ => loop {
                thread::park();
            },
        }
    });
    stopped
}

impl FlowsArgs {
    fn filters(&self) -> Result<String> {
        let ports: Vec<String> = self.port.iter().map(ToString::to_string).collect();
        let named = [
            ("pod", &self.pod),
            ("namespace", &self.namespace),
            ("service", &self.service),
            ("identity", &self.identity),
            ("reporter", &self.reporter),
            ("transport", &self.transport),
            ("verdict", &self.verdict),
            ("port", &ports),
            ("status", &self.status),
            ("method", &self.method),
            ("path", &self.path),
            ("reason", &self.reason),
        ];
        let wanted =
            named.iter().flat_map(|(name, values)| values.iter().map(move |it| (*name, it)));
        let mut filters: String =
            wanted.map(|(name, value)| format!("&{name}={}", Escaped(value))).collect();
        for filter in &self.not {
            let (name, value) = filter
                .split_once('=')
                .filter(|(name, _)| named.iter().any(|(known, _)| known == name))
                .with_context(|| {
                    format!("--not takes a filter as namespace=kube-system, not {filter:?}")
                })?;
            filters += &format!("&{name}!={}", Escaped(value));
        }
        Ok(filters)
    }
}

/// Prints one answer; returns where to go on, or nothing where nobody reads any more.
fn show(args: &FlowsArgs, path: &str, tally: &mut Tally) -> Result<Option<u64>> {
    let answer = client::get(args.admin.here(), path)?;
    let mut out = stdout().lock();
    for line in answer.lines() {
        let record: Value = serde_json::from_str(line)?;
        if record["event"] == "cursor" {
            tally.cursor(&record);
            return match out.flush() {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
                flushed => Ok(flushed.map(|()| record["next"].as_u64())?),
            };
        }
        match record["event"].as_str() {
            Some("lost") => tally.lost += record["count"].as_u64().unwrap_or_default(),
            _ => tally.records += 1,
        }
        match writeln!(out, "{}", args.output.line(&record, line, None)) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(None),
            written => written?,
        }
    }
    let admin = args.admin.here();
    bail!("the agent at {admin} does not say where its flow records go on; is it older?")
}

#[cfg(test)]
mod tests;
