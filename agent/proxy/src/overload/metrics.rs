//! What overload looks like from outside.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use undermesh_telemetry::Metric;

use super::Step;

static PRESSURE: Metric = Metric::gauge(
    "undermesh_overload_pressure",
    &["resource"],
    "how much is used of `memory`, `descriptors`, `delay`: 0 is nothing, 1 all \
     ([overload](limits-and-overload.md#what-load-is-shed))",
);
static STEP: Metric = Metric::gauge(
    "undermesh_overload_step",
    &[],
    "what is given up: 0 nothing, to 4 all new connections",
);
static SHED: Metric = Metric::counter(
    "undermesh_overload_shed",
    &["what"],
    "refused because of overload: `request`, `routed` (a connection with requests), \
     `connection`",
);

type Label = (&'static str, &'static str);

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shed {
    Request,
    Routed,
    Connection,
}

/// The gauges and counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct OverloadMetrics {
    pressure: Family<[Label; 1], Gauge<f64, AtomicU64>>,
    step: Gauge,
    shed: Family<[Label; 1], Counter>,
}

impl OverloadMetrics {
    /// Registers the metrics; their names are part of the product's interface.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        PRESSURE.register(registry, metrics.pressure.clone());
        STEP.register(registry, metrics.step.clone());
        SHED.register(registry, metrics.shed.clone());
        metrics
    }

    pub(super) fn observe(&self, pressure: &[(&'static str, f64)], step: Step) {
        for (resource, value) in pressure {
            self.pressure.get_or_create(&[("resource", *resource)]).set(*value);
        }
        self.step.set(step as i64);
    }

    pub(super) fn shed(&self, what: Shed) {
        let what = match what {
            Shed::Request => "request",
            Shed::Routed => "routed",
            Shed::Connection => "connection",
        };
        self.shed.get_or_create(&[("what", what)]).inc();
    }
}
