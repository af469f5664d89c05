//! What the controller counts.

use std::sync::{Arc, Mutex, PoisonError};

use undermesh_telemetry::{
    Audit,
    prometheus_client::{
        collector::Collector,
        encoding::{DescriptorEncoder, EncodeMetric, text},
        metrics::{
            MetricType,
            counter::{ConstCounter, Counter},
            family::Family,
            gauge::Gauge,
        },
        registry::Registry,
    },
};

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
            registry.register(
                "undermesh_controller_certificates_issued",
                "Certificates that were issued",
                metrics.issued.clone(),
            );
            registry.register(
                "undermesh_controller_certificates_refused",
                "Requests for certificates that were refused, by reason",
                metrics.refused.clone(),
            );
            registry.register(
                "undermesh_controller_admissions",
                "Objects that the API server has asked about, by what was said",
                metrics.admissions.clone(),
            );
            registry.register(
                "undermesh_controller_status_writes",
                "Attempts to write the status of an object, by what came of them",
                metrics.statuses.clone(),
            );
            registry.register(
                "undermesh_controller_distribution_streams",
                "Streams of agents that have their configuration from here",
                metrics.streams.clone(),
            );
            registry.register(
                "undermesh_controller_distribution_objects",
                "Objects that may be distributed; 0 until all of them have been read",
                metrics.objects.clone(),
            );
            registry.register(
                "undermesh_controller_distribution_states",
                "States that agents were sent, by what they have made of them",
                metrics.states.clone(),
            );
            registry.register(
                "undermesh_controller_distribution_sent_bytes",
                "Bytes of states that agents were sent, before TLS",
                metrics.sent_bytes.clone(),
            );
            registry.register(
                "undermesh_controller_distribution_refused",
                "Streams that were refused or ended, by reason",
                metrics.streams_refused.clone(),
            );
            registry.register(
                "undermesh_controller_leader",
                "1 while this replica is the one that writes into the cluster",
                metrics.leads.clone(),
            );
            registry.register(
                "undermesh_controller_issuer_expires_in_seconds",
                "Seconds until the certificate that signs expires; 0 while there is none",
                metrics.issuer_expires.clone(),
            );
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
        let help = "Audit log lines that were lost";
        let name = "undermesh_audit_log_dropped";
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.lost()).encode(encoder)
    }
}
