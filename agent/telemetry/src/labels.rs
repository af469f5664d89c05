//! The labels that every one of Istio's standard metrics has: who reports about whom.
//!
//! Source: Istio, "Standard Metrics" (names, order and meaning).

use prometheus_client::encoding::EncodeLabelSet;

use crate::{
    ConnectionInfo, Peer, Reporter, ServiceLabel,
    peer::{UNKNOWN, or_unknown},
};

/// Both ends, in Istio's order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    pub(crate) reporter: &'static str,
    pub(crate) source_workload: String,
    source_canonical_service: String,
    source_canonical_revision: String,
    pub(crate) source_workload_namespace: String,
    pub(crate) source_principal: String,
    source_app: String,
    source_version: String,
    pub(crate) source_cluster: String,
    pub(crate) destination_service: String,
    pub(crate) destination_service_namespace: String,
    pub(crate) destination_service_name: String,
    pub(crate) destination_workload: String,
    destination_canonical_service: String,
    destination_canonical_revision: String,
    pub(crate) destination_workload_namespace: String,
    pub(crate) destination_principal: String,
    destination_app: String,
    destination_version: String,
    pub(crate) destination_cluster: String,
}

impl EndLabels {
    pub(crate) fn new(info: &ConnectionInfo) -> Self {
        let service = info.service.clone().unwrap_or_default();
        Self::between(&info.source, &info.destination, &service, info.reporter)
    }

    fn between(
        source: &Peer,
        destination: &Peer,
        service: &ServiceLabel,
        reporter: Reporter,
    ) -> Self {
        Self {
            reporter: reporter.as_str(),
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
        }
    }

    /// What labels beyond the bound are counted under.
    pub(crate) fn overflow(&self) -> Self {
        let (nobody, service) = (Peer::unknown(), ServiceLabel::default());
        let unknown = Self::between(&nobody, &nobody, &service, Reporter::Source);
        Self { reporter: self.reporter, ..unknown }
    }

    /// Whether one of the two workloads is no longer there. `keep` is given a namespace and a
    /// workload's name; an end that was never known cannot go.
    pub(crate) fn is_gone(&self, keep: impl Fn(&str, &str) -> bool) -> bool {
        let gone =
            |namespace: &str, workload: &str| workload != UNKNOWN && !keep(namespace, workload);
        gone(&self.source_workload_namespace, &self.source_workload)
            || gone(&self.destination_workload_namespace, &self.destination_workload)
    }
}

fn principal(peer: &Peer) -> String {
    peer.principal.as_ref().map_or_else(|| UNKNOWN.to_owned(), ToString::to_string)
}
