//! What destinations count. Labels are bounded by the configuration: one series per cluster that a pod of
//! the node uses, gone with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use undermesh_model::traffic::ClusterKey;
use undermesh_telemetry::Metric;

use super::{limits, outlier::Cause};

static REQUESTS: Metric =
    Metric::gauge("undermesh_upstream_requests", &["cluster"], "attempts that are running");
static PENDING_REQUESTS: Metric = Metric::gauge(
    "undermesh_upstream_pending_requests",
    &["cluster"],
    "requests that wait for a connection",
);
static CONNECTIONS: Metric = Metric::gauge(
    "undermesh_upstream_connections",
    &["cluster"],
    "connections that are open or being opened",
);
static POOL_REQUESTS: Metric = Metric::counter(
    "undermesh_upstream_pool_requests",
    &["cluster", "result"],
    "requests by how they came by a connection: `hit` (an open one), `miss` (a new one), \
     `waited` (one that became free or was being opened)",
);
static OVERFLOW: Metric = Metric::counter(
    "undermesh_upstream_overflow",
    &["cluster", "limit"],
    "times that a limit was reached: `maxConnections`, `http1MaxPendingRequests`, \
     `http2MaxRequests`, `maxRetries`",
);
static EJECTIONS: Metric = Metric::counter(
    "undermesh_upstream_ejections",
    &["cluster", "cause"],
    "ejections: `consecutive_5xx`, `consecutive_gateway_errors`, \
     `consecutive_local_origin_failures`",
);
static EJECTIONS_REFUSED: Metric = Metric::counter(
    "undermesh_upstream_ejections_refused",
    &["cluster"],
    "ejections that `maxEjectionPercent` did not allow",
);
static EJECTED_ENDPOINTS: Metric = Metric::gauge(
    "undermesh_upstream_ejected_endpoints",
    &["cluster"],
    "endpoints that are ejected now",
);
static PANIC_REQUESTS: Metric = Metric::counter(
    "undermesh_upstream_panic_requests",
    &["cluster"],
    "attempts sent to any endpoint because fewer than `minHealthPercent` are healthy",
);

