//! Addresses of ServiceEntries: they are service ports like any other, and since nobody else leads
//! connections from there to endpoints, the proxy always does.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use undermesh_model::{Cluster, Severity, traffic::ServiceEntry};

use super::{
    Traffic,
    hosts::{Host, HostPort, Source, entry_hosts, is_single},
    view::Labels,
};
use crate::{
    EndpointTarget, ServicePortRoute, addr,
    compile::services::{Routes, give_out_slots},
};

/// Hosts with the port that they share an address for.
type Sharing<'a> = Vec<(Host<'a>, HostPort<'a>, &'a ServiceEntry)>;

/// Adds the addresses of ServiceEntries to those of Services.
pub(in crate::compile) fn add_entries<'a>(
    cluster: &'a Cluster,
    traffic: &mut Traffic<'a>,
    routes: &mut Routes,
) {
    let mut by_address: BTreeMap<SocketAddr, Sharing<'a>> = BTreeMap::new();
    for (name, entry) in entry_hosts(cluster) {
        let host = Host { name, source: Source::Entry(entry) };
        for block in &entry.addresses {
            if !is_single(block) {
                let message = format!("connections to {block} are not captured");
                let remedy = "only single addresses are; name those that clients dial";
                let code = "uncaptured-address";
                traffic.findings.tell(Severity::Warning, &entry.origin, code, message, remedy);
                continue;
            }
            for port in host.ports() {
                let address = SocketAddr::new(block.addr(), port.number);
                by_address.entry(address).or_default().push((host.clone(), port, entry));
            }
        }
    }
    for (address, sharing) in by_address {
        add(traffic, routes, address, &sharing);
    }
}

fn add<'a>(
    traffic: &mut Traffic<'a>,
    routes: &mut Routes,
    address: SocketAddr,
    sharing: &Sharing<'a>,
) {
    let Some((host, port, entry)) = sharing.first() else { return };
    let problem = if addr(address.ip()).is_never_meshed() {
        Some("is loopback, link-local or multicast".to_owned())
    } else {
        routes.get(&address).map(|owner| format!("already belongs to {}", owner.origin))
    };
    if let Some(problem) = problem {
        let message = format!("its address {address} {problem}");
        let remedy = "give the host an address of its own";
        let code = "unusable-entry-address";
        traffic.findings.tell(Severity::Error, &entry.origin, code, message, remedy);
        return;
    }
    let hosts: Vec<_> = sharing.iter().map(|(host, port, _)| (host.clone(), *port)).collect();
    let by_client = traffic.of(&hosts, true);
    if by_client.is_empty() {
        return;
    }
    let route = ServicePortRoute {
        origin: entry.origin.clone(),
        service: entry.name.clone(),
        host: host.name.clone(),
        port: port.number,
        port_name: port.name.to_owned(),
        endpoints: endpoints(traffic, host, port),
        affinity: false,
        traffic: by_client,
    };
    routes.insert(address, Arc::new(route));
}

/// The endpoints that are known without DNS.
fn endpoints(traffic: &Traffic<'_>, host: &Host<'_>, port: &HostPort<'_>) -> Vec<EndpointTarget> {
    let found = traffic.clusters.inventory.of(host, port, &Labels::new(), false);
    let target = |one: super::inventory::Found<'_>| EndpointTarget {
        address: one.address,
        workload: one.workload,
        weight: one.weight,
    };
    let mut endpoints: Vec<_> = found.known.into_iter().map(target).collect();
    give_out_slots(&mut endpoints);
    endpoints
}
