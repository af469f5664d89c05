//! Rates, of what an agent has counted at two times. Pure: pages in, sums out.

use std::collections::BTreeMap;

use serde::Serialize;
use undermesh_telemetry::{Destination, Edge, Edges, Source};

/// What was added between two reads, by edge.
#[derive(Debug, Default)]
pub(super) struct Rates {
    pub(super) node: String,
    /// Time between the reads.
    pub(super) seconds: f64,
    /// Highest value of each bucket of durations but the last.
    pub(super) bounds: Vec<f64>,
    pub(super) edges: Vec<(Edge, Sum)>,
}

/// What was added, and what is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sum {
    requests: u64,
    failed_requests: u64,
    durations: Vec<u64>,
    opened: u64,
    closed: u64,
    failed_connections: u64,
    received: u64,
    sent: u64,
    /// Connections that are open now.
    open: u64,
}

/// A sum over time. What cannot be said is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measures {
    pub(super) requests_per_second: f64,
    pub(super) connections_per_second: f64,
    pub(super) open_connections: u64,
    /// Of 1: requests that have not failed and connections that ended without flags, of all that ended.
    pub(super) success: Option<f64>,
    pub(super) p50_milliseconds: Option<f64>,
    pub(super) p95_milliseconds: Option<f64>,
    pub(super) p99_milliseconds: Option<f64>,
    pub(super) received_bytes_per_second: f64,
    pub(super) sent_bytes_per_second: f64,
}

/// What tells edges apart.
type Key<'a> = (&'a str, &'a Source, &'a Destination, &'a str, &'a str);

fn key(edge: &Edge) -> Key<'_> {
    (&edge.reporter, &edge.source, &edge.destination, &edge.protocol, &edge.security)
}

impl Rates {
    /// What `now` has more than `before`. Of another process, `before` says nothing.
    pub(super) fn between(node: &str, before: &Edges, now: &Edges) -> Self {
        let same = before.start_time_seconds == now.start_time_seconds;
        let mut former: BTreeMap<Key<'_>, &Edge> = BTreeMap::new();
        let mut since = 0.0;
        if same {
            former = before.edges.iter().map(|edge| (key(edge), edge)).collect();
            since = before.monotonic_seconds;
        }
        let sum = |edge: &Edge| {
            let sum = Sum::of(edge);
            match former.get(&key(edge)) {
                Some(former) => sum.since(&Sum::of(former)),
                None => sum,
            }
        };
        Self {
            node: node.to_owned(),
            seconds: now.monotonic_seconds - since,
            bounds: now.duration_bounds_milliseconds.clone(),
            edges: now.edges.iter().map(|edge| (edge.clone(), sum(edge))).collect(),
        }
    }

    pub(super) fn measures(&self, sum: &Sum) -> Measures {
        let per_second =
            |count: u64| if self.seconds > 0.0 { count as f64 / self.seconds } else { 0.0 };
        let ended = sum.requests + sum.closed;
        let failed = sum.failed_requests + sum.failed_connections;
        let quantile = |share| quantile(&self.bounds, &sum.durations, share);
        Measures {
            requests_per_second: per_second(sum.requests),
            connections_per_second: per_second(sum.opened),
            open_connections: sum.open,
            success: (ended > 0).then(|| 1.0 - failed as f64 / ended as f64),
            p50_milliseconds: quantile(0.5),
            p95_milliseconds: quantile(0.95),
            p99_milliseconds: quantile(0.99),
            received_bytes_per_second: per_second(sum.received),
            sent_bytes_per_second: per_second(sum.sent),
        }
    }

    /// Edges by what `group` makes of them; none for those of which it makes nothing.
    pub(super) fn grouped<K: Ord>(
        &self,
        group: impl Fn(&Edge) -> Option<K>,
    ) -> BTreeMap<K, Measures> {
        let mut sums: BTreeMap<K, Sum> = BTreeMap::new();
        for (edge, sum) in &self.edges {
            if let Some(key) = group(edge) {
                sums.entry(key).or_default().add(sum);
            }
        }
        sums.into_iter().map(|(key, sum)| (key, self.measures(&sum))).collect()
    }
}

impl Sum {
    fn of(edge: &Edge) -> Self {
        let mut sum =
            Self { received: edge.bytes.received, sent: edge.bytes.sent, ..Self::default() };
        if let Some(requests) = &edge.requests {
            sum.requests = requests.total;
            sum.failed_requests = requests.failed;
            sum.durations.clone_from(&requests.duration_counts);
        }
        if let Some(connections) = &edge.connections {
            (sum.opened, sum.closed) = (connections.opened, connections.closed);
            sum.failed_connections = connections.failed;
            sum.open = connections.opened.saturating_sub(connections.closed);
        }
        sum
    }

    /// Values only rise; where one is lower, the edge went and came back, and began at 0.
    fn since(self, former: &Self) -> Self {
        let again = self.requests < former.requests
            || self.opened < former.opened
            || self.received < former.received
            || self.sent < former.sent;
        if again {
            return self;
        }
        let durations = self.durations.iter().enumerate().map(|(bucket, count)| {
            count.saturating_sub(former.durations.get(bucket).copied().unwrap_or_default())
        });
        Self {
            durations: durations.collect(),
            requests: self.requests - former.requests,
            failed_requests: self.failed_requests.saturating_sub(former.failed_requests),
            opened: self.opened - former.opened,
            closed: self.closed.saturating_sub(former.closed),
            failed_connections: self.failed_connections.saturating_sub(former.failed_connections),
            received: self.received - former.received,
            sent: self.sent - former.sent,
            open: self.open,
        }
    }

