//! What overload looks like from outside.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Step;

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
        registry.register(
            "undermesh_overload_pressure",
            "How much of a resource is used: 0 is nothing, 1 is all",
            metrics.pressure.clone(),
        );
        registry.register(
            "undermesh_overload_step",
            "What is given up: 0 nothing, 1 idle connections, 2 also requests of low priority, 3 also new connections with requests, 4 all new connections",
            metrics.step.clone(),
        );
        registry.register(
            "undermesh_overload_shed",
            "What was refused because of overload: requests, connections with requests (routed), connections",
            metrics.shed.clone(),
        );
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
