//! What names count.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use undermesh_telemetry::Metric;

static NAMES: Metric = Metric::gauge(
    "undermesh_dns_names",
    &[],
    "[names](resilience.md#names) that are resolved for destinations now",
);
static LOOKUPS: Metric = Metric::counter(
    "undermesh_dns_lookups",
    &["result"],
    "times that a name was asked for: `found`, `nothing` (there are no addresses) or `failed` \
     (nobody who knows has answered)",
);

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
        NAMES.register(registry, metrics.names.clone());
        LOOKUPS.register(registry, metrics.asked.clone());
        metrics
    }

    /// A name was asked for.
    pub(super) fn asked(&self, result: &'static str) {
        self.asked.get_or_create(&[("result", result)]).inc();
    }
}
