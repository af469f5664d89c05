//! The proxy's own metrics. Labels are bounded: directions, results, reason codes, and policies.

mod native;
mod tls;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use undermesh_model::ResourceRef;
use undermesh_snapshot::{Decision, Finding};
use undermesh_telemetry::Metric;

pub(crate) use native::{NativeMetrics, Origin};
pub(crate) use tls::{Handshake, Role, TlsMetrics};

static CONNECTIONS: Metric =
    Metric::gauge("undermesh_proxy_connections", &["direction"], "open connections");
static TUNNELS: Metric = Metric::gauge("undermesh_proxy_tunnels", &["direction"], "open tunnels");
static HANDSHAKES: Metric = Metric::counter(
    "undermesh_proxy_handshakes",
    &["direction", "result"],
    "TLS handshakes; `ok`, or the reason",
);
static POOL_REQUESTS: Metric = Metric::counter(
    "undermesh_proxy_pool_requests",
    &["result"],
    "streams by how they found a tunnel: `hit` (an open one), `joined` (one being opened), \
     `miss`",
);
static CONNECT_ERRORS: Metric = Metric::counter(
    "undermesh_proxy_connect_errors",
    &["direction", "reason"],
    "connections that were not established",
);
static POLICY_DENIALS: Metric = Metric::counter(
    "undermesh_policy_denials",
    &["policy_namespace", "policy", "rule"],
    "requests and connections that a policy has refused or closed, in the kernel too; `rule` \
     is empty where no single one has decided",
);
static AUTHORIZER_CHECKS: Metric = Metric::counter(
    "undermesh_authorizer_checks",
    &["provider", "result"],
    "requests about which an [authorizer](policy.md#custom) was asked: `allowed`, `denied`, \
     `failed_open` and `failed_closed` (without an answer)",
);
static TOKEN_KEY_FETCHES: Metric = Metric::counter(
    "undermesh_token_key_fetches",
    &["result"],
    "attempts to read the keys that tokens are verified with: `ok`, `failed`",
);
static POLICY_FINDINGS: Metric = Metric::counter(
    "undermesh_policy_findings",
    &["policy_namespace", "policy", "finding"],
    "what policies without a say report: `audit`, `would_deny`, `would_not_allow`",
);
static CLIENT_LIMITS: Metric = Metric::counter(
    "undermesh_client_limits",
    &["reason"],
    "requests and connections that were ended because of a limit on what clients send: \
     [`head_too_large`](http.md#limits), [`body_stalled`, `body_too_slow`, \
     `http2_idle`](limits-and-overload.md#slow-clients)",
);

/// A label's name and value; every value is a constant of this crate or of the identity crate.
type Label = (&'static str, &'static str);

/// A label whose value is a policy's name or namespace.
type PolicyLabel = (&'static str, String);

/// Which way, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    fn label(self) -> Label {
        let value = match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        };
        ("direction", value)
    }
}

/// What a look into the pool gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolResult {
    /// An open tunnel had room.
    Hit,
    /// A handshake was already running.
    Joined,
    /// A handshake was started.
    Miss,
}

/// Everything that the proxy counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    connections: Family<[Label; 1], Gauge>,
    tunnels: Family<[Label; 1], Gauge>,
    handshakes: Family<[Label; 2], Counter>,
    pool: Family<[Label; 1], Counter>,
    connect_errors: Family<[Label; 2], Counter>,
    /// Those of the native wire.
    pub(crate) native: NativeMetrics,
    /// TLS handshakes of both wires.
    pub(crate) tls: TlsMetrics,
    policy_denials: Family<[PolicyLabel; 3], Counter>,
    authorizer_checks: Family<[PolicyLabel; 2], Counter>,
    key_fetches: Family<[Label; 1], Counter>,
    policy_findings: Family<[PolicyLabel; 3], Counter>,
    client_limits: Family<[Label; 1], Counter>,
}

