//! Rules about requests at ports that are said to carry none: reported, since what comes there is judged without
//! them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use undermesh_model::{
    Cluster, Diagnostic, NamespacedName, PolicyAction, Protocol, ResourceRef, Severity,
};

use super::{endpoints::Slices, traffic::says_opaque};
use crate::{CompiledPolicy, CompiledRule, Statement, WorkloadInfo};

/// Ports of endpoints, and the Service that says what they carry.
type Opaque<'a> = BTreeMap<IpAddr, BTreeMap<u16, &'a ResourceRef>>;

/// Looks at the policies of this node's pods.
pub(super) fn report(
    cluster: &Cluster,
    slices: &Slices<'_>,
    local: &[Arc<WorkloadInfo>],
    policies: &HashMap<NamespacedName, Arc<CompiledPolicy>>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    if !policies.values().any(|policy| policy.looks_at_requests()) {
        return;
    }
    let opaque = opaque(cluster, slices);
    let mut told: BTreeMap<(&ResourceRef, usize), Diagnostic> = BTreeMap::new();
    for workload in local {
        let Some(policy) = policies.get(&workload.name) else { continue };
        let of = workload.addresses.iter().filter_map(|address| opaque.get(address));
        let ports: BTreeMap<u16, &ResourceRef> =
            of.flatten().map(|(port, service)| (*port, *service)).collect();
        for statement in policy.statements() {
            for rule in statement.rules.iter().filter(|rule| rule.requests) {
                if let Some(found) = finding(statement, rule, &ports) {
                    told.entry((&statement.origin, rule.index)).or_insert(found);
                }
            }
        }
    }
    diagnostics.extend(told.into_values());
}

/// Ports that Services say to carry no requests, as far as no other Service says that they may.
fn opaque<'a>(cluster: &'a Cluster, slices: &Slices<'_>) -> Opaque<'a> {
    let mut opaque = Opaque::new();
    let mut others = BTreeSet::new();
    for service in cluster.services.values() {
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            let says_opaque = says_opaque(port);
            for ipv4 in [true, false] {
                for candidate in slices.candidates(service, port, ipv4) {
                    let (address, port) = (candidate.address.ip(), candidate.address.port());
                    if says_opaque {
                        let ports = opaque.entry(address).or_default();
                        ports.insert(port, &service.origin);
                    } else {
                        others.insert((address, port));
                    }
                }
            }
        }
    }
    for (address, ports) in &mut opaque {
        ports.retain(|port, _| !others.contains(&(*address, *port)));
    }
    opaque
}

/// A rule that names such a port cannot be meant; one that names none is told what becomes of it there.
fn finding(
    statement: &Statement,
    rule: &CompiledRule,
    ports: &BTreeMap<u16, &ResourceRef>,
) -> Option<Diagnostic> {
    let mut lists = rule.clauses.iter().flatten().map(|one| &one.ports);
    let named = lists.any(|list| !list.any_of.is_empty());
    let mut meant = ports.iter().filter(|(port, _)| {
        let admits = |clause: &Vec<crate::Match>| {
            clause.iter().any(|one| one.ports.admit(|own| own == *port))
        };
        rule.clauses.iter().all(admits)
    });
    let (port, service) = meant.next()?;
    let becomes = match statement.action {
        PolicyAction::Allow => "never matches what comes there",
        PolicyAction::Deny => "refuses whatever its other fields match there",
        PolicyAction::Audit => "reports whatever its other fields match there",
        PolicyAction::Custom => {
            "refuses whatever its other fields match there, as nobody can be asked"
        }
    };
    let index = rule.index;
    Some(Diagnostic {
        severity: if named { Severity::Warning } else { Severity::Info },
        code: "requests-at-opaque-port",
        object: Some(statement.origin.clone()),
        position: None,
        message: format!(
            "rule[{index}] looks at requests, and {service} says that port {port} carries none: without HTTP, it {becomes}"
        ),
        remedy: "name ports that carry requests, or correct the name of the Service's port"
            .to_owned(),
    })
}
