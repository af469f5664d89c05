//! Flow records as they are printed: as they are, for people, and shorter.

use std::borrow::Cow;

use serde_json::Value;

use super::{Output, filter};

/// The node that a record is of, where there are several.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) node: &'a str,
    /// Of the column of nodes.
    pub(super) width: usize,
}

impl Output {
    /// A record, which `line` is as the agent has it, as it is printed.
    pub(super) fn line<'l>(
        self,
        record: &Value,
        line: &'l str,
        of: Option<Of<'_>>,
    ) -> Cow<'l, str> {
        let column = || of.map(|Of { node, width }| format!("{node:<width$} ")).unwrap_or_default();
        match (self, of) {
            (Self::Json, None) => Cow::Borrowed(line),
            (Self::Json, Some(Of { node, .. })) => Cow::Owned(with_node(line, node)),
            (Self::Compact, _) => Cow::Owned(compact(record, &column())),
            (Self::Text, _) => Cow::Owned(text(record, &column())),
        }
    }
}

/// A record with the node that it is of, before its own fields.
fn with_node(record: &str, node: &str) -> String {
    let fields = record.trim_start().strip_prefix('{').unwrap_or(record);
    format!("{{\"node\":{},{fields}", Value::from(node))
}

/// A record as a line for people, with the column of its node, if there are several. Missing parts are `-`.
fn text(record: &Value, node: &str) -> String {
    let word = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
    if record["event"] == "lost" {
        return lost(record, node);
    }
    let bytes = match (record["bytes_received"].as_u64(), record["bytes_sent"].as_u64()) {
        (Some(received), Some(sent)) => format!("{received}/{sent} B"),
        _ => "-".to_owned(),
    };
    let duration =
        record["duration_ms"].as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    format!(
        "{} {node}{:<7} {:<40} -> {:<40} {:>20} {:>14} {}{} {}",
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

fn lost(record: &Value, node: &str) -> String {
    let of = match node.trim_end() {
        "" => String::new(),
        node => format!(" of node {node}"),
    };
    format!("... {} records{of} were lost: they came faster than they were read", record["count"])
}

/// A record as a short line: the time of day, a sign (`+` opened, `-` closed, `=` a request, `!` denied), both ends,
/// and what there is to say.
fn compact(record: &Value, node: &str) -> String {
    if record["event"] == "lost" {
        return lost(record, node);
    }
    let word = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let sign = match record["event"].as_str() {
        _ if filter::is_denied(record) => "!",
        Some("open") => "+",
        Some("close") => "-",
        _ => "=",
    };
    let time = word("time");
    let time = time.split_once('T').map_or(time.as_str(), |(_, time)| time).trim_end_matches('Z');
    let sign = format!("{node}{sign}");
    let mut parts = vec![time.to_owned(), sign, end(&record["source"]), "->".to_owned()];
    parts.push(end(&record["destination"]));
    let request = request(record);
    parts.extend(request.split_whitespace().filter(|word| *word != "-").map(str::to_owned));
    let reason = word("reason");
    if !["closed", "answered", ""].contains(&reason.as_str()) {
        parts.push(reason);
    }
    if let Some(ms) = record["duration_ms"].as_f64() {
        parts.push(format!("{ms:.1}ms"));
    }
    parts.join(" ")
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
