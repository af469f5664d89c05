//! Counters of all agents as one: what each has counted more since it was asked last is added, so that the sums never
//! fall, whichever agent starts again or goes.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use undermesh_telemetry::{Destination, Edge, Edges, Source};

/// Edges that are kept apart.
const MAX_EDGES: usize = 20_000;

type Key = (String, Source, Destination, String, String);

pub(super) struct Counters {
    began: (SystemTime, Instant),
    /// When something was added last.
    at: Instant,
    sums: BTreeMap<Key, Edge>,
    bounds: Vec<f64>,
    /// What each agent has said last, and which process that was.
    last: HashMap<String, (f64, BTreeMap<Key, Edge>)>,
}

impl Default for Counters {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            began: (SystemTime::now(), now),
            at: now,
            sums: BTreeMap::new(),
            bounds: Vec::new(),
            last: HashMap::new(),
        }
    }
}

impl Counters {
    /// Adds what an agent says.
    pub(super) fn take(&mut self, agent: &str, said: Edges) {
        self.at = Instant::now();
        if self.bounds.is_empty() {
            self.bounds.clone_from(&said.duration_bounds_milliseconds);
        }
        // Another version may have others, which cannot be added.
        let same_bounds = self.bounds == said.duration_bounds_milliseconds;
        let start = said.start_time_seconds;
        let before = self.last.remove(agent).filter(|(process, _)| *process == start);
        let before = before.map(|(_, edges)| edges).unwrap_or_default();
        let mut now = BTreeMap::new();
        for edge in said.edges {
            let key = key(&edge);
            let is_known = self.sums.contains_key(&key);
            if is_known || self.sums.len() < MAX_EDGES {
                let sum = self.sums.entry(key.clone()).or_insert_with(|| blank(&edge));
                add(sum, &edge, before.get(&key), same_bounds);
            }
            now.insert(key, edge);
        }
        self.last.insert(agent.to_owned(), (start, now));
    }

    /// Forgets where the others have stopped to count; what they have counted stays.
    pub(super) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.last.retain(|agent, _| is_there(agent));
    }

    pub(super) fn edges(&self) -> Edges {
        let (began, since) = self.began;
        Edges {
            start_time_seconds: began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            monotonic_seconds: self.at.duration_since(since).as_secs_f64(),
            duration_bounds_milliseconds: self.bounds.clone(),
            edges: self.sums.values().cloned().collect(),
        }
    }
}

fn key(edge: &Edge) -> Key {
    let Edge { reporter, source, destination, protocol, security, .. } = edge;
    (reporter.clone(), source.clone(), destination.clone(), protocol.clone(), security.clone())
}

fn blank(edge: &Edge) -> Edge {
    let (reporter, source, destination, protocol, security) = key(edge);
    Edge { reporter, source, destination, protocol, security, ..Edge::default() }
}

fn add(sum: &mut Edge, now: &Edge, before: Option<&Edge>, same_bounds: bool) {
    let none = Edge::default();
    let before = before.unwrap_or(&none);
    sum.bytes.received += now.bytes.received.saturating_sub(before.bytes.received);
    sum.bytes.sent += now.bytes.sent.saturating_sub(before.bytes.sent);
    if let Some(now) = &now.connections {
        let before = before.connections.clone().unwrap_or_default();
        let sum = sum.connections.get_or_insert_default();
        sum.opened += now.opened.saturating_sub(before.opened);
        sum.closed += now.closed.saturating_sub(before.closed);
        sum.failed += now.failed.saturating_sub(before.failed);
        add_each(&mut sum.failed_by_flags, &now.failed_by_flags, &before.failed_by_flags);
    }
    if let Some(now) = &now.requests {
        let before = before.requests.clone().unwrap_or_default();
        let sum = sum.requests.get_or_insert_default();
        sum.total += now.total.saturating_sub(before.total);
        sum.failed += now.failed.saturating_sub(before.failed);
        add_each(&mut sum.by_class, &now.by_class, &before.by_class);
        add_each(&mut sum.by_grpc_status, &now.by_grpc_status, &before.by_grpc_status);
        add_each(&mut sum.by_flags, &now.by_flags, &before.by_flags);
        if same_bounds {
            let more = now.duration_sum_milliseconds - before.duration_sum_milliseconds;
            sum.duration_sum_milliseconds += more.max(0.0);
            sum.duration_counts.resize(now.duration_counts.len(), 0);
            for (at, sum) in sum.duration_counts.iter_mut().enumerate() {
                let count = |of: &[u64]| of.get(at).copied().unwrap_or_default();
                *sum += count(&now.duration_counts).saturating_sub(count(&before.duration_counts));
            }
        }
    }
    if let Some(now) = &now.messages {
        let before = before.messages.unwrap_or_default();
        let sum = sum.messages.get_or_insert_default();
        sum.received += now.received.saturating_sub(before.received);
        sum.sent += now.sent.saturating_sub(before.sent);
    }
}

