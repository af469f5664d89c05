//! Which BackendTLSPolicy holds for a Service's port.
//!
//! Source: Gateway API, `BackendTLSPolicy.spec.targetRefs`: what is about a port goes before what is about
//! all of them; then the older, then the first by name.

use std::{cmp::Reverse, collections::HashMap};

use undermesh_model::{
    Cluster, Diagnostic, NamespacedName,
    traffic::{BackendTls, ClientTls},
};

use super::{findings::conflict, hosts::service_host};
use crate::traffic::HostPattern;

/// The policies that hold, by Service and port; `None` for all ports.
pub(super) struct BackendPolicies<'a>(HashMap<(&'a NamespacedName, Option<u16>), &'a BackendTls>);

impl<'a> BackendPolicies<'a> {
    pub(super) fn new(cluster: &'a Cluster, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut policies: Vec<_> = cluster.backend_tls.iter().collect();
        policies.sort_by_key(|one| (Reverse(one.precedence), one.created, &one.origin));
        let mut chosen: HashMap<_, &BackendTls> = HashMap::new();
        for policy in policies {
            let key = (&policy.service, policy.port);
            let Some(winner) = chosen.get(&key) else {
                overruled(policy, cluster, diagnostics);
                chosen.insert(key, policy);
                continue;
            };
            let why = if winner.precedence > policy.precedence {
                "its precedence is higher"
            } else if winner.created < policy.created {
                "it is older"
            } else {
                "its name comes first"
            };
            let (loser, winner) = (&policy.origin, &winner.origin);
            diagnostics.push(conflict(loser, winner, &what(policy), why));
        }
        Self(chosen)
    }

    /// How endpoints of a Service's port are spoken to.
    pub(super) fn of(&self, service: &NamespacedName, port: u16) -> Option<&'a ClientTls> {
        let found = self.0.get(&(service, Some(port))).or_else(|| self.0.get(&(service, None)));
        found.map(|policy| &policy.tls)
    }
}

/// Reports DestinationRules that say something else about TLS: clients that follow one of them do as it
/// says.
fn overruled(policy: &BackendTls, cluster: &Cluster, diagnostics: &mut Vec<Diagnostic>) {
    let host = service_host(&policy.service);
    for rule in cluster.destination_rules.values() {
        let wanted = |port: &u16| policy.port.is_none_or(|wanted| wanted == *port);
        let of_ports = rule.policy.ports.iter().filter(|(port, _)| wanted(port));
        let mut all = of_ports.map(|(_, of_port)| of_port).chain([&rule.policy]);
        if all.any(|one| one.tls.is_some()) && HostPattern::new(&rule.host).matches(&host) {
            let what = format!("{}, towards clients that follow the rule,", what(policy));
            let why = "the tls of a DestinationRule goes first";
            diagnostics.push(conflict(&policy.origin, &rule.origin, &what, why));
        }
    }
}

fn what(policy: &BackendTls) -> String {
    let port = policy.port.map(|port| format!(" port {port}")).unwrap_or_default();
    format!("its TLS for {}{port}", service_host(&policy.service))
}
