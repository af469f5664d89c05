//! ServiceEntry: hosts that no Service stands for.
//!
//! Source: Istio, `networking/v1/service_entry.proto`; `ValidateServiceEntry` and the schema of the
//! CustomResourceDefinition, for what is refused.

mod ports;
mod shapes;

pub(crate) use shapes::ServiceEntry;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use undermesh_model::{
    NamespacedName,
    traffic::{self as model, EntryEndpoint, EntryLocation, Resolution},
};

use super::{
    common, istio,
    place::{self, Place},
    workload_entry::{self, Addresses, Endpoint},
};
use crate::{
    fields::{self, Known},
    objects::Placed,
    report::{Report, Subject},
};
use shapes::{Located, Resolved, Spec};

/// How many hosts, addresses and ports an entry may have, and how many endpoints.
const MAX_ITEMS: usize = 256;
const MAX_ENDPOINTS: usize = 4096;

const KNOWN: &[Known] = &[
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    (
        "spec",
        &[
            "hosts",
            "addresses",
            "ports",
            "location",
            "resolution",
            "endpoints",
            "workloadSelector",
            "exportTo",
            "subjectAltNames",
        ],
    ),
    ("spec.ports.[]", &["number", "protocol", "name", "targetPort"]),
    ("spec.workloadSelector", &["labels"]),
    ("spec.endpoints.[]", workload_entry::KNOWN),
];

/// Reads a ServiceEntry.
pub(crate) fn service_entry(
    object: &ServiceEntry,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<model::ServiceEntry> {
    fields::check(KNOWN, subject, report);
    let ServiceEntry { metadata, spec } = object;
    let namespace = &subject.origin.namespace;
    let read = place::read(subject, report, "invalid-service-entry", |object| {
        let at = object.field("spec");
        check_sizes(&at, spec);
        istio::check_scope(&at, &spec.export_to, true);
        check_endpoints(&at, spec);
        model::ServiceEntry {
            origin: subject.origin.clone(),
            name: NamespacedName::new(namespace, &subject.origin.name),
            created: common::created(metadata),
            hosts: hosts(&at, spec),
            addresses: addresses(&at, spec),
            ports: ports::ports(&at, spec),
            location: match spec.location {
                Located::MeshExternal => EntryLocation::External,
                Located::MeshInternal => EntryLocation::Internal,
            },
            resolution: resolution(spec),
            endpoints: endpoints(&at, spec),
            selector: selector(&at, spec),
            subject_alt_names: spec.subject_alt_names.iter().cloned().collect(),
            scope: common::scope(&spec.export_to, namespace),
        }
    });
    Placed::new(read, subject)
}

fn check_sizes(at: &Place<'_>, spec: &Spec) {
    for (name, length, most) in [
        ("hosts", spec.hosts.len(), MAX_ITEMS),
        ("addresses", spec.addresses.len(), MAX_ITEMS),
        ("ports", spec.ports.len(), MAX_ITEMS),
        ("endpoints", spec.endpoints.len(), MAX_ENDPOINTS),
    ] {
        if length > most {
            let what = format!("has {length} items, and {most} are allowed");
            at.field(name).refuse(what, "write several ServiceEntries");
        }
    }
}

fn hosts(at: &Place<'_>, spec: &Spec) -> Vec<String> {
    let at = at.field("hosts");
    if spec.hosts.is_empty() {
        at.refuse("is empty", "write a name");
    }
    let resolves_hosts = spec.resolution.is_dns() && spec.endpoints.is_empty();
    let mut seen = BTreeSet::new();
    for (index, host) in spec.hosts.iter().enumerate() {
        let at = at.item(index);
        if host == "*" || !istio::is_wildcard_name(host) {
            at.refuse(format!("{host:?} is no DNS name"), "write a full name or *.NAME");
        } else if resolves_hosts && !istio::is_full_name(host) {
            let what = format!("{host:?} stands for many names, which nobody can resolve");
            at.refuse(what, "write full names, or endpoints, or resolution: NONE");
        } else if host.contains('*') && !host.starts_with("*.") {
            // As Envoy takes it for requests; TLS it would not match.
            let what = format!("{host:?} has a part of a label, and is for all names that end so");
            at.warn("partial-wildcard", what, "write *.NAME");
        }
        if spec.resolution == Resolved::DynamicDns && !host.starts_with('*') {
            let what = format!("{host:?} is no wildcard, which resolution: DYNAMIC_DNS is for");
            at.refuse(what, "write *.NAME, or resolution: DNS");
        }
        seen.insert(host.to_ascii_lowercase());
    }
    seen.into_iter().collect()
}

fn addresses(at: &Place<'_>, spec: &Spec) -> Vec<IpNet> {
    let at = at.field("addresses");
    if spec.resolution == Resolved::DynamicDns && !spec.addresses.is_empty() {
        at.refuse("stands beside resolution: DYNAMIC_DNS", "remove it");
    }
    let mut read = BTreeSet::new();
    for (index, text) in spec.addresses.iter().enumerate() {
        let at = at.item(index);
        let Some(block) = block(text) else {
            at.refuse(format!("{text:?} is no address and no block"), "write IP or IP/LENGTH");
            continue;
        };
        if text.contains('/') && spec.resolution.is_dns() {
            let what = format!("{text} is a block, which resolution: DNS cannot have");
            at.refuse(what, "write single addresses, or resolution: NONE or STATIC");
        }
        read.insert(block);
    }
    read.into_iter().collect()
}

/// An address, or a block without the bits of a host.
fn block(text: &str) -> Option<IpNet> {
    if text.contains('/') {
        return text.parse::<IpNet>().ok().map(|block| block.trunc());
    }
    text.parse::<std::net::IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()))
}

