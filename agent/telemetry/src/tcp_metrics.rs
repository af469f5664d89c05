//! Istio's standard TCP metrics, under a bound on the number of series.
//!
//! Locks are taken when a connection opens and when it closes, never while it carries bytes. Labels are
//! long, and looked for once in a connection's life, unless it ends in an unusual way.

use std::sync::{Arc, OnceLock};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{
    CloseReason, ConnectionInfo, ENDS, Metric,
    edges::Gathered,
    labels::EndLabels,
    series::{Held, OwnLabels, Series, SeriesTable},
};

const LABELS: &[&str] = &[ENDS, "request_protocol", "response_flags", "connection_security_policy"];

static OPENED: Metric =
    Metric::counter("istio_tcp_connections_opened", LABELS, "connections opened");
static CLOSED: Metric = Metric::counter(
    "istio_tcp_connections_closed",
    LABELS,
    "connections closed; `response_flags` says why",
);
static SENT: Metric = Metric::counter(
    "istio_tcp_sent_bytes",
    LABELS,
    "bytes from servers to clients, live connections included",
);
static RECEIVED: Metric = Metric::counter(
    "istio_tcp_received_bytes",
    LABELS,
    "bytes from clients to servers, live connections included",
);

/// What the labels of a connection have besides its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TcpLabels {
    request_protocol: &'static str,
    response_flags: &'static str,
    connection_security_policy: &'static str,
}

impl OwnLabels for TcpLabels {
    fn overflow(&self) -> Self {
        self.clone()
    }
}

/// A connection's label set in use.
pub(crate) type HeldSeries = Held<TcpLabels, TcpCounters>;

/// The counters of one label set, each from its first use on.
#[derive(Debug, Default)]
pub(crate) struct TcpCounters {
    opened: OnceLock<Counter>,
    closed: OnceLock<Counter>,
    bytes: OnceLock<ByteSeries>,
}

/// Where the bytes of one label set are counted. Valid as long as its label set is held.
#[derive(Clone, Debug)]
pub(crate) struct ByteSeries {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
}

type Counters = Family<Series<TcpLabels>, Counter>;

/// The four counters.
#[derive(Debug)]
pub(crate) struct TcpMetrics {
    opened: Counters,
    closed: Counters,
    sent: Counters,
    received: Counters,
    known: SeriesTable<TcpLabels, TcpCounters>,
}

impl TcpMetrics {
    pub(crate) fn register(registry: &mut Registry, max_series: usize, overflow: &Counter) -> Self {
        let metrics = Self {
            opened: Family::default(),
            closed: Family::default(),
            sent: Family::default(),
            received: Family::default(),
            known: SeriesTable::new(max_series, overflow),
        };
        OPENED.register(registry, metrics.opened.clone());
        CLOSED.register(registry, metrics.closed.clone());
        SENT.register(registry, metrics.sent.clone());
        RECEIVED.register(registry, metrics.received.clone());
        metrics
    }

    /// Holds the series that a connection is counted in.
    pub(crate) fn hold(&self, info: &ConnectionInfo) -> HeldSeries {
        let own = TcpLabels {
            request_protocol: "tcp",
            response_flags: "-",
            connection_security_policy: info.security.as_str(),
        };
        self.known.hold(&Arc::new(EndLabels::new(info)), own)
    }

    /// Counts the opening of the connection that holds `held`.
    pub(crate) fn open(&self, held: &HeldSeries) {
        let opened = &held.counters.opened;
        opened.get_or_init(|| self.opened.get_or_create_owned(&held.series)).inc();
    }

    /// Where the connection that holds `held` counts its bytes.
    pub(crate) fn bytes(&self, held: &HeldSeries) -> ByteSeries {
        let bytes = held.counters.bytes.get_or_init(|| ByteSeries {
            sent: self.sent.get_or_create_owned(&held.series),
            received: self.received.get_or_create_owned(&held.series),
        });
        bytes.clone()
    }

    /// Counts the close of the connection that holds `held`.
    pub(crate) fn close(&self, held: &HeldSeries, reason: &CloseReason) {
        let Series { ends, own } = &held.series;
        if own.response_flags == reason.flags {
            return self.count_close(held);
        }
        let own = TcpLabels { response_flags: reason.flags, ..own.clone() };
        self.count_close(&self.known.hold(ends, own));
    }

    fn count_close(&self, held: &HeldSeries) {
        let closed = &held.counters.closed;
        closed.get_or_init(|| self.closed.get_or_create_owned(&held.series)).inc();
    }

    /// Adds what was counted so far to the edges that it is about.
    pub(crate) fn gather(&self, edges: &mut Gathered) {
        let count = |counter: &OnceLock<Counter>| counter.get().map_or(0, Counter::get);
        for (Series { ends, own }, counters) in self.known.all() {
            let edge = edges.edge(&ends, own.request_protocol, own.connection_security_policy);
            let (opened, closed) = (count(&counters.opened), count(&counters.closed));
            edge.add_connections(opened, closed, own.response_flags);
            if let Some(bytes) = counters.bytes.get() {
                edge.add_bytes(bytes.received.get(), bytes.sent.get());
            }
        }
    }

    /// Drops the series of workloads that `keep` disowns, but for those of open connections, and
    /// says how many label sets those were.
    pub(crate) fn retain(&self, keep: impl Fn(&str, &str) -> bool) -> usize {
        self.known.retain(keep, |series| {
            for family in [&self.opened, &self.closed, &self.sent, &self.received] {
                family.remove(series);
            }
        })
    }
}
