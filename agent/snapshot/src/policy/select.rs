//! Which AuthorizationPolicies are about a workload.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use undermesh_model::{
    AuthorizationPolicy, Cluster, JwtRule, PolicyAction, RequestAuthentication, Workload,
};

use super::{CompiledPolicy, MtlsModes, Statement, limits::RateLimits};

type Labels = BTreeMap<String, String>;

/// Whether a selector is about a workload; an empty one is about all.
pub(super) fn selects(selector: &Labels, workload: &Workload) -> bool {
    selector.iter().all(|(label, value)| workload.labels.get(label) == Some(value))
}

/// All AuthorizationPolicies, compiled once and shared by the workloads that they are about.
pub(crate) struct Authorizations<'a> {
    root_namespace: &'a str,
    tokens: Tokens<'a>,
    limits: RateLimits<'a>,
    by_namespace: HashMap<&'a str, Vec<(&'a AuthorizationPolicy, Arc<Statement>)>>,
}

impl<'a> Authorizations<'a> {
    pub(crate) fn new(cluster: &'a Cluster, root_namespace: &'a str) -> Self {
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for policy in cluster.authorization_policies.values() {
            let statements = by_namespace.entry(policy.name.namespace.as_str()).or_default();
            statements.push((policy, Arc::new(Statement::new(policy))));
        }
        let (tokens, limits) = (Tokens::new(cluster), RateLimits::new(cluster));
        Self { root_namespace, tokens, limits, by_namespace }
    }

    /// Everything that is about `workload`: policies of its own namespace, and those of the root
    /// namespace, which reach into all others.
    pub(crate) fn of(&self, workload: &Workload, modes: MtlsModes) -> CompiledPolicy {
        let own = workload.name.namespace.as_str();
        let namespaces = [self.root_namespace, own];
        let distinct = if own == self.root_namespace { &namespaces[..1] } else { &namespaces };
        let tokens = self.tokens.of(workload, distinct);
        let limits = self.limits.of(workload, distinct);
        let mut compiled = CompiledPolicy { modes, tokens, limits, ..CompiledPolicy::default() };
        let statements = distinct.iter().filter_map(|name| self.by_namespace.get(name)).flatten();
        for (policy, statement) in statements {
            if selects(&policy.selector, workload) {
                let list = match policy.action {
                    PolicyAction::Allow => &mut compiled.allow,
                    PolicyAction::Deny => &mut compiled.deny,
                    PolicyAction::Audit => &mut compiled.audit,
                    PolicyAction::Custom => &mut compiled.custom,
                };
                list.push(Arc::clone(statement));
            }
        }
        compiled
    }
}

/// All RequestAuthentications; those that are about one workload add up.
struct Tokens<'a> {
    by_namespace: HashMap<&'a str, Vec<Compiled<'a>>>,
}

/// An object, and its rules as workloads share them.
type Compiled<'a> = (&'a RequestAuthentication, Vec<Arc<JwtRule>>);

impl<'a> Tokens<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for object in cluster.request_authentications.values() {
            let rules = object.rules.iter().cloned().map(Arc::new).collect();
            let objects = by_namespace.entry(object.name.namespace.as_str()).or_default();
            objects.push((object, rules));
        }
        Self { by_namespace }
    }

    fn of(&self, workload: &Workload, namespaces: &[&str]) -> Vec<Arc<JwtRule>> {
        let objects = namespaces.iter().filter_map(|name| self.by_namespace.get(name)).flatten();
        let selected = objects.filter(|(object, _)| selects(&object.selector, workload));
        selected.flat_map(|(_, rules)| rules.iter().cloned()).collect()
    }
}
