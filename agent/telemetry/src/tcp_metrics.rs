//! Istio's standard TCP metrics, under a bound on the number of series.
//!
//! Source: Istio, "Standard Metrics" (names, labels and their meaning).

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{
    CloseReason, ConnectionInfo,
    peer::{UNKNOWN, or_unknown},
};

/// The labels that every Istio TCP metric has, in Istio's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TcpLabels {
    reporter: &'static str,
    source_workload: String,
    source_canonical_service: String,
    source_canonical_revision: String,
    source_workload_namespace: String,
    source_principal: String,
    source_app: String,
    source_version: String,
    source_cluster: String,
    destination_service: String,
    destination_service_namespace: String,
    destination_service_name: String,
    destination_workload: String,
    destination_canonical_service: String,
    destination_canonical_revision: String,
    destination_workload_namespace: String,
    destination_principal: String,
    destination_app: String,
    destination_version: String,
    destination_cluster: String,
    request_protocol: &'static str,
    response_flags: &'static str,
    connection_security_policy: &'static str,
}

impl TcpLabels {
    pub(crate) fn new(info: &ConnectionInfo) -> Self {
        let (source, destination) = (&info.source, &info.destination);
        let service = info.service.clone().unwrap_or_default();
        let principal = |peer: &crate::Peer| {
            peer.principal.as_ref().map_or_else(|| UNKNOWN.to_owned(), ToString::to_string)
        };
        Self {
            reporter: info.reporter.as_str(),
            source_workload: or_unknown(&source.workload),
            source_canonical_service: or_unknown(&source.canonical_service),
            source_canonical_revision: or_unknown(&source.canonical_revision),
            source_workload_namespace: or_unknown(&source.namespace),
            source_principal: principal(source),
            source_app: or_unknown(&source.app),
            source_version: or_unknown(&source.version),
            source_cluster: or_unknown(&source.cluster),
            destination_service: or_unknown(&service.host),
            destination_service_namespace: or_unknown(&service.namespace),
            destination_service_name: or_unknown(&service.name),
            destination_workload: or_unknown(&destination.workload),
            destination_canonical_service: or_unknown(&destination.canonical_service),
            destination_canonical_revision: or_unknown(&destination.canonical_revision),
            destination_workload_namespace: or_unknown(&destination.namespace),
            destination_principal: principal(destination),
            destination_app: or_unknown(&destination.app),
            destination_version: or_unknown(&destination.version),
            destination_cluster: or_unknown(&destination.cluster),
            request_protocol: "tcp",
            response_flags: "-",
            connection_security_policy: info.security.as_str(),
        }
    }

    /// The one series into which everything beyond the bound is counted.
    fn overflow(reporter: &'static str) -> Self {
        let info = ConnectionInfo {
            reporter: crate::Reporter::Source,
            source: crate::Peer::unknown(),
            destination: crate::Peer::unknown(),
            service: None,
            security: crate::Security::None,
            transport: crate::Transport::Plain,
            source_addr: ([0, 0, 0, 0], 0).into(),
            dialled: None,
            upstream: None,
            generation: 0,
        };
        Self { reporter, ..Self::new(&info) }
    }

    fn with_flags(&self, flags: &'static str) -> Self {
        Self { response_flags: flags, ..self.clone() }
    }
}

/// The four counters.
#[derive(Debug)]
pub(crate) struct TcpMetrics {
    opened: Family<TcpLabels, Counter>,
    closed: Family<TcpLabels, Counter>,
    sent: Family<TcpLabels, Counter>,
    received: Family<TcpLabels, Counter>,
    overflow: Counter,
    known: Mutex<HashSet<TcpLabels>>,
    max_series: usize,
}

impl TcpMetrics {
    pub(crate) fn register(registry: &mut Registry, max_series: usize) -> Arc<Self> {
        let metrics = Self {
            opened: Family::default(),
            closed: Family::default(),
            sent: Family::default(),
            received: Family::default(),
            overflow: Counter::default(),
            known: Mutex::default(),
            max_series,
        };
        let mut family = |name: &str, help: &str, family: &Family<TcpLabels, Counter>| {
            registry.register(name, help, family.clone());
        };
        family("istio_tcp_connections_opened", "TCP connections opened", &metrics.opened);
        family("istio_tcp_connections_closed", "TCP connections closed", &metrics.closed);
        family("istio_tcp_sent_bytes", "Bytes sent from servers to clients", &metrics.sent);
        family(
            "istio_tcp_received_bytes",
            "Bytes received by servers from clients",
            &metrics.received,
        );
        registry.register(
            "undermesh_metric_series_overflow",
            "Label sets beyond the bound, counted as unknown",
            metrics.overflow.clone(),
        );
        Arc::new(metrics)
    }

    /// The labels to use for `labels`: themselves, or the overflow series beyond the bound.
    pub(crate) fn admit(&self, labels: TcpLabels) -> TcpLabels {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&labels) {
            return labels;
        }
        if known.len() < self.max_series {
            known.insert(labels.clone());
            return labels;
        }
        self.overflow.inc();
        TcpLabels::overflow(labels.reporter)
    }

    pub(crate) fn open(&self, labels: &TcpLabels) {
        self.opened.get_or_create(labels).inc();
    }

    pub(crate) fn bytes(&self, labels: &TcpLabels, sent: u64, received: u64) {
        if sent > 0 {
            self.sent.get_or_create(labels).inc_by(sent);
        }
        if received > 0 {
            self.received.get_or_create(labels).inc_by(received);
        }
    }

    pub(crate) fn close(&self, labels: &TcpLabels, reason: &CloseReason) {
        let labels = self.admit(labels.with_flags(reason.flags));
        self.closed.get_or_create(&labels).inc();
    }

    /// Drops series whose two workloads `keep` both disowns.
    pub(crate) fn retain(&self, keep: impl Fn(&str, &str) -> bool) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|labels| {
            let alive = keep(&labels.source_workload_namespace, &labels.source_workload)
                || keep(&labels.destination_workload_namespace, &labels.destination_workload);
            if !alive {
                for family in [&self.opened, &self.closed, &self.sent, &self.received] {
                    family.remove(labels);
                }
            }
            alive
        });
        before - known.len()
    }
}