fn add_each(
    sums: &mut BTreeMap<String, u64>,
    now: &BTreeMap<String, u64>,
    before: &BTreeMap<String, u64>,
) {
    for (name, count) in now {
        let before = before.get(name).copied().unwrap_or_default();
        *sums.entry(name.clone()).or_default() += count.saturating_sub(before);
    }
}

#[cfg(test)]
mod tests {
    use undermesh_telemetry::{Bytes, Connections, HttpRequests};

    use super::*;

    fn said(process: f64, opened: u64, durations: &[u64]) -> Edges {
        let total = durations.iter().sum();
        let edge = |protocol: &str| Edge {
            reporter: "source".to_owned(),
            protocol: protocol.to_owned(),
            security: "mutual_tls".to_owned(),
            bytes: Bytes { received: opened, sent: 2 * opened },
            ..Edge::default()
        };
        let tcp = Edge {
            connections: Some(Connections { opened, closed: opened, ..Connections::default() }),
            ..edge("tcp")
        };
        let http = Edge {
            requests: Some(HttpRequests {
                total,
                by_class: [("2xx".to_owned(), total)].into(),
                duration_counts: durations.to_vec(),
                ..HttpRequests::default()
            }),
            ..edge("http")
        };
        Edges {
            start_time_seconds: process,
            monotonic_seconds: 1.0,
            duration_bounds_milliseconds: vec![1.0],
            edges: vec![tcp, http],
        }
    }

    fn sums(counters: &Counters) -> (u64, u64, Vec<u64>, u64) {
        let edges = counters.edges().edges;
        let tcp = edges.iter().find(|edge| edge.protocol == "tcp").unwrap();
        let http = edges.iter().find(|edge| edge.protocol == "http").unwrap();
        let requests = http.requests.clone().unwrap();
        let opened = tcp.connections.as_ref().unwrap().opened;
        (opened, tcp.bytes.sent, requests.duration_counts, requests.by_class["2xx"])
    }

    #[test]
    fn counters_of_several_agents_are_added_once() {
        let mut counters = Counters::default();
        counters.take("a", said(1.0, 5, &[1, 2]));
        counters.take("b", said(2.0, 7, &[0, 1]));
        counters.take("a", said(1.0, 6, &[1, 4]));
        assert_eq!(sums(&counters), (13, 26, vec![1, 5], 6));
        assert_eq!(counters.edges().edges.len(), 2);
    }

    #[test]
    fn an_agent_that_starts_again_counts_on() {
        let mut counters = Counters::default();
        counters.take("a", said(1.0, 5, &[1, 2]));
        counters.take("a", said(9.0, 2, &[1, 0]));
        assert_eq!(sums(&counters), (7, 14, vec![2, 2], 4));
        counters.keep(|agent| agent != "a");
        assert!(counters.last.is_empty());
        assert_eq!(sums(&counters), (7, 14, vec![2, 2], 4));
    }

    #[test]
    fn durations_with_other_bounds_are_left_out() {
        let mut counters = Counters::default();
        counters.take("a", said(1.0, 5, &[1, 2]));
        let other = Edges { duration_bounds_milliseconds: vec![2.0], ..said(2.0, 5, &[7, 7]) };
        counters.take("b", other);
        assert_eq!(sums(&counters), (10, 20, vec![1, 2], 17));
    }
}
