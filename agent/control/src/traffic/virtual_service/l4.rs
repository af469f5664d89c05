//! Rules of `tls` and `tcp`.

use ipnet::IpNet;
use undermesh_model::{
    parse_block,
    traffic::{L4Match, L4Rule},
};

use super::{
    destinations,
    findings::{Findings, Path},
    hosts,
    matches::{for_mesh, labels},
    shapes,
};

/// Rules for TLS connections; `hosts` are those of the object.
pub(super) fn tls(
    findings: &mut Findings<'_>,
    routes: &[shapes::L4Route],
    hosts: &[String],
) -> Vec<L4Rule> {
    let at = Path::root("tls");
    for (index, route) in routes.iter().enumerate() {
        let at = at.item(index);
        if route.matches.is_empty() {
            findings.refuse(&at, "has no match", "write match.sniHosts");
        }
        for (index, shape) in route.matches.iter().enumerate() {
            server_names(findings, &at.field("match").item(index), &shape.sni_hosts, hosts);
        }
    }
    rules(findings, &at, routes)
}

/// Rules for connections.
pub(super) fn tcp(findings: &mut Findings<'_>, routes: &[shapes::L4Route]) -> Vec<L4Rule> {
    rules(findings, &Path::root("tcp"), routes)
}

fn rules(findings: &mut Findings<'_>, at: &Path, routes: &[shapes::L4Route]) -> Vec<L4Rule> {
    let mut read = Vec::with_capacity(routes.len());
    for (index, route) in routes.iter().enumerate() {
        let at = at.item(index);
        let backends = destinations::backends(findings, &at.field("route"), &route.route);
        if route.route.is_empty() {
            findings.refuse(&at, "has no route", "write route with a destination");
        }
        let matches = matches(findings, &at.field("match"), &route.matches);
        // Matches that are all for gateways leave nothing of the rule.
        if route.matches.is_empty() || !matches.is_empty() {
            read.push(L4Rule { name: String::new(), matches, backends });
        }
    }
    read
}

fn matches(findings: &mut Findings<'_>, at: &Path, shapes: &[shapes::L4Match]) -> Vec<L4Match> {
    let mut read = Vec::with_capacity(shapes.len());
    for (index, shape) in shapes.iter().enumerate() {
        let at = at.item(index);
        let one = L4Match {
            sni_hosts: shape.sni_hosts.iter().map(|name| name.to_ascii_lowercase()).collect(),
            destinations: subnets(findings, &at, &shape.destination_subnets),
            port: (shape.port != 0).then_some(shape.port),
            source_labels: labels(findings, &at.field("sourceLabels"), &shape.source_labels),
            source_namespace: findings
                .namespace_name(&at.field("sourceNamespace"), &shape.source_namespace),
        };
        if for_mesh(findings, &at.field("gateways"), &shape.gateways) {
            read.push(one);
        }
    }
    read
}

fn subnets(findings: &mut Findings<'_>, at: &Path, texts: &[String]) -> Vec<IpNet> {
    let at = at.field("destinationSubnets");
    let mut read = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match parse_block(text) {
            Some(block) => read.push(block),
            None => {
                let what = format!("{text:?} is neither an address nor a block of addresses");
                findings.refuse(&at.item(index), what, "write it like 10.0.0.0/8");
            }
        }
    }
    read
}

fn server_names(findings: &mut Findings<'_>, at: &Path, names: &[String], hosts: &[String]) {
    let at = at.field("sniHosts");
    if names.is_empty() {
        findings.refuse(&at, "is missing", "write the server names that clients ask for");
    }
    for (index, name) in names.iter().enumerate() {
        let at = at.item(index);
        if !hosts::is_wildcard_domain(name) {
            findings.refuse(&at, format!("{name:?} is no DNS name"), "correct it");
        } else if !hosts.iter().any(|host| hosts::covers(host, name)) {
            let what = format!("{name:?} is none of the hosts of the object");
            findings.refuse(&at, what, "write it in spec.hosts, too, or a wildcard that covers it");
        }
    }
}
