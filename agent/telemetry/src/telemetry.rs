//! Ties the registry, the TCP metrics and the access log together.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, info::Info},
    registry::Registry,
};

use undermesh_model::ObjectName;

use crate::{
    AccessLog, Audit, AuditEvent, CloseReason, ConnectionInfo, ConnectionRecord, Edges, Flows,
    Metric, Peer, Reporter, Requests, Spans, edges::Gathered, ends::Connection,
    http_metrics::HttpMetrics, live::LiveConnections, process::ProcessCollector,
    tcp_metrics::TcpMetrics, told::Told,
};

static METRIC_SERIES_OVERFLOW: Metric = Metric::counter(
    "undermesh_metric_series_overflow",
    &[],
    "times that something was counted as `unknown` (the opening or the end of a connection, \
     an outcome of requests), for want of room for its labels",
);
static CONNECTIONS_DENIED: Metric = Metric::counter(
    "undermesh_connections_denied",
    &["reason"],
    "connections that never opened: refused in the kernel, by TLS, or for want of a \
     destination",
);
static CONNECTIONS_BROKEN: Metric = Metric::counter(
    "undermesh_connections_broken",
    &["reason"],
    "connections that ended otherwise than by being closed, by the \
     [reason](access-log.md#reasons-given-by-the-kernel) that the access log has",
);
static REQUESTS_UNANSWERED: Metric = Metric::counter(
    "undermesh_requests_unanswered",
    &["reason"],
    "requests that ended otherwise than by an endpoint's whole answer: answered by the mesh, \
     reset, or left by their client",
);
static BUILD: Metric =
    Metric::info("undermesh_build", &["version"], "the agent's version; always 1");

/// Why an ordinary connection has ended, and an ordinary request.
pub(crate) const CLOSED: &str = "closed";
/// The endpoint has answered, and its answer was passed on.
pub const ANSWERED: &str = "answered";
/// Label sets that the TCP metrics keep apart, that those of requests do, and those of messages.
const MAX_SERIES: usize = 10_000;
/// How the reasons begin that are a policy's: an AuthorizationPolicy's, a RequestAuthentication's.
const POLICY_DENIED: [&str; 2] = ["policy_denied", "jwt_"];
/// Longest detail of an audit line, in characters: parts of it come from peers.
const MAX_DETAIL: usize = 512;

/// A connection that never opened.
#[derive(Clone, Debug)]
pub struct Denial {
    /// What is known of it.
    pub info: ConnectionInfo,
    /// Why it was denied.
    pub reason: CloseReason,
}

/// Everything that is measured and logged. Shared as an `Arc`.
#[derive(Debug)]
pub struct Telemetry {
    registry: Mutex<Registry>,
    tcp: TcpMetrics,
    http: HttpMetrics,
    denied: Family<ReasonLabels, Counter>,
    /// Connections that ended otherwise than closed, and requests otherwise than answered.
    broken: Family<ReasonLabels, Counter>,
    unanswered: Family<ReasonLabels, Counter>,
    access_log: AccessLog,
    flows: Flows,
    spans: OnceLock<Spans>,
    audit: OnceLock<Audit>,
    live: LiveConnections,
    next_id: AtomicU64,
    /// Since when it is counted.
    started: (SystemTime, Instant),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

impl Telemetry {
    /// Registers everything that this crate measures.
    pub fn new(access_log: AccessLog) -> Arc<Self> {
        Self::with_limits(access_log, MAX_SERIES, 0)
    }

    /// As [`Telemetry::new`], with up to `flow_buffer` flow records in memory.
    pub fn with_flows(access_log: AccessLog, flow_buffer: usize) -> Arc<Self> {
        Self::with_limits(access_log, MAX_SERIES, flow_buffer)
    }

    /// As [`Telemetry::new`], with another bound on the label sets of Istio's metrics.
    pub fn with_max_series(access_log: AccessLog, max_series: usize) -> Arc<Self> {
        Self::with_limits(access_log, max_series, 0)
    }

    fn with_limits(access_log: AccessLog, max_series: usize, flow_buffer: usize) -> Arc<Self> {
        let mut registry = Registry::default();
        let overflow = Counter::default();
        let tcp = TcpMetrics::register(&mut registry, max_series, &overflow);
        let http = HttpMetrics::register(&mut registry, max_series, &overflow);
        METRIC_SERIES_OVERFLOW.register(&mut registry, overflow);
        let denied = Family::default();
        CONNECTIONS_DENIED.register(&mut registry, denied.clone());
        let broken = Family::default();
        CONNECTIONS_BROKEN.register(&mut registry, broken.clone());
        let unanswered = Family::default();
        REQUESTS_UNANSWERED.register(&mut registry, unanswered.clone());
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        BUILD.register(&mut registry, version);
        registry.register_collector(Box::new(ProcessCollector::new(access_log.clone())));
        Arc::new(Self {
            registry: Mutex::new(registry),
            tcp,
            http,
            denied,
            broken,
            unanswered,
            flows: Flows::new(access_log.journal(), flow_buffer),
            access_log,
            spans: OnceLock::new(),
            audit: OnceLock::new(),
            live: LiveConnections::default(),
            next_id: AtomicU64::new(1),
            started: (SystemTime::now(), Instant::now()),
        })
    }

    /// Opens the record of a connection.
    pub fn open(self: &Arc<Self>, info: ConnectionInfo) -> ConnectionRecord {
        ConnectionRecord::open(self, self.id(), info)
    }

