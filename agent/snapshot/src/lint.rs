//! What the compiler has to say about a whole cluster, not as one node's agent sees it.
//!
//! An agent compiles for its own pods: what leads nowhere for clients of other nodes is none of its business. Here
//! every pod is taken for a local one, and every namespace has a client, so that the rules for clients that
//! are still to come are looked at as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

use undermesh_model::{
    Cluster, Diagnostic, Enrolment, Generation, NamespacedName, PodLocation, ResourceRef, Wire,
    Workload, traffic::Scope,
};

use crate::{Options, compile};

/// No pod has such a name: it is no DNS label.
const CLIENT: &str = "?client";
/// The node that all pods are taken to be on.
const NODE: &str = "?";
/// Of clients' addresses: the discard prefix (RFC 6666), in which nobody is.
const PREFIX: u16 = 0x0100;

/// Findings about a cluster, for clients in any namespace and on any node. Gives the same answer for the same
/// input, as [`compile`] does; where an agent works is of no importance.
pub fn findings(cluster: &Cluster, options: &Options) -> Vec<Diagnostic> {
    let mut probed = cluster.clone();
    for pod in probed.workloads.values_mut() {
        pod.node = pod.node.as_ref().map(|_| NODE.to_owned());
        // Where a pod runs is for its agent to find.
        pod.location.get_or_insert_with(|| PodLocation::Netns(NODE.into()));
    }
    for (number, (namespace, labels)) in (1..).zip(clients(cluster)) {
        let client = client(&namespace, number, labels);
        probed.workloads.insert(client.name.clone(), client);
    }
    let options = Options { node: NODE.to_owned(), ..options.clone() };
    let mut found = compile(&probed, &options, Generation::default()).diagnostics;
    let of_client =
        |it: &Diagnostic| it.object.as_ref().is_some_and(|object| object.name.starts_with(CLIENT));
    found.retain(|it| !of_client(it));
    found
}

/// A client in each namespace that is named anywhere, and one with the labels of each rule about clients.
fn clients(cluster: &Cluster) -> BTreeSet<(String, BTreeMap<String, String>)> {
    let mut namespaces: BTreeSet<&str> = cluster.namespaces.keys().map(String::as_str).collect();
    let pods = cluster.workloads.keys();
    let named = pods.chain(cluster.services.keys()).chain(cluster.service_entries.keys());
    let named = named.chain(cluster.routes.iter().map(|set| &set.name));
    namespaces
        .extend(named.chain(cluster.destination_rules.keys()).map(|it| it.namespace.as_str()));
    for set in &cluster.routes {
        if let Scope::Namespaces(only) = &set.scope {
            namespaces.extend(only.iter().map(String::as_str));
        }
    }
    let plain = namespaces.into_iter().map(|namespace| (namespace.to_owned(), BTreeMap::new()));
    let rules = cluster.destination_rules.values().filter(|rule| !rule.selector.is_empty());
    let chosen = rules.map(|rule| (rule.name.namespace.clone(), rule.selector.clone()));
    plain.chain(chosen).collect()
}

fn client(namespace: &str, number: u32, labels: BTreeMap<String, String>) -> Workload {
    let name = format!("{CLIENT}{number}");
    let [high, low] = [number >> 16, number & 0xffff].map(|half| u16::try_from(half).unwrap_or(0));
    Workload {
        origin: ResourceRef::namespaced("Pod", namespace, &name),
        name: NamespacedName::new(namespace, &name),
        service_account: "default".to_owned(),
        node: Some(NODE.to_owned()),
        addresses: vec![Ipv6Addr::new(PREFIX, 0, 0, 0, 0, 0, high, low).into()],
        labels,
        enrolment: Enrolment::Enrolled("a client that is taken for granted".to_owned()),
        location: Some(PodLocation::Netns(NODE.into())),
        outbound_failure: None,
        source_address: None,
        weight: 1,
        probe_ports: BTreeSet::new(),
        wire: Wire::default(),
        host_network: false,
        terminated: false,
        workload_name: name,
    }
}