type Cluster = [(&'static str, String); 1];
type ClusterAnd = [(&'static str, String); 2];
/// By name: whoever counts for the cluster now.
type Clusters = Arc<Mutex<HashMap<String, Weak<ClusterMetrics>>>>;

/// The families, and who has series in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamMetrics {
    families: Families,
    clusters: Clusters,
}

#[derive(Clone, Debug, Default)]
struct Families {
    requests: Family<Cluster, Gauge>,
    pending: Family<Cluster, Gauge>,
    connections: Family<Cluster, Gauge>,
    pool: Family<ClusterAnd, Counter>,
    overflow: Family<ClusterAnd, Counter>,
    ejections: Family<ClusterAnd, Counter>,
    refused: Family<Cluster, Counter>,
    ejected: Family<Cluster, Gauge>,
    panics: Family<Cluster, Counter>,
}

/// The series of one cluster, for all pods of the node.
#[derive(Debug)]
pub(super) struct ClusterMetrics {
    name: String,
    families: Families,
    clusters: Clusters,
    pool: [Counter; 3],
    panics: Counter,
    ejected: Gauge,
    /// Attempts that are running.
    pub(super) requests: Gauge,
    /// Requests that wait for a connection.
    pub(super) pending: Gauge,
    /// Connections that are open or being opened.
    pub(super) connections: Gauge,
}

/// How a request came by its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pooled {
    /// An open one.
    Hit,
    /// A new one.
    Miss,
    /// One that somebody else opened or gave back.
    Waited,
}

/// Raises a gauge while it lives.
#[derive(Debug)]
pub(super) struct Raised(Gauge);

impl Raised {
    pub(super) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl UpstreamMetrics {
    /// Registers the metrics; their names are part of the product's interface.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        metrics.families.register_use(registry);
        metrics.families.register_ejections(registry);
        metrics
    }

    /// The series of a cluster; views of it count together.
    pub(super) fn cluster(&self, key: &ClusterKey) -> Arc<ClusterMetrics> {
        let name = key.to_string();
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = clusters.get(&name).and_then(Weak::upgrade) {
            return metrics;
        }
        let metrics = Arc::new(ClusterMetrics::new(name.clone(), self));
        clusters.insert(name, Arc::downgrade(&metrics));
        metrics
    }
}

impl Families {
    fn register_use(&self, registry: &mut Registry) {
        REQUESTS.register(registry, self.requests.clone());
        PENDING_REQUESTS.register(registry, self.pending.clone());
        CONNECTIONS.register(registry, self.connections.clone());
        POOL_REQUESTS.register(registry, self.pool.clone());
        OVERFLOW.register(registry, self.overflow.clone());
    }

    fn register_ejections(&self, registry: &mut Registry) {
        EJECTIONS.register(registry, self.ejections.clone());
        EJECTIONS_REFUSED.register(registry, self.refused.clone());
        EJECTED_ENDPOINTS.register(registry, self.ejected.clone());
        PANIC_REQUESTS.register(registry, self.panics.clone());
    }
}

const LIMITS: [&str; 4] = [limits::CONNECTIONS, limits::PENDING, limits::REQUESTS, limits::RETRIES];
const POOLED: [&str; 3] = ["hit", "miss", "waited"];

impl ClusterMetrics {
    fn new(name: String, metrics: &UpstreamMetrics) -> Self {
        let families = metrics.families.clone();
        let cluster = [("cluster", name.clone())];
        let and = |label, value: &str| [("cluster", name.clone()), (label, value.to_owned())];
        // There from the start: a limit that was never reached is a figure, not a gap.
        for limit in LIMITS {
            drop(families.overflow.get_or_create(&and("limit", limit)));
        }
        Self {
            pool: POOLED.map(|how| families.pool.get_or_create_owned(&and("result", how))),
            panics: families.panics.get_or_create_owned(&cluster),
            ejected: families.ejected.get_or_create_owned(&cluster),
            requests: families.requests.get_or_create_owned(&cluster),
            pending: families.pending.get_or_create_owned(&cluster),
            connections: families.connections.get_or_create_owned(&cluster),
            clusters: Arc::clone(&metrics.clusters),
            name,
            families,
        }
    }

    fn and(&self, label: &'static str, value: &'static str) -> ClusterAnd {
        [("cluster", self.name.clone()), (label, value.to_owned())]
    }

    /// A limit was reached.
    pub(super) fn overflow(&self, limit: &'static str) {
        self.families.overflow.get_or_create(&self.and("limit", limit)).inc();
    }

    /// A request has found a connection.
    pub(super) fn pooled(&self, how: Pooled) {
        let [hit, miss, waited] = &self.pool;
        let counter = match how {
            Pooled::Hit => hit,
            Pooled::Miss => miss,
            Pooled::Waited => waited,
        };
        counter.inc();
    }

    /// An endpoint was ejected.
    pub(super) fn ejected(&self, cause: &'static str) {
        self.families.ejections.get_or_create(&self.and("cause", cause)).inc();
        self.ejected.inc();
    }

    /// An ejected endpoint is used again, or is none any more.
    pub(super) fn returned(&self) {
        self.ejected.dec();
    }

    /// Too many are ejected for one more.
    pub(super) fn ejection_refused(&self) {
        self.families.refused.get_or_create(&[("cluster", self.name.clone())]).inc();
    }

    /// An attempt goes to an endpoint whether it is healthy or not.
    pub(super) fn panicked(&self) {
        self.panics.inc();
    }

    fn remove_series(&self) {
        let families = &self.families;
        let cluster = [("cluster", self.name.clone())];
        for gauges in
            [&families.requests, &families.pending, &families.connections, &families.ejected]
        {
            gauges.remove(&cluster);
        }
        families.refused.remove(&cluster);
        families.panics.remove(&cluster);
        for how in POOLED {
            families.pool.remove(&self.and("result", how));
        }
        for limit in LIMITS {
            families.overflow.remove(&self.and("limit", limit));
        }
        for cause in [Cause::Errors, Cause::Gateway, Cause::Local] {
            families.ejections.remove(&self.and("cause", cause.as_str()));
        }
    }
}

impl Drop for ClusterMetrics {
    fn drop(&mut self) {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have come to count in the same series since.
        let is_mine = |metrics: &Weak<Self>| std::ptr::eq(metrics.as_ptr(), self);
        if clusters.get(&self.name).is_some_and(is_mine) {
            clusters.remove(&self.name);
            self.remove_series();
        }
    }
}

#[cfg(test)]
mod tests;
