//! What a trace says. Field names are API (docs/reference/trace.md).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{far::Far, probe::Probed};
use crate::explain::report::{Rule, Step};

/// One connection, as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trace {
    pub(crate) state: State,
    /// It was carried, as far as this node knows.
    pub(crate) carried: bool,
    pub(crate) pod: String,
    /// The cookie of the pod's network namespace, by which the programs know it.
    pub(crate) netns_cookie: u64,
    /// The address that was dialled; empty before there is a connection.
    pub(crate) dialled: String,
    /// The connection's own address and port.
    pub(crate) source: String,
    /// The kernel's decisions, with the entries of the pinned maps that they come from.
    pub(crate) kernel: Vec<Step>,
    /// What the proxy did, and when.
    pub(crate) proxy: Vec<ProxyStep>,
    /// Rules that have a say in such a connection, from its client's and its destination's side.
    pub(crate) rules: Vec<Rule>,
    /// How the probe went, where one was sent.
    pub(crate) probe: Option<Probed>,
    /// Its flow records.
    pub(crate) records: Vec<Value>,
    /// What the agent of its destination's node says, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) far: Option<Far>,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// For a connection.
    Waiting,
    /// The connection is open.
    Open,
    /// It is over, and all is known.
    Ended,
    /// The time was over before it was.
    TimedOut,
}

/// A step of the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProxyStep {
    /// Microseconds since the connection was accepted.
    pub(crate) at_us: u64,
    pub(crate) step: String,
    pub(crate) detail: String,
    /// Of HTTP/2, the number of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<u32>,
}

fn write_record(f: &mut fmt::Formatter<'_>, before: &str, record: &Value) -> fmt::Result {
    let word = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
    let peer = record["destination"]["identity"].as_str().unwrap_or("-");
    let bytes = match (record["bytes_received"].as_u64(), record["bytes_sent"].as_u64()) {
        (Some(received), Some(sent)) => format!(", {received}/{sent} B"),
        _ => String::new(),
    };
    let status = record["status"].as_u64().map(|status| format!(", status {status}"));
    let (event, reason, detail) = (word("event"), word("reason"), word("detail"));
    let (status, transport) = (status.unwrap_or_default(), word("transport"));
    writeln!(f, "{before}{event}: {reason}, {transport} to {peer}{bytes}{status} {detail}")
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |text: &str| if text.is_empty() { "?".to_owned() } else { text.to_owned() };
        writeln!(
            f,
            "{} (netns cookie {}), from {} to {}",
            self.pod,
            self.netns_cookie,
            known(&self.source),
            known(&self.dialled)
        )?;
        if let Some(probe) = &self.probe {
            let cookie = probe.socket_cookie;
            writeln!(f, "sent: socket cookie {cookie}, in cgroup {}", probe.cgroup)?;
            match probe.connected_us {
                Some(micros) => writeln!(f, "  connected after {micros} us")?,
                None => writeln!(f, "  not connected")?,
            }
            if let Some(micros) = probe.first_byte_us {
                writeln!(f, "  first byte after {micros} us")?;
            }
            if let Some(status) = probe.status {
                writeln!(f, "  answered with status {status}")?;
            }
            if !probe.error.is_empty() {
                writeln!(f, "  {}", probe.error)?;
            }
        }
        for step in &self.kernel {
            writeln!(f, "{}: {} {}", step.at, step.step, step.outcome)?;
            for lookup in &step.lookups {
                writeln!(f, "  {:<13} {} -> {}", lookup.map, lookup.key, lookup.value)?;
            }
        }
        if !self.proxy.is_empty() {
            writeln!(f, "the proxy:")?;
        }
        for ProxyStep { at_us, step, detail, stream } in &self.proxy {
            let stream = stream.map(|number| format!("[{number}] ")).unwrap_or_default();
            writeln!(f, "  {at_us:>9} us  {step:<11} {stream}{detail}")?;
        }
        for rule in &self.rules {
            let place =
                if rule.rule.is_empty() { String::new() } else { format!(", rule {}", rule.rule) };
            writeln!(f, "+ {}{place}: {}", rule.object(), rule.why)?;
        }
        self.records.iter().try_for_each(|record| write_record(f, "", record))?;
        if let Some(Far { node, records, shared, error }) = &self.far {
            let shared = if *shared && error.is_empty() {
                ", over a connection that was there before"
            } else {
                ""
            };
            writeln!(f, "the agent of node {}{shared}: {error}", known(node))?;
            records.iter().try_for_each(|record| write_record(f, "  ", record))?;
        }
        match self.state {
            State::TimedOut if self.source.is_empty() => writeln!(f, "no such connection was made"),
            State::TimedOut => writeln!(f, "it was still open when the time was over"),
            _ if self.carried => writeln!(f, "CARRIED"),
            _ => writeln!(f, "REFUSED"),
        }
    }
}
