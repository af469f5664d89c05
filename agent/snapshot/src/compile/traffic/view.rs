//! For whom something is compiled: clients of one namespace, as far as rules can tell them apart.

use std::collections::{BTreeMap, BTreeSet};

use undermesh_model::Cluster;

use crate::WorkloadInfo;

/// Labels of clients.
pub(super) type Labels = BTreeMap<String, String>;

/// Clients that rules cannot tell apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct View {
    /// Their namespace; empty for nobody in particular.
    pub(super) namespace: String,
    /// Those of their labels that some DestinationRule looks at.
    pub(super) labels: Labels,
}

/// The views of this node's clients, by namespace. Where a namespace has more than one, a client
/// belongs to the first whose labels it has: the one with more labels comes first.
pub(super) fn views(
    cluster: &Cluster,
    local: &[std::sync::Arc<WorkloadInfo>],
) -> BTreeMap<String, Vec<View>> {
    let looked_at = looked_at(cluster);
    let mut views: BTreeMap<String, BTreeSet<View>> = BTreeMap::new();
    for workload in local {
        let namespace = workload.name.namespace.clone();
        let labels = workload.labels.iter().filter(|(label, _)| looked_at.contains(label.as_str()));
        let labels = labels.map(|(label, value)| (label.clone(), value.clone())).collect();
        let view = View { namespace: namespace.clone(), labels };
        views.entry(namespace).or_default().insert(view);
    }
    let ordered = |all: BTreeSet<View>| {
        let mut all: Vec<View> = all.into_iter().collect();
        all.sort_by_key(|view| std::cmp::Reverse(view.labels.len()));
        all
    };
    views.into_iter().map(|(namespace, all)| (namespace, ordered(all))).collect()
}

/// Labels of clients that DestinationRules look at.
fn looked_at(cluster: &Cluster) -> BTreeSet<&str> {
    let mut labels = BTreeSet::new();
    for rule in cluster.destination_rules.values() {
        labels.extend(rule.selector.keys().map(String::as_str));
        let subsets = rule.subsets.iter().map(|subset| &subset.policy);
        for policy in std::iter::once(&rule.policy).chain(subsets) {
            for policy in std::iter::once(policy).chain(policy.ports.values()) {
                let locality = policy.balancer.as_ref().and_then(|one| one.locality.as_ref());
                let priority = locality.iter().flat_map(|one| &one.failover_priority);
                // `label=value` compares endpoints with the value, not with the client.
                labels.extend(priority.filter(|label| !label.contains('=')).map(String::as_str));
            }
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use undermesh_model::{
        NamespacedName, ResourceRef,
        traffic::{DestinationRule, Scope, TrafficPolicy},
    };

    use super::*;

    #[test]
    fn clients_are_told_apart_only_by_labels_that_a_rule_looks_at() {
        let mut cluster = Cluster::default();
        let name = NamespacedName::new("shop", "rule");
        let rule = DestinationRule {
            origin: ResourceRef::namespaced("DestinationRule", "shop", "rule"),
            name: name.clone(),
            precedence: 0,
            created: 0,
            host: "cart.shop.svc.cluster.local".to_owned(),
            selector: [("tier".to_owned(), "gold".to_owned())].into(),
            scope: Scope::Everywhere,
            policy: TrafficPolicy::default(),
            subsets: Vec::new(),
        };
        assert!(looked_at(&cluster).is_empty());
        cluster.destination_rules.insert(name, rule);
        assert_eq!(looked_at(&cluster), ["tier"].into());
    }
}
