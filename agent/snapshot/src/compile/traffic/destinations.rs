//! Which DestinationRule holds for a host and its clients.
//!
//! Source: Istio, `pilot/pkg/model/push_context.go` (`destinationRule`), `destination_rule.go`
//! (merging), `sidecar.go` (workload selectors).

use std::collections::HashMap;

use undermesh_model::{
    Cluster, Diagnostic,
    traffic::{
        ClientTls, ConnectionPool, DestinationRule, LoadBalancer, OutlierDetection, Subset,
        TlsMode, TrafficPolicy,
    },
};

use super::{
    findings::conflict,
    hosts::Host,
    view::{Labels, View},
};
use crate::traffic::HostPattern;

/// DestinationRules of one namespace for one host, merged.
#[derive(Clone, Debug)]
pub(super) struct Merged<'a> {
    /// The one whose name it goes by.
    pub(super) rule: &'a DestinationRule,
    host: HostPattern,
    policy: &'a TrafficPolicy,
    subsets: Vec<&'a Subset>,
}

/// Settings for one port, with the subset's applied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effective<'a> {
    pub(super) balancer: Option<&'a LoadBalancer>,
    pub(super) pool: Option<&'a ConnectionPool>,
    pub(super) outlier: Option<&'a OutlierDetection>,
    pub(super) tls: Option<&'a ClientTls>,
}

impl<'a> Effective<'a> {
    fn of(policy: &'a TrafficPolicy) -> Self {
        Self {
            balancer: policy.balancer.as_ref(),
            pool: policy.pool.as_ref(),
            outlier: policy.outlier.as_ref(),
            tls: policy.tls.as_ref(),
        }
    }

    /// Whether the kernel cannot do what is asked for.
    pub(super) fn needs_proxy(&self) -> bool {
        let tls = self.tls.is_some_and(|tls| matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual));
        self.balancer.is_some() || self.pool.is_some() || self.outlier.is_some() || tls
    }
}

impl<'a> Merged<'a> {
    pub(super) fn subset(&self, name: &str) -> Option<&'a Subset> {
        self.subsets.iter().copied().find(|subset| subset.name == name)
    }

    /// Settings for a port. What is said about the port replaces all that is said above it; a
    /// subset's settings replace one by one; what a subset says about the port replaces all again.
    pub(super) fn effective(&self, subset: Option<&'a Subset>, port: u16) -> Effective<'a> {
        let top = Effective::of(self.policy.ports.get(&port).unwrap_or(self.policy));
        let Some(subset) = subset else { return top };
        if let Some(of_port) = subset.policy.ports.get(&port) {
            return Effective::of(of_port);
        }
        let own = Effective::of(&subset.policy);
        Effective {
            balancer: own.balancer.or(top.balancer),
            pool: own.pool.or(top.pool),
            outlier: own.outlier.or(top.outlier),
            tls: own.tls.or(top.tls),
        }
    }

    /// What it says about any part of the host.
    fn policies(&self) -> impl Iterator<Item = &'a TrafficPolicy> {
        let subsets = self.subsets.iter().map(|one| &one.policy);
        let policies = std::iter::once(self.policy).chain(subsets);
        policies.flat_map(|one| std::iter::once(one).chain(one.ports.values()))
    }

    /// Whether what it does depends on labels of the client.
    pub(super) fn looks_at_clients(&self) -> bool {
        !self.rule.selector.is_empty()
            || self.policies().any(|policy| {
                let locality = policy.balancer.as_ref().and_then(|one| one.locality.as_ref());
                locality.is_some_and(|one| !one.failover_priority.is_empty())
            })
    }

    /// Whether what it does depends on Secrets, which are those of the client's namespace.
    pub(super) fn has_credentials(&self) -> bool {
        self.policies()
            .any(|policy| policy.tls.as_ref().is_some_and(|tls| tls.credential.is_some()))
    }

    fn is_for(&self, labels: &Labels) -> bool {
        self.rule.selector.iter().all(|(label, value)| labels.get(label) == Some(value))
    }
}

