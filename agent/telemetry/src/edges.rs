//! Who talks to whom: the series of Istio's metrics, added up by edge, for whoever draws or lists them.
//!
//! Values are cumulative; who wants rates asks twice. There are never more edges than label sets, which are
//! bounded; what those had no room for is an edge between `unknown` and `unknown`.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::{Deserialize, Serialize};

use crate::{
    http_metrics::{BUCKETS, MessageCounters, RequestCounters, RequestLabels},
    labels::EndLabels,
};

/// What gRPC calls fail with where the server or the way to it is at fault, not the client: UNKNOWN,
/// DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const GRPC_FAILURES: [&str; 5] = ["2", "4", "13", "14", "15"];
/// What Istio writes where there is no flag.
const NO_FLAGS: &str = "-";

/// Every edge, and when that was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edges {
    /// When counting began, in seconds since 1970. Another value is another process, which counts from 0.
    pub start_time_seconds: f64,
    /// How long ago that is, by a clock that is never set.
    pub monotonic_seconds: f64,
    /// Highest value of each bucket of durations but the last, which has no end.
    pub duration_bounds_milliseconds: Vec<f64>,
    /// By reporter, then source, then destination.
    pub edges: Vec<Edge>,
}

/// What one reporter has seen between two workloads, by one protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// `source` or `destination`: whose agent has counted. One agent may be both, in two edges.
    pub reporter: String,
    /// The clients.
    pub source: Source,
    /// The servers.
    pub destination: Destination,
    /// `tcp`, `http` or `grpc`.
    pub protocol: String,
    /// `mutual_tls` or `none`.
    pub security: String,
    /// Of connections, or of the bodies of requests and answers.
    pub bytes: Bytes,
    /// Where the protocol is `tcp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// Where it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<HttpRequests>,
    /// Where it is `grpc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
}

/// The clients' end; `unknown` is what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Name of the Deployment or other owner.
    pub workload: String,
    /// Of the pods.
    pub namespace: String,
    /// Identity.
    pub principal: String,
    /// Name of the cluster.
    pub cluster: String,
}

/// The servers' end; `unknown` is what is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// DNS name of the service.
    pub service: String,
    /// Its name.
    pub service_name: String,
    /// Its namespace.
    pub service_namespace: String,
    /// Name of the Deployment or other owner.
    pub workload: String,
    /// Of the pods.
    pub namespace: String,
    /// Identity.
    pub principal: String,
    /// Name of the cluster.
    pub cluster: String,
}

/// Bytes, from the servers' point of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// From clients to servers.
    pub received: u64,
    /// From servers to clients.
    pub sent: u64,
}

/// Connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// All that were opened.
    pub opened: u64,
    /// All that were closed.
    pub closed: u64,
    /// Those of them that were closed for a reason that has flags.
    pub failed: u64,
    /// The same, by flags.
    pub failed_by_flags: BTreeMap<String, u64>,
}

/// Requests that are over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequests {
    /// All.
    pub total: u64,
    /// Those that the server or the way to it is to blame for: a status of 500 and above, or a gRPC status of
    /// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE or DATA_LOSS.
    pub failed: u64,
    /// By status: `1xx` to `5xx`, `none` (the client left before there was one), `unknown`.
    pub by_class: BTreeMap<String, u64>,
    /// By gRPC status; without those that have none.
    pub by_grpc_status: BTreeMap<String, u64>,
    /// By flags; without those that have none.
    pub by_flags: BTreeMap<String, u64>,
    /// By duration: how many are in each bucket alone.
    pub duration_counts: Vec<u64>,
    /// Of all durations.
    pub duration_sum_milliseconds: f64,
}

/// gRPC messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Messages {
    /// From clients to servers.
    pub received: u64,
    /// From servers to clients.
    pub sent: u64,
}

/// Series on their way to edges.
#[derive(Debug, Default)]
pub(crate) struct Gathered(BTreeMap<Key, Edge>);

/// What tells edges apart. Of an end's labels, only those that an edge has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    reporter: &'static str,
    source: Source,
    destination: Destination,
    protocol: &'static str,
    security: &'static str,
}