    fn add(&mut self, other: &Self) {
        if self.durations.len() < other.durations.len() {
            self.durations.resize(other.durations.len(), 0);
        }
        for (sum, count) in self.durations.iter_mut().zip(&other.durations) {
            *sum += count;
        }
        self.requests += other.requests;
        self.failed_requests += other.failed_requests;
        self.opened += other.opened;
        self.closed += other.closed;
        self.failed_connections += other.failed_connections;
        self.received += other.received;
        self.sent += other.sent;
        self.open += other.open;
    }
}

/// As Prometheus' `histogram_quantile`: evenly spread within a bucket, and the highest bound for what is
/// above it.
fn quantile(bounds: &[f64], counts: &[u64], share: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = share * total as f64;
    let mut below = 0;
    for (bucket, count) in counts.iter().enumerate() {
        let Some(upper) = bounds.get(bucket) else { break };
        if (below + count) as f64 >= rank && *count > 0 {
            let lower = bucket.checked_sub(1).map_or(0.0, |former| bounds[former]);
            return Some(lower + (upper - lower) * (rank - below as f64) / *count as f64);
        }
        below += count;
    }
    bounds.last().copied()
}

#[cfg(test)]
mod tests {
    use undermesh_telemetry::{Bytes, Connections, HttpRequests};

    use super::*;

    const BOUNDS: [f64; 2] = [10.0, 100.0];

    fn http(total: u64, failed: u64, durations: [u64; 3]) -> Edge {
        let requests = HttpRequests {
            total,
            failed,
            duration_counts: durations.to_vec(),
            ..HttpRequests::default()
        };
        Edge { protocol: "http".to_owned(), requests: Some(requests), ..Edge::default() }
    }

    fn tcp(opened: u64, closed: u64, failed: u64, received: u64) -> Edge {
        let connections = Connections { opened, closed, failed, ..Connections::default() };
        let bytes = Bytes { received, sent: 2 * received };
        let protocol = "tcp".to_owned();
        Edge { protocol, bytes, connections: Some(connections), ..Edge::default() }
    }

    fn page(start: f64, at: f64, edges: Vec<Edge>) -> Edges {
        Edges {
            start_time_seconds: start,
            monotonic_seconds: at,
            duration_bounds_milliseconds: BOUNDS.to_vec(),
            edges,
        }
    }

    fn measures(before: &Edges, now: &Edges) -> Measures {
        let rates = Rates::between("a", before, now);
        let all = rates.grouped(|_| Some(()));
        all.into_values().next().unwrap_or_default()
    }

    #[test]
    fn rates_are_of_what_was_added_in_between() {
        let before = page(1.0, 10.0, vec![http(100, 50, [100, 0, 0]), tcp(5, 1, 0, 100)]);
        let now = page(1.0, 12.0, vec![http(110, 52, [100, 10, 0]), tcp(9, 7, 3, 500)]);
        let found = measures(&before, &now);
        assert_eq!((found.requests_per_second, found.connections_per_second), (5.0, 2.0));
        assert_eq!(found.open_connections, 2);
        assert_eq!((found.received_bytes_per_second, found.sent_bytes_per_second), (200.0, 400.0));
        // 2 of 10 requests and 3 of 6 connections.
        assert_eq!(found.success, Some(1.0 - 5.0 / 16.0));
        assert_eq!(found.p50_milliseconds, Some(55.0));
    }

    #[test]
    fn an_agent_that_has_started_again_counts_from_nothing() {
        let before = page(1.0, 1000.0, vec![tcp(500, 500, 0, 0)]);
        let found = measures(&before, &page(2.0, 4.0, vec![tcp(8, 8, 0, 0)]));
        assert_eq!(found.connections_per_second, 2.0);
    }

    #[test]
    fn an_edge_that_is_new_or_came_back_counts_from_nothing() {
        let now = page(1.0, 11.0, vec![tcp(4, 0, 0, 0)]);
        assert_eq!(measures(&page(1.0, 10.0, vec![]), &now).connections_per_second, 4.0);
        let higher = page(1.0, 10.0, vec![tcp(9, 9, 0, 0)]);
        assert_eq!(measures(&higher, &now).connections_per_second, 4.0);
    }

    #[test]
    fn nothing_is_said_of_what_did_not_happen() {
        let page = page(1.0, 10.0, vec![http(3, 1, [1, 1, 1]), tcp(1, 0, 0, 0)]);
        let found = measures(&page, &page);
        assert_eq!(found, Measures { open_connections: 1, ..Measures::default() });
    }

    #[test]
    fn quantiles_are_prometheus() {
        for (counts, share, wanted) in [
            ([0, 0, 0], 0.5, None),
            ([10, 0, 0], 0.5, Some(5.0)),
            ([0, 10, 0], 0.5, Some(55.0)),
            ([5, 5, 0], 0.99, Some(98.2)),
            ([1, 1, 8], 0.95, Some(100.0)),
            ([0, 0, 1], 0.5, Some(100.0)),
        ] {
            let found = quantile(&BOUNDS, &counts, share);
            let close = match (found, wanted) {
                (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-9,
                (found, wanted) => found == wanted,
            };
            assert!(close, "{counts:?} at {share}: {found:?}, not {wanted:?}");
        }
    }
}
