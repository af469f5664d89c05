//! Which AuthorizationPolicies are about a workload.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use undermesh_model::{AuthorizationPolicy, Cluster, PolicyAction, Workload};

use super::{CompiledPolicy, MtlsModes, Statement};

type Labels = BTreeMap<String, String>;

/// Whether a selector is about a workload; an empty one is about all.
pub(super) fn selects(selector: &Labels, workload: &Workload) -> bool {
    selector.iter().all(|(label, value)| workload.labels.get(label) == Some(value))
}

/// All AuthorizationPolicies, compiled once and shared by the workloads that they are about.
pub(crate) struct Authorizations<'a> {
    root_namespace: &'a str,
    by_namespace: HashMap<&'a str, Vec<(&'a AuthorizationPolicy, Arc<Statement>)>>,
}

impl<'a> Authorizations<'a> {
    pub(crate) fn new(cluster: &'a Cluster, root_namespace: &'a str) -> Self {
        let mut by_namespace: HashMap<_, Vec<_>> = HashMap::new();
        for policy in cluster.authorization_policies.values() {
            let statements = by_namespace.entry(policy.name.namespace.as_str()).or_default();
            statements.push((policy, Arc::new(Statement::new(policy))));
        }
        Self { root_namespace, by_namespace }
    }

    /// Everything that is about `workload`: policies of its own namespace, and those of the root
    /// namespace, which reach into all others.
    pub(crate) fn of(&self, workload: &Workload, modes: MtlsModes) -> CompiledPolicy {
        let own = workload.name.namespace.as_str();
        let mut compiled = CompiledPolicy { modes, ..CompiledPolicy::default() };
        let namespaces = [self.root_namespace, own];
        let distinct = if own == self.root_namespace { &namespaces[..1] } else { &namespaces };
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
