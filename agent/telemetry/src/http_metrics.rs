//! Istio's standard metrics of requests, under a bound on the number of series.
//!
//! A lock is taken when labels are made, which is when a connection sees an outcome for the first
//! time; after that, whoever counts holds the counters themselves.

use std::sync::{Arc, OnceLock};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
    },
    registry::Registry,
};

use crate::{
    ENDS, Histogram, Metric, ResponseFlags, Security,
    edges::Gathered,
    labels::EndLabels,
    peer::UNKNOWN,
    series::{Held, OwnLabels, Series, SeriesTable},
};

/// Labels of requests, and of messages, which are counted before there is an answer.
const OF_REQUESTS: &[&str] = &[
    ENDS,
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];
const OF_MESSAGES: &[&str] = &[ENDS, "request_protocol", "connection_security_policy"];

static REQUESTS: Metric = Metric::counter(
    "istio_requests",
    OF_REQUESTS,
    "requests, those included that the proxy has answered itself",
);
static DURATION: Metric = Metric::histogram(
    "istio_request_duration_milliseconds",
    OF_REQUESTS,
    "time from the request's head to the end of its answer",
);
static REQUEST_BYTES: Metric =
    Metric::histogram("istio_request_bytes", OF_REQUESTS, "bytes of the request's body");
static RESPONSE_BYTES: Metric =
    Metric::histogram("istio_response_bytes", OF_REQUESTS, "bytes of the answer's body");
static REQUEST_MESSAGES: Metric = Metric::counter(
    "istio_request_messages",
    OF_MESSAGES,
    "gRPC messages that clients have sent, those of open calls included once they are being \
     answered",
);
static RESPONSE_MESSAGES: Metric = Metric::counter(
    "istio_response_messages",
    OF_MESSAGES,
    "gRPC messages that servers have sent, those of open calls included",
);

/// Envoy's buckets, which Istio has for milliseconds and for bytes alike.
pub(crate) const BUCKETS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5,
    1.8e6, 3.6e6,
];

/// Highest HTTP status and highest gRPC status that are labels of their own; servers may make up others.
const MAX_STATUS: u16 = 599;
const MAX_GRPC_STATUS: u16 = 16;

/// What requests are told apart by, besides their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    pub(crate) grpc: bool,
    /// 0 where there was no answer.
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u16>,
    pub(crate) flags: ResponseFlags,
}

/// What the labels of a request have besides its ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    request_protocol: &'static str,
    pub(crate) response_code: String,
    pub(crate) grpc_response_status: String,
    pub(crate) response_flags: String,
    connection_security_policy: &'static str,
}

impl RequestLabels {
    fn new(outcome: &Outcome, security: Security) -> Self {
        let known = |number: u16, most: u16| {
            if number <= most { number.to_string() } else { UNKNOWN.to_owned() }
        };
        let grpc_status = outcome.grpc_status.filter(|_| outcome.grpc);
        let grpc_status = grpc_status.map(|status| known(status, MAX_GRPC_STATUS));
        Self {
            request_protocol: if outcome.grpc { "grpc" } else { "http" },
            response_code: known(outcome.status, MAX_STATUS),
            grpc_response_status: grpc_status.unwrap_or_default(),
            response_flags: outcome.flags.text().into_owned(),
            connection_security_policy: security.as_str(),
        }
    }
}

impl OwnLabels for RequestLabels {
    fn overflow(&self) -> Self {
        Self { grpc_response_status: String::new(), ..self.clone() }
    }
}

/// What the labels of a gRPC message have besides its ends. It is counted before there is an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct MessageLabels {
    request_protocol: &'static str,
    connection_security_policy: &'static str,
}

impl OwnLabels for MessageLabels {
    fn overflow(&self) -> Self {
        self.clone()
    }
}

/// Where requests with one label set are counted. Valid as long as the label set is held.
#[derive(Clone, Debug)]
pub(crate) struct RequestCounters {
    pub(crate) requests: Counter,
    pub(crate) duration: Histogram,
    pub(crate) received: Histogram,
    pub(crate) sent: Histogram,
}