impl Gathered {
    /// The edge that a series is about.
    pub(crate) fn edge(
        &mut self,
        ends: &EndLabels,
        protocol: &'static str,
        security: &'static str,
    ) -> &mut Edge {
        let (reporter, source, destination) = (ends.reporter, source(ends), destination(ends));
        match self.0.entry(Key { reporter, source, destination, protocol, security }) {
            Entry::Occupied(edge) => edge.into_mut(),
            Entry::Vacant(place) => {
                let Key { source, destination, .. } = place.key();
                let edge = Edge {
                    reporter: reporter.to_owned(),
                    source: source.clone(),
                    destination: destination.clone(),
                    protocol: protocol.to_owned(),
                    security: security.to_owned(),
                    ..Edge::default()
                };
                place.insert(edge)
            }
        }
    }

    pub(crate) fn into_edges(self, start_time_seconds: f64, monotonic_seconds: f64) -> Edges {
        Edges {
            start_time_seconds,
            monotonic_seconds,
            duration_bounds_milliseconds: BUCKETS.to_vec(),
            edges: self.0.into_values().collect(),
        }
    }
}

fn source(ends: &EndLabels) -> Source {
    Source {
        workload: ends.source_workload.clone(),
        namespace: ends.source_workload_namespace.clone(),
        principal: ends.source_principal.clone(),
        cluster: ends.source_cluster.clone(),
    }
}

fn destination(ends: &EndLabels) -> Destination {
    Destination {
        service: ends.destination_service.clone(),
        service_name: ends.destination_service_name.clone(),
        service_namespace: ends.destination_service_namespace.clone(),
        workload: ends.destination_workload.clone(),
        namespace: ends.destination_workload_namespace.clone(),
        principal: ends.destination_principal.clone(),
        cluster: ends.destination_cluster.clone(),
    }
}

impl Edge {
    pub(crate) fn add_bytes(&mut self, received: u64, sent: u64) {
        self.bytes.received += received;
        self.bytes.sent += sent;
    }

    pub(crate) fn add_connections(&mut self, opened: u64, closed: u64, flags: &str) {
        let connections = self.connections.get_or_insert_default();
        connections.opened += opened;
        connections.closed += closed;
        if flags != NO_FLAGS && closed > 0 {
            connections.failed += closed;
            *connections.failed_by_flags.entry(flags.to_owned()).or_default() += closed;
        }
    }

    pub(crate) fn add_requests(&mut self, labels: &RequestLabels, counters: &RequestCounters) {
        let RequestLabels { response_code: code, grpc_response_status: grpc, .. } = labels;
        let flags = &labels.response_flags;
        let count = counters.requests.get();
        let requests = self.requests.get_or_insert_default();
        requests.total += count;
        let class = class(code);
        if class == "5xx" || GRPC_FAILURES.contains(&grpc.as_str()) {
            requests.failed += count;
        }
        *requests.by_class.entry(class.to_owned()).or_default() += count;
        if !grpc.is_empty() {
            *requests.by_grpc_status.entry(grpc.clone()).or_default() += count;
        }
        if flags != NO_FLAGS {
            *requests.by_flags.entry(flags.clone()).or_default() += count;
        }
        let durations = counters.duration.counts();
        requests.duration_counts.resize(durations.len(), 0);
        for (sum, count) in requests.duration_counts.iter_mut().zip(durations) {
            *sum += count;
        }
        requests.duration_sum_milliseconds += counters.duration.sum();
        // Whole numbers, as they were observed.
        self.add_bytes(counters.received.sum() as u64, counters.sent.sum() as u64);
    }

    pub(crate) fn add_messages(&mut self, counters: &MessageCounters) {
        let messages = self.messages.get_or_insert_default();
        messages.received += counters.received.get();
        messages.sent += counters.sent.get();
    }
}

/// The hundred that a status is of.
fn class(code: &str) -> &'static str {
    match code.as_bytes() {
        b"0" => "none",
        [b'1', _, _] => "1xx",
        [b'2', _, _] => "2xx",
        [b'3', _, _] => "3xx",
        [b'4', _, _] => "4xx",
        [b'5', _, _] => "5xx",
        _ => "unknown",
    }
}
