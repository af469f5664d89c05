//! What limits have let pass and refused. Labels are bounded by configuration.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use undermesh_snapshot::CompiledLimit;
use undermesh_telemetry::Metric;

static OUTCOMES: Metric = Metric::counter(
    "undermesh_rate_limit",
    &["policy_namespace", "policy", "rule", "outcome"],
    "what [RateLimitPolicies](limits-and-overload.md) are about: `passed`, `limited`, \
     `would_limit` (shadow), `too_large`",
);
static EVICTIONS: Metric = Metric::counter(
    "undermesh_rate_limit_evictions",
    &["policy_namespace", "policy", "rule"],
    "budgets that were forgotten before they were full again, for want of room",
);

type Label = (&'static str, String);

/// What became of something that a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Limited,
    WouldLimit,
    TooLarge,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Limited => "limited",
            Self::WouldLimit => "would_limit",
            Self::TooLarge => "too_large",
        }
    }
}

/// The counters of all limits.
#[derive(Clone, Debug, Default)]
pub(crate) struct LimitMetrics {
    outcomes: Family<[Label; 4], Counter>,
    evictions: Family<[Label; 3], Counter>,
}

/// Those of one limit.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) passed: Counter,
    pub(super) limited: Counter,
    pub(super) would_limit: Counter,
    pub(super) evictions: Counter,
}

impl LimitMetrics {
    /// Registers the metrics; their names are part of the product's interface.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        OUTCOMES.register(registry, metrics.outcomes.clone());
        EVICTIONS.register(registry, metrics.evictions.clone());
        metrics
    }

    pub(super) fn record(&self, limit: &CompiledLimit, outcome: Outcome) {
        self.outcome(limit, outcome).inc();
    }

    pub(super) fn counters(&self, limit: &CompiledLimit) -> Counters {
        Counters {
            passed: self.outcome(limit, Outcome::Passed),
            limited: self.outcome(limit, Outcome::Limited),
            would_limit: self.outcome(limit, Outcome::WouldLimit),
            evictions: self.evictions.get_or_create_owned(&labels(limit)),
        }
    }

    fn outcome(&self, limit: &CompiledLimit, outcome: Outcome) -> Counter {
        let [namespace, policy, rule] = labels(limit);
        let outcome = ("outcome", outcome.as_str().to_owned());
        self.outcomes.get_or_create_owned(&[namespace, policy, rule, outcome])
    }
}

fn labels(limit: &CompiledLimit) -> [Label; 3] {
    [
        ("policy_namespace", limit.origin.namespace.clone()),
        ("policy", limit.origin.name.clone()),
        ("rule", limit.name.clone()),
    ]
}
