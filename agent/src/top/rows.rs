//! What `undermesh top` shows: rates by service, by edge and by pod, filtered and sorted. Pure.

use std::{cmp::Ordering, collections::HashSet};

use clap::ValueEnum;
use serde_json::{Map, Value};
use undermesh_telemetry::{Destination, Edge};

use super::rates::{Measures, Rates};
use crate::status::{PodState, PodStatus};

const UNKNOWN: &str = "unknown";

/// One of the three tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// What is called, seen from its clients and from its servers.
    Services,
    /// Who calls whom.
    Edges,
    /// The pods of the node.
    Pods,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Services, Self::Edges, Self::Pods];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Services => "Services",
            Self::Edges => "Edges",
            Self::Pods => "Pods",
        }
    }

    /// Names of the columns before those of [`MEASURES`], as heads and as fields.
    pub(super) const fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Services => {
                &[("SIDE", "side"), ("NAMESPACE", "namespace"), ("SERVICE", "service")]
            }
            Self::Edges => &[
                ("SIDE", "side"),
                ("FROM", "source"),
                ("TO", "destination"),
                ("SERVICE", "service"),
                ("PROTOCOL", "protocol"),
                ("SECURITY", "security"),
            ],
            Self::Pods => &[("POD", "pod"), ("STATE", "state"), ("DIRECTION", "direction")],
        }
    }
}

/// Heads of the columns that every view has.
pub(super) const MEASURES: [&str; 9] =
    ["REQ/S", "CONN/S", "OPEN", "SUCCESS", "P50", "P95", "P99", "RECV/S", "SENT/S"];

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    /// Most requests and connections first.
    Rate,
    /// Most failures first.
    Success,
    /// Slowest first.
    P99,
    /// Most bytes first.
    Bytes,
    /// In alphabetical order.
    Name,
}

impl Sort {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Success => "success",
            Self::P99 => "p99",
            Self::Bytes => "bytes",
            Self::Name => "name",
        }
    }

    pub(super) const fn next(self) -> Self {
        match self {
            Self::Rate => Self::Success,
            Self::Success => Self::P99,
            Self::P99 => Self::Bytes,
            Self::Bytes => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    fn compare(self, a: &Measures, b: &Measures) -> Ordering {
        let rate = |it: &Measures| it.requests_per_second + it.connections_per_second;
        let bytes = |it: &Measures| it.received_bytes_per_second + it.sent_bytes_per_second;
        match self {
            Self::Rate => rate(b).total_cmp(&rate(a)),
            // What has not ended is not known to have failed.
            Self::Success => a.success.unwrap_or(2.0).total_cmp(&b.success.unwrap_or(2.0)),
            Self::P99 => {
                let p99 = |it: &Measures| it.p99_milliseconds.unwrap_or(-1.0);
                p99(b).total_cmp(&p99(a))
            }
            Self::Bytes => bytes(b).total_cmp(&bytes(a)),
            Self::Name => Ordering::Equal,
        }
    }
}

/// A row, of any view.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// As many as the view has columns.
    pub(super) names: Vec<String>,
    pub(super) measures: Measures,
}

/// The rows of a view: those that have to do with `namespace` where it is given.
pub(super) fn rows(
    view: View,
    rates: &Rates,
    pods: &[PodStatus],
    namespace: Option<&str>,
    sort: Sort,
) -> Vec<Row> {
    let mut rows = match view {
        View::Services => services(rates, namespace),
        View::Edges => edges(rates, namespace),
        View::Pods => of_pods(rates, pods, namespace),
    };
    // Stable: what is equal stays in alphabetical order.
    rows.sort_by(|a, b| sort.compare(&a.measures, &b.measures));
    rows
}

/// One row as `-o json` has it.
pub(super) fn json(view: View, row: &Row) -> Value {
    let names = view.columns().iter().zip(&row.names);
    let mut all: Map<String, Value> =
        names.map(|((_, field), name)| ((*field).to_owned(), name.as_str().into())).collect();
    if let Ok(Value::Object(measures)) = serde_json::to_value(&row.measures) {
        all.extend(measures);
    }
    Value::Object(all)
}

/// Seen from which side: the agent has counted at its clients, or at its servers.
fn side(edge: &Edge) -> &'static str {
    if edge.reporter == "destination" { "server" } else { "client" }
}

fn workload(namespace: &str, name: &str) -> String {
    if namespace == UNKNOWN && name == UNKNOWN {
        return UNKNOWN.to_owned();
    }
    format!("{namespace}/{name}")
}

