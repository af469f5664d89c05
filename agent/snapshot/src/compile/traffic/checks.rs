//! Rules that are about nothing, or about what nobody can dial.

use std::collections::BTreeSet;

use undermesh_model::{
    Cluster, Severity,
    traffic::{DestinationRule, Parent, RouteSet, SimpleBalancer, TrafficPolicy},
};

use super::{
    contest::{about_port, is_about, takes_http, takes_l4},
    destinations::needs_proxy,
    findings::Findings,
    hosts::{Host, Hosts, Source, service_host},
};
use crate::traffic::AppProtocol;

const PORTS: &str = "routes for requests need a port that is not said to be TCP or TLS; correct the port's name or \
                     appProtocol";

/// What is wrong with what routes are about.
pub(super) fn routes(sets: &[RouteSet], hosts: &Hosts<'_>, findings: &mut Findings) {
    let has_rules =
        |set: &&RouteSet| !(set.http.is_empty() && set.tls.is_empty() && set.tcp.is_empty());
    for set in sets.iter().filter(has_rules) {
        let mut lost = false;
        for parent in &set.parents {
            lost |= check(set, parent, hosts, findings);
        }
        if !lost {
            idle_rules(set, hosts, findings);
        }
    }
}

/// Rules that no port takes, of an object of which others hold: they are for another port, or for requests where
/// none are said to be.
fn idle_rules(set: &RouteSet, hosts: &Hosts<'_>, findings: &mut Findings) {
    let mut ports: Vec<(u16, AppProtocol)> = Vec::new();
    for parent in &set.parents {
        let Some((name, wanted)) = dialled(parent) else { return };
        let all = hosts.all(&name);
        let of_it = all.iter().flat_map(Host::ports).map(|port| (port.number, port.protocol));
        ports.extend(of_it.filter(|(port, _)| wanted.is_none_or(|wanted| wanted == *port)));
    }
    let mut look = |kind: &str, index: usize, name: &str, wanted: Vec<Option<u16>>| {
        let takes = |protocol| match kind {
            "http" => takes_http(protocol),
            _ => takes_l4(set.dialect, protocol),
        };
        let mut all = ports.iter();
        if all.any(|(port, speaks)| takes(*speaks) && about_port(wanted.iter().copied(), *port)) {
            return;
        }
        let named = if name.is_empty() { String::new() } else { format!(" ({name})") };
        let wanted: BTreeSet<u16> = wanted.into_iter().flatten().collect();
        let of_port = match wanted.iter().map(u16::to_string).collect::<Vec<_>>() {
            none if none.is_empty() => String::new(),
            some => format!(", which is for port {}", some.join(", ")),
        };
        let number = index + 1;
        let message =
            format!("no port takes rule {number} of {kind}{named}{of_port}: it has no effect");
        findings.tell(Severity::Warning, &set.origin, "rule-without-port", message, PORTS);
    };
    for (index, rule) in set.http.iter().enumerate() {
        look("http", index, &rule.name, rule.matches.iter().map(|one| one.port).collect());
    }
    for (kind, rules) in [("tls", &set.tls), ("tcp", &set.tcp)] {
        for (index, rule) in rules.iter().enumerate() {
            look(kind, index, &rule.name, rule.matches.iter().map(|one| one.port).collect());
        }
    }
}

/// The host that a parent stands for, and its port where it names one; nothing for a wildcard, which may be about
/// hosts that are still to come.
fn dialled(parent: &Parent) -> Option<(String, Option<u16>)> {
    match parent {
        Parent::Host(host) if host.starts_with('*') => None,
        Parent::Host(host) => Some((host.clone(), None)),
        Parent::Service { service, port } => Some((service_host(service), *port)),
    }
}

/// Whether an object has no effect on what it is about.
fn check(set: &RouteSet, parent: &Parent, hosts: &Hosts<'_>, findings: &mut Findings) -> bool {
    let Some((name, wanted)) = dialled(parent) else { return false };
    let all = hosts.all(&name);
    let mut ports = all.iter().flat_map(Host::ports);
    let (code, message, remedy) = if !all.iter().any(Host::has_address) {
        (
            "route-without-address",
            format!("nothing that can be dialled stands for {name}"),
            "name a Service with a clusterIP, or a ServiceEntry with an address; clients of headless \
             services dial its pods",
        )
    } else if !ports
        .any(|port| wanted.is_none_or(|wanted| wanted == port.number) && is_about(set, &port))
    {
        ("route-without-port", format!("no port of {name} takes its routes"), PORTS)
    } else {
        return false;
    };
    findings.tell(Severity::Warning, &set.origin, code, message, remedy);
    true
}

/// What is wrong with what DestinationRules are about.
pub(super) fn destination_rules(cluster: &Cluster, hosts: &Hosts<'_>, findings: &mut Findings) {
    for rule in cluster.destination_rules.values().filter(|rule| !rule.host.starts_with('*')) {
        let all = hosts.all(&rule.host);
        if all.iter().any(|host| matches!(host.source, Source::Service(_))) {
            passthrough(rule, findings);
        }
        let message = if all.is_empty() {
            format!("there is no Service or ServiceEntry for {}", rule.host)
        } else if !all.iter().any(Host::has_address) && needs_proxy(&rule.policy) {
            format!("connections to {} itself do not follow it", rule.host)
        } else {
            continue;
        };
        let remedy = "name a Service with a clusterIP, or a ServiceEntry with an address; without \
                      one, a rule holds only where a route leads to the host";
        findings.tell(Severity::Warning, &rule.origin, "rule-without-address", message, remedy);
    }
}

/// Says that clients of a Service dial an address that nobody has.
fn passthrough(rule: &DestinationRule, findings: &mut Findings) {
    let policies = std::iter::once(&rule.policy).chain(rule.subsets.iter().map(|one| &one.policy));
    let mut all = policies.flat_map(|one| std::iter::once(one).chain(one.ports.values()));
    let passes = |policy: &TrafficPolicy| {
        let balancer = policy.balancer.as_ref();
        balancer.is_some_and(|one| one.simple == Some(SimpleBalancer::Passthrough))
    };
    if all.any(passes) {
        let message = format!(
            "PASSTHROUGH has no effect on the Service {}, whose own address is nobody's",
            rule.host
        );
        let remedy = "leave it out: one of the Service's endpoints is taken as by LEAST_REQUEST";
        findings.tell(Severity::Warning, &rule.origin, "no-effect", message, remedy);
    }
}
