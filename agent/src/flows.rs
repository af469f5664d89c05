//! Flow records: the admin page `/flows`, and the command that asks for it. Both ends of the
//! question are here, so that they cannot drift apart.

mod filter;

use std::{
    io::{ErrorKind, Write as _, stdout},
    net::SocketAddr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use hyper::StatusCode;
use serde_json::{Value, json};
use undermesh_telemetry::Flows;

use crate::{admin::Answer, cli::DEFAULT_ADMIN, client};
use filter::Query;

/// How often a follower asks.
const EVERY: Duration = Duration::from_millis(250);
/// How long a follower goes on asking an agent that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct FlowsArgs {
    /// Admin address of the agent.
    #[arg(long, env = "UNDERMESH_ADMIN_ADDRESS", default_value = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// Go on with what happens from now on.
    #[arg(short, long)]
    follow: bool,
    /// Only the newest N of the records that are kept.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Only connections of this pod, at either end.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pod: Option<String>,
    /// Only connections of this namespace, at either end.
    #[arg(long)]
    namespace: Option<String>,
    /// Only what was `allowed`, or what was `denied`.
    #[arg(long)]
    verdict: Option<String>,
    /// Only connections to this port, as dialled or as led to.
    #[arg(long)]
    port: Option<u16>,
    /// Only requests that were answered with this status, `404` or `5xx`.
    #[arg(long)]
    status: Option<String>,
    /// Only requests with this method.
    #[arg(long)]
    method: Option<String>,
    /// Only requests whose path begins so.
    #[arg(long)]
    path: Option<String>,
    /// Only records with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// One line per record, for people.
    Text,
    /// One JSON object per line; stable field names.
    Json,
}

/// The page: records as NDJSON, then, where `after` was asked for, what was lost and where to go on.
pub(crate) fn page(flows: &Flows, query: &str) -> Answer {
    if !flows.is_on() {
        let text = "no flow records are kept; set flowBuffer to more than 0\n";
        return Answer::text(StatusCode::NOT_FOUND, text);
    }
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(error) => return Answer::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let found = flows.after(query.after);
    let mut lines: Vec<&str> =
        found.lines.iter().map(AsRef::as_ref).filter(|line| query.wants(line)).collect();
    if let Some(last) = query.last {
        lines.drain(..lines.len().saturating_sub(last));
    }
    let mut body = String::new();
    if found.lost > 0 {
        body += &format!("{}\n", json!({"event": "lost", "count": found.lost}));
    }
    for line in lines {
        body += line;
        body.push('\n');
    }
    if query.cursor {
        body += &format!("{}\n", json!({"event": "cursor", "next": found.next}));
    }
    Answer { status: StatusCode::OK, content_type: "application/x-ndjson", body }
}

/// Prints what is kept, and with `--follow` what comes. A closed pipe is a quiet end.
pub(crate) fn run(args: &FlowsArgs) -> Result<ExitCode> {
    let filters = args.filters();
    let first = args.last.map(|last| format!("&last={last}")).unwrap_or_default();
    let mut next = show(args, &format!("/flows?cursor=1{first}{filters}"))?;
    let mut silent_since = None;
    while let (true, Some(after)) = (args.follow, next) {
        thread::sleep(EVERY);
        match show(args, &format!("/flows?cursor=1&after={after}{filters}")) {
            Ok(found) => (next, silent_since) = (found, None),
            // One agent may be taking over from another.
            Err(error) => {
                if silent_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    return Err(error);
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl FlowsArgs {
    fn filters(&self) -> String {
        let text = [
            ("pod", self.pod.clone()),
            ("namespace", self.namespace.clone()),
            ("verdict", self.verdict.clone()),
            ("port", self.port.map(|port| port.to_string())),
            ("status", self.status.clone()),
            ("method", self.method.clone()),
            ("path", self.path.clone()),
            ("reason", self.reason.clone()),
        ];
        let given = text.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.map(|(name, value)| format!("&{name}={}", escape(&value))).collect()
    }
}

/// A value as a query takes it; what no name holds is escaped, so that it cannot end the request.
fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Prints one answer; returns where to go on, or nothing where nobody reads any more.
fn show(args: &FlowsArgs, path: &str) -> Result<Option<u64>> {
    let answer = client::get(args.admin, path)?;
    let mut out = stdout().lock();
    for line in answer.lines() {
        let record: Value = serde_json::from_str(line)?;
        if record["event"] == "cursor" {
            return match out.flush() {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
                flushed => Ok(flushed.map(|()| record["next"].as_u64())?),
            };
        }
        let written = match args.output {
            Output::Json => writeln!(out, "{line}"),
            Output::Text => writeln!(out, "{}", text(&record)),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(None),
            written => written?,
        }
    }
    bail!("the agent at {} does not say where its flow records go on; is it older?", args.admin)
}

/// A record as a line for people. Missing parts are `-`.
fn text(record: &Value) -> String {
    let word = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
    if record["event"] == "lost" {
        return format!(
            "... {} records were lost: they came faster than they were read",
            record["count"]
        );
    }
    let bytes = match (record["bytes_received"].as_u64(), record["bytes_sent"].as_u64()) {
        (Some(received), Some(sent)) => format!("{received}/{sent} B"),
        _ => "-".to_owned(),
    };
    let duration =
        record["duration_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    format!(
        "{} {:<7} {:<40} -> {:<40} {:>20} {:>14} {}{} {}",
        word("time"),
        word("event"),
        end(&record["source"]),
        end(&record["destination"]),
        bytes,
        duration,
        request(record),
        word("reason"),
        record["detail"].as_str().unwrap_or_default()
    )
    .trim_end()
    .to_owned()
}

/// What was asked and answered, where the record is a request's.
fn request(record: &Value) -> String {
    if record["event"] != "request" {
        return String::new();
    }
    let word = |name: &str| record[name].as_str().filter(|word| !word.is_empty()).unwrap_or("-");
    let number = |name: &str| record[name].as_u64().map(|number| number.to_string());
    let status = number("status").unwrap_or_else(|| "-".to_owned());
    let grpc = number("grpc_status").map(|status| format!("/{status}")).unwrap_or_default();
    let path = record["path"].as_str().unwrap_or_default();
    let flags = word("response_flags");
    format!("{} {}{path} {status}{grpc} {flags} ", word("method"), word("authority"))
}

/// A pod's name where it is known, its address where not.
fn end(end: &Value) -> String {
    match (end["namespace"].as_str(), end["pod"].as_str()) {
        (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
        _ => end["address"].as_str().unwrap_or("-").to_owned(),
    }
}

#[cfg(test)]
mod tests;