/// The service, or where none was meant, the workload; with its namespace.
fn service(to: &Destination) -> (String, String) {
    if to.service_name != UNKNOWN {
        return (to.service_namespace.clone(), to.service_name.clone());
    }
    let name = if to.service != UNKNOWN { &to.service } else { &to.workload };
    (to.namespace.clone(), name.clone())
}

fn services(rates: &Rates, namespace: Option<&str>) -> Vec<Row> {
    let by_service = rates.grouped(|edge| {
        let (of, name) = service(&edge.destination);
        namespace.is_none_or(|wanted| wanted == of).then(|| (of, name, side(edge)))
    });
    let row = |((namespace, name, side), measures)| Row {
        names: vec![String::from(side), namespace, name],
        measures,
    };
    by_service.into_iter().map(row).collect()
}

fn edges(rates: &Rates, namespace: Option<&str>) -> Vec<Row> {
    let by_edge = rates.grouped(|edge| {
        let Edge { source, destination, .. } = edge;
        let of = [&source.namespace, &destination.namespace, &destination.service_namespace];
        let wanted = namespace.is_none_or(|wanted| of.iter().any(|of| *of == wanted));
        wanted.then(|| {
            [
                workload(&source.namespace, &source.workload),
                workload(&destination.namespace, &destination.workload),
                destination.service.clone(),
                edge.protocol.clone(),
                edge.security.clone(),
                side(edge).to_owned(),
            ]
        })
    });
    let row = |(mut names, measures): ([String; 6], Measures)| {
        names.rotate_right(1);
        Row { names: names.into(), measures }
    };
    by_edge.into_iter().map(row).collect()
}

/// Two rows a pod: what comes to it and what it sends. They are of its identity: pods that share one
/// share the figures.
fn of_pods(rates: &Rates, pods: &[PodStatus], namespace: Option<&str>) -> Vec<Row> {
    // Between two pods of the node, both sides may have counted the same; the server's is taken.
    let both: HashSet<_> = rates
        .edges
        .iter()
        .filter(|(edge, _)| edge.reporter == "destination")
        .map(|(edge, _)| ends(edge))
        .collect();
    let once = |edge: &Edge| edge.reporter == "destination" || !both.contains(&ends(edge));
    let received = rates.grouped(|edge| once(edge).then(|| edge.destination.principal.clone()));
    let sent = rates.grouped(|edge| once(edge).then(|| edge.source.principal.clone()));
    let mut rows = Vec::new();
    for pod in pods {
        if namespace.is_some_and(|wanted| wanted != pod.namespace) {
            continue;
        }
        for (direction, measures) in [("in", &received), ("out", &sent)] {
            let measures = measures.get(&pod.identity).cloned().unwrap_or_default();
            let pod_name = format!("{}/{}", pod.namespace, pod.name);
            let names = vec![pod_name, state(pod.state).to_owned(), direction.to_owned()];
            rows.push(Row { names, measures });
        }
    }
    rows.sort_by(|a, b| a.names.cmp(&b.names));
    rows
}

fn state(state: PodState) -> &'static str {
    match state {
        PodState::Enrolled => "enrolled",
        PodState::Pending => "pending",
        PodState::Waiting => "waiting",
        PodState::Impossible => "impossible",
    }
}

fn ends(edge: &Edge) -> (&str, &str, &str) {
    (&edge.source.principal, &edge.destination.principal, &edge.protocol)
}

/// The nine columns, as text.
pub(super) fn cells(measures: &Measures) -> [String; 9] {
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        rate(measures.requests_per_second),
        rate(measures.connections_per_second),
        measures.open_connections.to_string(),
        or_dash(measures.success.map(percent)),
        or_dash(measures.p50_milliseconds.map(milliseconds)),
        or_dash(measures.p95_milliseconds.map(milliseconds)),
        or_dash(measures.p99_milliseconds.map(milliseconds)),
        bytes(measures.received_bytes_per_second),
        bytes(measures.sent_bytes_per_second),
    ]
}

fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms => format!("{:.0} s", ms / 1000.0),
    }
}

fn bytes(bytes: f64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let unit = units.into_iter().find(|(_, size)| bytes >= *size);
    unit.map_or_else(
        || format!("{bytes:.0} B"),
        |(name, size)| format!("{:.1} {name}", bytes / size),
    )
}

#[cfg(test)]
pub(super) mod tests;
