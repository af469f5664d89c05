//! Rules that are about nothing, or about what nobody can dial.

use undermesh_model::{
    Cluster, Severity,
    traffic::{DestinationRule, Parent, RouteSet, SimpleBalancer, TrafficPolicy},
};

use super::{
    contest::is_about,
    destinations::needs_proxy,
    findings::Findings,
    hosts::{Host, Hosts, Source, service_host},
};

/// What is wrong with what routes are about.
pub(super) fn routes(sets: &[RouteSet], hosts: &Hosts<'_>, findings: &mut Findings) {
    let has_rules =
        |set: &&RouteSet| !(set.http.is_empty() && set.tls.is_empty() && set.tcp.is_empty());
    for set in sets.iter().filter(has_rules) {
        for parent in &set.parents {
            check(set, parent, hosts, findings);
        }
    }
}

fn check(set: &RouteSet, parent: &Parent, hosts: &Hosts<'_>, findings: &mut Findings) {
    let (name, wanted) = match parent {
        // May be about hosts that are still to come.
        Parent::Host(host) if host.starts_with('*') => return,
        Parent::Host(host) => (host.clone(), None),
        Parent::Service { service, port } => (service_host(service), *port),
    };
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
        (
            "route-without-port",
            format!("no port of {name} takes its routes"),
            "routes for requests need a port that is not said to be TCP or TLS; correct the port's \
             name or appProtocol",
        )
    } else {
        return;
    };
    findings.tell(Severity::Warning, &set.origin, code, message, remedy);
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