/// Lowers a gauge when it is dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers the metrics; their names are part of the product's interface.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        CONNECTIONS.register(registry, metrics.connections.clone());
        TUNNELS.register(registry, metrics.tunnels.clone());
        HANDSHAKES.register(registry, metrics.handshakes.clone());
        POOL_REQUESTS.register(registry, metrics.pool.clone());
        CONNECT_ERRORS.register(registry, metrics.connect_errors.clone());
        metrics.native.register(registry);
        metrics.tls.register(registry);
        POLICY_DENIALS.register(registry, metrics.policy_denials.clone());
        AUTHORIZER_CHECKS.register(registry, metrics.authorizer_checks.clone());
        TOKEN_KEY_FETCHES.register(registry, metrics.key_fetches.clone());
        POLICY_FINDINGS.register(registry, metrics.policy_findings.clone());
        CLIENT_LIMITS.register(registry, metrics.client_limits.clone());
        metrics
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connection(&self, direction: Direction) -> GaugeGuard {
        GaugeGuard::new(self.connections.get_or_create_owned(&[direction.label()]))
    }

    /// Counts a tunnel for as long as the guard lives.
    pub(crate) fn tunnel(&self, direction: Direction) -> GaugeGuard {
        GaugeGuard::new(self.tunnels.get_or_create_owned(&[direction.label()]))
    }

    /// One handshake ended with `result`: `ok` or a reason code.
    pub(crate) fn record_handshake(&self, direction: Direction, result: &'static str) {
        self.handshakes.get_or_create(&[direction.label(), ("result", result)]).inc();
    }

    /// One look into the pool.
    pub(crate) fn record_pool(&self, result: PoolResult) {
        let result = match result {
            PoolResult::Hit => "hit",
            PoolResult::Joined => "joined",
            PoolResult::Miss => "miss",
        };
        self.pool.get_or_create(&[("result", result)]).inc();
    }

    /// A policy has refused or closed a connection.
    pub(crate) fn record_policy_denial(&self, decision: &Decision<'_>) {
        if let Some(policy) = decision.policy {
            self.record_refusal(policy, decision.rule);
        }
    }

    /// A policy has refused a request because of what its authorizer said, or did not say.
    pub(crate) fn record_policy_refusal(&self, policy: &ResourceRef) {
        self.record_refusal(policy, None);
    }

    /// `rule` is empty where no single one has decided.
    fn record_refusal(&self, policy: &ResourceRef, rule: Option<usize>) {
        let [namespace, policy] = policy_labels(policy);
        let rule = ("rule", rule.map(|rule| rule.to_string()).unwrap_or_default());
        self.policy_denials.get_or_create(&[namespace, policy, rule]).inc();
    }

    /// Keys for tokens were to be read; how that ended.
    pub(crate) fn record_keys(&self, result: &'static str) {
        self.key_fetches.get_or_create(&[("result", result)]).inc();
    }

    /// An authorizer was asked; how that ended.
    pub(crate) fn record_check(&self, provider: &str, result: &'static str) {
        let labels = [("provider", provider.to_owned()), ("result", result.to_owned())];
        self.authorizer_checks.get_or_create(&labels).inc();
    }

    /// A policy without a say has matched.
    pub(crate) fn record_policy_finding(&self, finding: &Finding<'_>) {
        let [namespace, policy] = policy_labels(finding.policy);
        let kind = ("finding", finding.kind.as_str().to_owned());
        self.policy_findings.get_or_create(&[namespace, policy, kind]).inc();
    }

    /// A client has sent too much, or too little.
    pub(crate) fn record_client_limit(&self, reason: &'static str) {
        self.client_limits.get_or_create(&[("reason", reason)]).inc();
    }

    /// One connection was not established.
    pub(crate) fn record_connect_error(&self, direction: Direction, reason: &'static str) {
        self.connect_errors.get_or_create(&[direction.label(), ("reason", reason)]).inc();
    }
}

fn policy_labels(policy: &ResourceRef) -> [PolicyLabel; 2] {
    [("policy_namespace", policy.namespace.clone()), ("policy", policy.name.clone())]
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use undermesh_snapshot::FindingKind;
    use undermesh_tests::Reference;

    use super::*;

    #[test]
    fn every_metric_is_documented_as_it_is_exposed() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let direction = Direction::Outbound;
        let policy = ResourceRef::namespaced("AuthorizationPolicy", "shop", "p");
        let guards = (metrics.connection(direction), metrics.tunnel(direction));
        metrics.record_handshake(direction, "ok");
        metrics.record_pool(PoolResult::Hit);
        metrics.record_connect_error(direction, "timeout");
        metrics.record_policy_refusal(&policy);
        metrics.record_check("provider", "allowed");
        metrics.record_keys("ok");
        let kind = FindingKind::Audit;
        metrics.record_policy_finding(&Finding { kind, policy: &policy, rule: None });
        metrics.record_client_limit("body_stalled");
        let guard = metrics.native.connection(direction);
        metrics.native.record_handshake(direction, "full");
        metrics.native.record_session(Origin::Fresh);
        metrics.native.record_retry();
        metrics.native.record_fallback("refused");
        metrics.native.record_frame_error(direction, "flags");
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        drop((guards, guard));
        let seen = Reference::read().unwrap().check(&text).unwrap();
        let families = text.lines().filter(|line| line.starts_with("# TYPE ")).count();
        assert_eq!((families, seen.len()), (18, 18), "{text}");
    }

    #[test]
    fn guards_bring_gauges_back_to_zero() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let text = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).unwrap();
            text
        };
        let guard = metrics.connection(Direction::Inbound);
        let line = "undermesh_proxy_connections{direction=\"inbound\"}";
        assert!(text(&registry).contains(&format!("{line} 1")));
        drop(guard);
        assert!(text(&registry).contains(&format!("{line} 0")));
    }
}
