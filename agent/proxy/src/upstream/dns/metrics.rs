//! What names count.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Figures of all names; single ones are in the admin dump.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsMetrics {
    pub(super) names: Gauge,
    asked: Family<[(&'static str, &'static str); 1], Counter>,
}

impl DnsMetrics {
    /// Registers the metrics; their names are part of the product's interface.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "undermesh_dns_names",
            "Names that are resolved for destinations now",
            metrics.names.clone(),
        );
        registry.register(
            "undermesh_dns_lookups",
            "Times that a name was asked for, by result: found, nothing or failed",
            metrics.asked.clone(),
        );
        metrics
    }

    /// A name was asked for.
    pub(super) fn asked(&self, result: &'static str) {
        self.asked.get_or_create(&[("result", result)]).inc();
    }
}