/// Where gRPC messages with one label set are counted, on the same condition.
#[derive(Clone, Debug)]
pub(crate) struct MessageCounters {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

/// A label set of requests in use, and where they are counted.
#[derive(Debug)]
pub(crate) struct RequestSeries {
    _held: Held<RequestLabels, OnceLock<RequestCounters>>,
    pub(crate) counters: RequestCounters,
}

/// The same, of gRPC messages.
#[derive(Debug)]
pub(crate) struct MessageSeries {
    _held: Held<MessageLabels, OnceLock<MessageCounters>>,
    pub(crate) counters: MessageCounters,
}

/// Makes histograms with [`BUCKETS`].
#[derive(Clone, Copy, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(&BUCKETS)
    }
}

type Histograms = Family<Series<RequestLabels>, Histogram, Buckets>;
type Messages = Family<Series<MessageLabels>, Counter>;

/// The three histograms and three counters.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    requests: Family<Series<RequestLabels>, Counter>,
    duration: Histograms,
    received: Histograms,
    sent: Histograms,
    known: SeriesTable<RequestLabels, OnceLock<RequestCounters>>,
    messages_received: Messages,
    messages_sent: Messages,
    known_messages: SeriesTable<MessageLabels, OnceLock<MessageCounters>>,
}

impl HttpMetrics {
    pub(crate) fn register(registry: &mut Registry, max_series: usize, overflow: &Counter) -> Self {
        let histograms = || Histograms::new_with_constructor(Buckets);
        let metrics = Self {
            requests: Family::default(),
            duration: histograms(),
            received: histograms(),
            sent: histograms(),
            known: SeriesTable::new(max_series, overflow),
            messages_received: Family::default(),
            messages_sent: Family::default(),
            known_messages: SeriesTable::new(max_series, overflow),
        };
        REQUESTS.register(registry, metrics.requests.clone());
        DURATION.register(registry, metrics.duration.clone());
        REQUEST_BYTES.register(registry, metrics.received.clone());
        RESPONSE_BYTES.register(registry, metrics.sent.clone());
        REQUEST_MESSAGES.register(registry, metrics.messages_received.clone());
        RESPONSE_MESSAGES.register(registry, metrics.messages_sent.clone());
        metrics
    }

    /// Where requests between these ends and with this outcome are counted.
    pub(crate) fn requests(
        &self,
        ends: &Arc<EndLabels>,
        outcome: &Outcome,
        security: Security,
    ) -> RequestSeries {
        let held = self.known.hold(ends, RequestLabels::new(outcome, security));
        let counters = held.counters.get_or_init(|| RequestCounters {
            requests: self.requests.get_or_create_owned(&held.series),
            duration: self.duration.get_or_create_owned(&held.series),
            received: self.received.get_or_create_owned(&held.series),
            sent: self.sent.get_or_create_owned(&held.series),
        });
        RequestSeries { counters: counters.clone(), _held: held }
    }

    /// Where gRPC messages between these ends are counted.
    pub(crate) fn messages(&self, ends: &Arc<EndLabels>, security: Security) -> MessageSeries {
        let own = MessageLabels {
            request_protocol: "grpc",
            connection_security_policy: security.as_str(),
        };
        let held = self.known_messages.hold(ends, own);
        let counters = held.counters.get_or_init(|| MessageCounters {
            received: self.messages_received.get_or_create_owned(&held.series),
            sent: self.messages_sent.get_or_create_owned(&held.series),
        });
        MessageSeries { counters: counters.clone(), _held: held }
    }

    /// Adds what was counted so far to the edges that it is about.
    pub(crate) fn gather(&self, edges: &mut Gathered) {
        for (Series { ends, own }, counters) in self.known.all() {
            let Some(counters) = counters.get() else { continue };
            let edge = edges.edge(&ends, own.request_protocol, own.connection_security_policy);
            edge.add_requests(&own, counters);
        }
        for (Series { ends, own }, counters) in self.known_messages.all() {
            let Some(counters) = counters.get() else { continue };
            let edge = edges.edge(&ends, own.request_protocol, own.connection_security_policy);
            edge.add_messages(counters);
        }
    }

    /// Drops the series of workloads that `keep` disowns and that nobody counts in, and says how many
    /// label sets those were.
    pub(crate) fn retain(&self, keep: impl Fn(&str, &str) -> bool) -> usize {
        let requests = self.known.retain(&keep, |series| {
            self.requests.remove(series);
            for family in [&self.duration, &self.received, &self.sent] {
                family.remove(series);
            }
        });
        let messages = self.known_messages.retain(keep, |series| {
            self.messages_received.remove(series);
            self.messages_sent.remove(series);
        });
        requests + messages
    }
}