/// All DestinationRules, by namespace.
pub(super) struct Destinations<'a> {
    root_namespace: String,
    by_namespace: HashMap<&'a str, Vec<Merged<'a>>>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        root_namespace: &str,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut rules: Vec<&DestinationRule> = cluster.destination_rules.values().collect();
        rules.sort_by_key(|rule| (std::cmp::Reverse(rule.precedence), rule.created, &rule.name));
        let mut by_namespace: HashMap<&str, Vec<Merged<'a>>> = HashMap::new();
        for rule in rules {
            let all = by_namespace.entry(rule.name.namespace.as_str()).or_default();
            merge(all, rule, diagnostics);
        }
        Self { root_namespace: root_namespace.to_owned(), by_namespace }
    }

    /// The rule that clients of a view follow towards a host: that of their own namespace, else of
    /// the host's, else of the root namespace; in each of them that of the most specific host.
    pub(super) fn choose(&self, host: &Host<'_>, view: &View) -> Option<&Merged<'a>> {
        if self.by_namespace.is_empty() {
            return None;
        }
        let own = view.namespace.as_str();
        let root = self.root_namespace.as_str();
        let mut namespaces = vec![own, host.namespace(), root];
        // Rules of the root namespace are for everybody; for its own clients, those of the host's
        // namespace come first.
        if own == root {
            namespaces.remove(0);
        }
        let highest = self.highest_precedence(host, view, &namespaces);
        for namespace in namespaces {
            let all = self.candidates(host, namespace, &view.namespace);
            let all: Vec<_> = all.filter(|one| one.rule.precedence == highest).collect();
            let Some(best) = all.iter().map(|one| specificity(&one.host)).max() else { continue };
            let mut best = all.into_iter().filter(|one| specificity(&one.host) == best);
            let selects = |one: &&Merged<'_>| namespace == own && one.is_for(&view.labels);
            let selected = best.clone().find(|one| !one.rule.selector.is_empty() && selects(one));
            let found = selected.or_else(|| best.find(|one| one.rule.selector.is_empty()));
            // Where a client's own namespace has rules for the host, no other one is asked, even if
            // they select other clients.
            if found.is_some() || namespace == own {
                return found;
            }
        }
        None
    }

    fn highest_precedence(&self, host: &Host<'_>, view: &View, namespaces: &[&str]) -> i64 {
        namespaces
            .iter()
            .flat_map(|namespace| {
                let own = *namespace == view.namespace;
                let all = self.candidates(host, namespace, &view.namespace);
                all.filter(move |one| {
                    one.rule.selector.is_empty() || own && one.is_for(&view.labels)
                })
            })
            .map(|one| one.rule.precedence)
            .max()
            .unwrap_or_default()
    }

    /// Rules of a namespace that are about a host and that a client may see.
    fn candidates(
        &self,
        host: &Host<'_>,
        namespace: &str,
        client: &str,
    ) -> impl Iterator<Item = &Merged<'a>> {
        let all = self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        all.iter()
            .filter(move |one| one.rule.scope.includes(client) && one.host.matches(&host.name))
    }
}

/// Whether a policy asks, for any port, for what the kernel cannot do.
pub(super) fn needs_proxy(policy: &TrafficPolicy) -> bool {
    let mut all = std::iter::once(policy).chain(policy.ports.values());
    all.any(|policy| Effective::of(policy).needs_proxy())
}

/// How specific a host is: a full name, then the longer suffix.
pub(super) fn specificity(host: &HostPattern) -> (bool, usize) {
    (!host.is_wildcard(), host.as_str().len())
}

/// Adds a rule to those of its namespace. Rules for the same host and clients are one: subsets are
/// put together, and the first one that has a policy says how endpoints are used.
fn merge<'a>(
    all: &mut Vec<Merged<'a>>,
    rule: &'a DestinationRule,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let host = HostPattern::new(&rule.host);
    let same = |one: &&mut Merged<'_>| {
        one.host == host && one.rule.selector == rule.selector && one.rule.scope == rule.scope
    };
    let Some(first) = all.iter_mut().find(same) else {
        let subsets = rule.subsets.iter().collect();
        all.push(Merged { rule, host, policy: &rule.policy, subsets });
        return;
    };
    let none = TrafficPolicy::default();
    if *first.policy == none {
        first.policy = &rule.policy;
    } else if rule.policy != none {
        let what = format!("its trafficPolicy for {}", rule.host);
        diagnostics.push(conflict(&rule.origin, &first.rule.origin, &what, "it comes first"));
    }
    for subset in &rule.subsets {
        if first.subset(&subset.name).is_none() {
            first.subsets.push(subset);
        } else {
            let what = format!("its subset {:?} of {}", subset.name, rule.host);
            diagnostics.push(conflict(&rule.origin, &first.rule.origin, &what, "it comes first"));
        }
    }
}