fn resolution(spec: &Spec) -> Resolution {
    match spec.resolution {
        Resolved::None => Resolution::None,
        Resolved::Static => Resolution::Static,
        Resolved::Dns => Resolution::Dns,
        Resolved::DnsRoundRobin => Resolution::DnsRoundRobin,
        Resolved::DynamicDns => Resolution::DynamicDns,
    }
}

fn selector(at: &Place<'_>, spec: &Spec) -> Option<BTreeMap<String, String>> {
    let shape = spec.workload_selector.as_ref()?;
    let at = at.field("workloadSelector");
    istio::check_selector(&at.field("labels"), &shape.labels);
    if shape.labels.is_empty() {
        let what = "has no labels, and so selects all pods of the namespace";
        at.warn("empty-selector", what, "write labels");
    }
    if matches!(spec.resolution, Resolved::None | Resolved::DynamicDns) {
        let what = "has no effect with resolution: NONE and DYNAMIC_DNS";
        at.warn("no-effect", what, "write resolution: STATIC, or remove it");
    }
    Some(shape.labels.clone())
}

fn check_endpoints(at: &Place<'_>, spec: &Spec) {
    let at = at.field("endpoints");
    let many = spec.endpoints.len();
    if many > 0 && spec.workload_selector.is_some() {
        at.refuse("stands beside workloadSelector", "write one of them");
    }
    match spec.resolution {
        Resolved::None | Resolved::DynamicDns if many > 0 => {
            at.refuse("stands beside a resolution that has none", "write resolution: STATIC");
        }
        Resolved::DnsRoundRobin if many > 1 => {
            let what = "has several items, and resolution: DNS_ROUND_ROBIN one at most";
            at.refuse(what, "write resolution: DNS");
        }
        Resolved::Static if many == 0 && spec.workload_selector.is_none() => {
            let what = "is empty: connections to the hosts are refused";
            at.warn(
                "no-endpoints",
                what,
                "write endpoints, a workloadSelector or another resolution",
            );
        }
        _ => {}
    }
}

fn endpoints(at: &Place<'_>, spec: &Spec) -> Vec<EntryEndpoint> {
    let at = at.field("endpoints");
    let addresses = if spec.resolution.is_dns() { Addresses::IpOrName } else { Addresses::Ip };
    let mut read = Vec::with_capacity(spec.endpoints.len().min(MAX_ENDPOINTS));
    for (index, shape) in spec.endpoints.iter().enumerate() {
        let at = at.item(index);
        check_port_names(&at, spec, shape);
        if shape.is_unix() && (spec.resolution.is_dns() || spec.ports.len() != 1) {
            let what = "is the path of a socket, which is for one port and resolution: STATIC";
            at.field("address").refuse(what, "write an address");
        }
        read.extend(workload_entry::endpoint(&at, shape, addresses));
    }
    read
}

fn check_port_names(at: &Place<'_>, spec: &Spec, shape: &Endpoint) {
    for name in shape.port_names() {
        if !spec.ports.iter().any(|port| port.name == name) {
            let what = format!("{name:?} is the name of none of the entry's ports");
            at.field("ports").field(name).refuse(what, "correct it, or name a port so");
        }
    }
}

#[cfg(test)]
mod tests;
