//! What the controller counts.

use std::sync::{Arc, Mutex, PoisonError};

use undermesh_telemetry::{
    Audit, Metric,
    prometheus_client::{
        collector::Collector,
        encoding::{DescriptorEncoder, EncodeMetric, text},
        metrics::{
            counter::{ConstCounter, Counter},
            family::Family,
            gauge::Gauge,
        },
        registry::Registry,
    },
};

static CERTIFICATES_ISSUED: Metric = Metric::counter(
    "undermesh_controller_certificates_issued",
    &[],
    "certificates that were issued",
);
static CERTIFICATES_REFUSED: Metric = Metric::counter(
    "undermesh_controller_certificates_refused",
    &["reason"],
    "requests for certificates that were refused \
     ([reasons](../guide/controller.md#certificates))",
);
static ADMISSIONS: Metric = Metric::counter(
    "undermesh_controller_admissions",
    &["result"],
    "objects that the API server has asked about: `allowed`, `warned`, `refused`, `ignored` \
     (deletions, statuses), `late` (allowed for want of time)",
);
static STATUS_WRITES: Metric = Metric::counter(
    "undermesh_controller_status_writes",
    &["result"],
    "attempts to write the status of an object: `written`, `conflict` (somebody else was \
     faster; tried again), `failed`",
);
static DISTRIBUTION_STREAMS: Metric = Metric::gauge(
    "undermesh_controller_distribution_streams",
    &[],
    "streams of agents that have their \
     [configuration](../guide/controller.md#configuration-for-agents) from here; with \
     `distribute`, as the next four",
);
static DISTRIBUTION_OBJECTS: Metric = Metric::gauge(
    "undermesh_controller_distribution_objects",
    &[],
    "objects that may be sent; 0 until every list has been read",
);
static DISTRIBUTION_STATES: Metric = Metric::counter(
    "undermesh_controller_distribution_states",
    &["result"],
    "states that agents were sent: `accepted`, or `rejected`",
);
static DISTRIBUTION_SENT_BYTES: Metric = Metric::counter(
    "undermesh_controller_distribution_sent_bytes",
    &[],
    "bytes of states that were answered, before TLS",
);
static DISTRIBUTION_REFUSED: Metric = Metric::counter(
    "undermesh_controller_distribution_refused",
    &["reason"],
    "streams that were refused or ended: \
     [those](../guide/controller.md#configuration-for-agents), and `incomplete`, `slow`, \
     `silent`, `expired`, `forgotten` (it has to say what it has), `stopping`, `api_server`, \
     `late`",
);
static LEADER: Metric = Metric::gauge(
    "undermesh_controller_leader",
    &[],
    "1 while this replica is the one that writes into the cluster",
);
static ISSUER_EXPIRES_IN_SECONDS: Metric = Metric::gauge(
    "undermesh_controller_issuer_expires_in_seconds",
    &[],
    "time until the certificate that signs expires; 0 while there is none",
);

static AUDIT_LOG_DROPPED: Metric = Metric::counter(
    "undermesh_audit_log_dropped",
    &[],
    "lines of the [audit log](audit-log.md) that were lost",
);

/// Handles to everything that is counted. Cheap to clone.
#[derive(Clone)]
pub(super) struct Metrics {
    registry: Arc<Mutex<Registry>>,
    issued: Counter,
    refused: Family<Reason, Counter>,
    admissions: Family<Reason, Counter>,
    statuses: Family<Reason, Counter>,
    streams: Gauge,
    objects: Gauge,
    states: Family<Reason, Counter>,
    sent_bytes: Counter,
    streams_refused: Family<Reason, Counter>,
    leads: Gauge,
    issuer_expires: Gauge,
}

/// One label and its value.
type Reason = [(&'static str, &'static str); 1];

impl Metrics {
    pub(super) fn new(audit: &Audit) -> Self {
        let metrics = Self {
            registry: Arc::default(),
            issued: Counter::default(),
            refused: Family::default(),
            admissions: Family::default(),
            statuses: Family::default(),
            streams: Gauge::default(),
            objects: Gauge::default(),
            states: Family::default(),
            sent_bytes: Counter::default(),
            streams_refused: Family::default(),
            leads: Gauge::default(),
            issuer_expires: Gauge::default(),
        };
        metrics.with_registry(|registry| {
            CERTIFICATES_ISSUED.register(registry, metrics.issued.clone());
            CERTIFICATES_REFUSED.register(registry, metrics.refused.clone());
            ADMISSIONS.register(registry, metrics.admissions.clone());
            STATUS_WRITES.register(registry, metrics.statuses.clone());
            DISTRIBUTION_STREAMS.register(registry, metrics.streams.clone());
            DISTRIBUTION_OBJECTS.register(registry, metrics.objects.clone());
            DISTRIBUTION_STATES.register(registry, metrics.states.clone());
            DISTRIBUTION_SENT_BYTES.register(registry, metrics.sent_bytes.clone());
            DISTRIBUTION_REFUSED.register(registry, metrics.streams_refused.clone());
            LEADER.register(registry, metrics.leads.clone());
            ISSUER_EXPIRES_IN_SECONDS.register(registry, metrics.issuer_expires.clone());
            registry.register_collector(Box::new(AuditCollector(audit.clone())));
        });
        metrics
    }

    pub(super) fn with_registry(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn issued(&self) {
        self.issued.inc();
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    pub(super) fn admission(&self, result: &'static str) {
        self.admissions.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn status_write(&self, result: &'static str) {
        self.statuses.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn streams(&self, count: usize) {
        self.streams.set(count.try_into().unwrap_or(i64::MAX));
    }

    pub(super) fn objects(&self, count: usize) {
        self.objects.set(count.try_into().unwrap_or(i64::MAX));
    }

    pub(super) fn delivered(&self, result: &'static str, bytes: u64) {
        self.states.get_or_create(&[("result", result)]).inc();
        self.sent_bytes.inc_by(bytes);
    }

    pub(super) fn stream_refused(&self, reason: &'static str) {
        self.streams_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// Everything in the text format of OpenMetrics, with what is true now.
    pub(super) fn encode(&self, leads: bool, issuer_expires: i64) -> String {
        self.leads.set(i64::from(leads));
        self.issuer_expires.set(issuer_expires);
        let mut text = String::new();
        self.with_registry(|registry| {
            if text::encode(&mut text, registry).is_err() {
                tracing::error!("cannot encode the metrics");
            }
        });
        text
    }
}

#[derive(Debug)]
struct AuditCollector(Audit);

impl Collector for AuditCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        ConstCounter::new(self.0.lost()).encode(AUDIT_LOG_DROPPED.describe(&mut encoder)?)
    }
}

#[cfg(test)]
mod tests {
    use undermesh_telemetry::AuditSink;
    use undermesh_tests::Reference;

    use super::*;

    #[test]
    fn every_metric_is_documented_as_it_is_exposed() {
        let audit = Audit::start("controller", AuditSink::Off).unwrap();
        let metrics = Metrics::new(&audit);
        metrics.issued();
        metrics.refused("token");
        metrics.admission("allowed");
        metrics.status_write("written");
        metrics.delivered("accepted", 7);
        metrics.stream_refused("slow");
        let text = metrics.encode(true, 60);
        let reference = Reference::read().unwrap();
        let seen = reference.check(&text).unwrap();
        assert_eq!(seen.len(), reference.count("undermesh_controller_") + 1, "{text}");
    }
}