    /// Counts and logs a connection that never opened.
    pub fn denied(&self, denial: &Denial) {
        self.denied.get_or_create(&ReasonLabels { reason: denial.reason.reason }).inc();
        let Denial { info, reason } = denial;
        if self.is_logging() {
            let connection = Arc::new(Connection::new(self.id(), info));
            self.log(&connection, &Told::Denied(reason.into()));
        }
        self.audit_denial(info, reason.reason, reason.detail.as_deref(), None);
    }

    /// Counts the end of a connection.
    pub(crate) fn ended(&self, reason: &'static str) {
        if reason != CLOSED {
            self.broken.get_or_create(&ReasonLabels { reason }).inc();
        }
    }

    /// Counts the end of a request.
    pub(crate) fn answered(&self, reason: &'static str) {
        if reason != ANSWERED {
            self.unanswered.get_or_create(&ReasonLabels { reason }).inc();
        }
    }

    /// The record of a connection that was opened `ago`, and counted and logged then, by an agent
    /// before this one.
    pub fn resume(self: &Arc<Self>, info: ConnectionInfo, ago: Duration) -> ConnectionRecord {
        ConnectionRecord::resume(self, self.id(), info, ago)
    }

    /// A number for a connection that has no record, because its requests have.
    pub fn connection(&self) -> u64 {
        self.id()
    }

    /// The requests of a connection that go to one place.
    pub fn requests(self: &Arc<Self>, connection: u64, info: ConnectionInfo) -> Arc<Requests> {
        Arc::new(Requests::new(self, connection, info))
    }

    /// Lets another crate register its metrics.
    pub fn with_registry(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Everything in the text format of OpenMetrics, live connections' bytes included.
    pub fn encode(&self) -> String {
        self.live.flush();
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if text::encode(&mut text, &registry).is_err() {
            tracing::error!("cannot encode the metrics");
        }
        text
    }

    /// Who has talked to whom, as the series of Istio's metrics have it; live connections' bytes
    /// included.
    pub fn edges(&self) -> Edges {
        self.live.flush();
        let mut edges = Gathered::default();
        self.tcp.gather(&mut edges);
        self.http.gather(&mut edges);
        let (at, since) = self.started;
        let start = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        edges.into_edges(start.as_secs_f64(), since.elapsed().as_secs_f64())
    }

    /// Drops the series in which a workload is named that is gone, as soon as no open connection
    /// counts in them. `keep` is given a namespace and a workload's name. Returns the number of
    /// label sets that were dropped.
    pub fn retain_workloads(&self, keep: impl Fn(&str, &str) -> bool) -> usize {
        self.tcp.retain(&keep) + self.http.retain(keep)
    }

    /// Waits until the access log's lines so far are written, as [`AccessLog::flush`] does.
    #[must_use]
    pub fn flush_access_log(&self, timeout: Duration) -> bool {
        self.access_log.flush(timeout)
    }

    /// Lets spans be recorded from now on. To be called once.
    pub fn export_spans(&self, spans: Spans) {
        self.with_registry(|registry| spans.register(registry));
        // A second queue would have nobody who records into it.
        let _ = self.spans.set(spans);
    }

    /// Lets what policies refuse be audited from now on. To be called once.
    pub fn audit_denials(&self, audit: Audit) {
        // A second log would have no lines.
        let _ = self.audit.set(audit);
    }

    /// Audits the end of something that a policy does not want, where the policy is enforced; all other
    /// reasons are none of the audit log's.
    pub(crate) fn audit_denial(
        &self,
        info: &ConnectionInfo,
        reason: &'static str,
        detail: Option<&str>,
        policy: Option<ObjectName<'_>>,
    ) {
        let Some(audit) = self.audit.get() else { return };
        let is_policy = POLICY_DENIED.iter().any(|start| reason.starts_with(start));
        if !is_policy || info.reporter != Reporter::Destination {
            return;
        }
        let Peer { namespace, pod, .. } = &info.destination;
        audit.record(&AuditEvent::PolicyDenied {
            workload: format!("{namespace}/{pod}"),
            identity: info.source.principal.as_ref().map(ToString::to_string),
            address: info.source_addr.ip().to_string(),
            reason: reason.to_owned(),
            detail: detail.map(|detail| detail.chars().take(MAX_DETAIL).collect()),
            policy: policy.map(|policy| policy.to_string()),
        });
    }

    /// Waits until the audit log's lines so far are written, as [`Audit::flush`] does.
    #[must_use]
    pub fn flush_audit(&self, timeout: Duration) -> bool {
        self.audit.get().is_none_or(|audit| audit.flush(timeout))
    }

    /// Where spans are recorded, if they are.
    pub fn spans(&self) -> Option<&Spans> {
        self.spans.get()
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn live(&self) -> &LiveConnections {
        &self.live
    }

    pub(crate) fn tcp(&self) -> &TcpMetrics {
        &self.tcp
    }

    pub(crate) fn http(&self) -> &HttpMetrics {
        &self.http
    }

    /// Whether anybody is to hear of what happens.
    pub(crate) fn is_logging(&self) -> bool {
        self.flows.is_on() || self.access_log.is_on()
    }

    /// The newest flow records.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Tells of a connection what has just happened. To be called where somebody is to hear of it.
    pub(crate) fn log(&self, connection: &Arc<Connection>, told: &Told<'_>) {
        self.access_log.journal().push(connection, told);
    }

    #[cfg(test)]
    pub(crate) fn access_log(&self) -> &AccessLog {
        &self.access_log
    }
}

#[cfg(test)]
mod tests;
