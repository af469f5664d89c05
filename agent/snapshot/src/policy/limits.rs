//! RateLimitPolicy in compiled form: which limits are about a connection or a request. What is left of them is
//! known where they are enforced.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

use undermesh_model::{Cluster, LimitRule, Limits, RateLimitPolicy, ResourceRef, Workload};

use super::{CompiledRule, select::selects};

/// One rule of a RateLimitPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CompiledLimit {
    /// The object.
    pub origin: ResourceRef,
    /// The rule's name in it.
    pub name: String,
    /// It is counted and not enforced.
    pub shadow: bool,
    /// What it is about.
    pub rule: CompiledRule,
    /// What may be asked for.
    pub limits: Limits,
    /// The same for the same budgets: the object, the rule's name, rates and keys. What else changes in a rule
    /// leaves budgets as they are.
    pub budgets: u64,
}

impl CompiledLimit {
    /// Compiles one rule.
    pub fn new(policy: &RateLimitPolicy, index: usize, rule: &LimitRule) -> Self {
        let limits = &rule.limits;
        // Made with fixed keys, so the same for the same configuration; who writes it is trusted.
        let mut hasher = DefaultHasher::new();
        (&policy.origin, &rule.name, policy.shadow).hash(&mut hasher);
        (limits.requests, limits.connections, &limits.key, limits.max_keys).hash(&mut hasher);
        Self {
            origin: policy.origin.clone(),
            name: rule.name.clone(),
            shadow: policy.shadow,
            rule: CompiledRule::new(index, &rule.when),
            limits: limits.clone(),
            budgets: hasher.finish(),
        }
    }

    /// Whether requests have to be seen for it.
    pub(super) fn looks_at_requests(&self) -> bool {
        self.limits.requests.is_some() || self.limits.body.is_some()
    }
}

/// All RateLimitPolicies, compiled once; those that are about one workload add up.
pub(super) struct RateLimits<'a> {
    by_namespace: HashMap<&'a str, Vec<Compiled<'a>>>,
}

/// Whom a policy is about, and its rules as workloads share them.
type Compiled<'a> = (&'a BTreeMap<String, String>, Vec<Arc<CompiledLimit>>);

impl<'a> RateLimits<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for policy in cluster.rate_limits.values() {
            let rules = policy.rules.iter().enumerate();
            let rules = rules.map(|(index, rule)| CompiledLimit::new(policy, index, rule));
            let rules = rules.map(Arc::new).collect();
            let policies = by_namespace.entry(policy.name.namespace.as_str()).or_default();
            policies.push((&policy.selector, rules));
        }
        Self { by_namespace }
    }

    pub(super) fn of(&self, workload: &Workload, namespaces: &[&str]) -> Vec<Arc<CompiledLimit>> {
        let policies = namespaces.iter().filter_map(|name| self.by_namespace.get(name)).flatten();
        let selected = policies.filter(|(selector, _)| selects(selector, workload));
        selected.flat_map(|(_, rules)| rules.iter().cloned()).collect()
    }
}
