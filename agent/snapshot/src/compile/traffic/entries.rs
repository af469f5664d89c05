//! Addresses of ServiceEntries. A single one is a service port like any other, a block is one of many
//! addresses, and what has none is known by its port and, within it, by its name. Since nobody else
//! leads connections from there to endpoints, the proxy always does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use undermesh_model::{
    Cluster, Severity,
    traffic::{EntryAddress, Resolution, ServiceEntry},
};

use super::{
    Traffic,
    hosts::{Host, HostPort, Source, entry_hosts, is_single},
    view::Labels,
};
use crate::{
    Blocks, EndpointTarget, ServicePortRoute, addr, any_address,
    compile::services::{Routes, give_out_slots},
    traffic::AppProtocol,
};

/// Hosts with the port that they share an address or a block for.
type Sharing<'a> = Vec<(Host<'a>, HostPort<'a>, &'a ServiceEntry)>;

/// Adds the addresses of ServiceEntries to those of Services.
pub(in crate::compile) fn add_entries<'a>(
    cluster: &'a Cluster,
    traffic: &mut Traffic<'a>,
    routes: &mut Routes,
) -> Blocks {
    let mut by_place: BTreeMap<(IpNet, u16), Sharing<'a>> = BTreeMap::new();
    for (name, entry) in entry_hosts(cluster) {
        let host = Host { name, source: Source::Entry(entry) };
        for port in host.ports() {
            if entry.addresses.is_empty() {
                check_nameless(traffic, entry, &port);
            }
            for block in blocks_of(entry) {
                let sharing = by_place.entry((block, port.number)).or_default();
                sharing.push((host.clone(), port, entry));
            }
        }
    }
    let mut blocks = Blocks::default();
    for ((block, port), sharing) in by_place {
        if is_single(&block) {
            add(traffic, routes, SocketAddr::new(block.addr(), port), &sharing);
        } else if let Some(route) = of_block(traffic, block, &sharing) {
            blocks.insert(block, port, Arc::new(route));
        }
    }
    report_names(cluster, traffic);
    blocks
}

/// Where clients dial an entry; anywhere where it does not say.
fn blocks_of(entry: &ServiceEntry) -> Vec<IpNet> {
    if entry.addresses.is_empty() { any_address().to_vec() } else { entry.addresses.clone() }
}

/// An entry that only its port tells from everything else takes all of the port's connections.
fn check_nameless(traffic: &mut Traffic<'_>, entry: &ServiceEntry, port: &HostPort<'_>) {
    if port.protocol == AppProtocol::Tcp && entry.resolution != Resolution::None {
        let message = format!(
            "takes every connection to port {} that nothing more exact is known for",
            port.number
        );
        let remedy = "TCP has no names: write addresses, or a protocol with names (HTTP, TLS)";
        let code = "captured-by-port";
        traffic.findings.tell(Severity::Warning, &entry.origin, code, message, remedy);
    }
}

/// Names of endpoints where nobody resolves any.
fn report_names(cluster: &Cluster, traffic: &mut Traffic<'_>) {
    for entry in cluster.service_entries.values() {
        let Some(selector) = &entry.selector else { continue };
        if entry.resolution != Resolution::Static {
            continue;
        }
        let selected = cluster.workload_entries.values().filter(|one| {
            let has = |(name, value)| one.endpoint.labels.get(name) == Some(value);
            one.name.namespace == entry.name.namespace && selector.iter().all(has)
        });
        for one in selected {
            if let EntryAddress::Host(name) = &one.endpoint.address {
                let message = format!("{} does not resolve its address {name}", entry.origin);
                let remedy = "write an address, or resolution: DNS in the ServiceEntry";
                let code = "unresolved-endpoint";
                traffic.findings.tell(Severity::Warning, &one.origin, code, message, remedy);
            }
        }
    }
}

fn add<'a>(
    traffic: &mut Traffic<'a>,
    routes: &mut Routes,
    address: SocketAddr,
    sharing: &Sharing<'a>,
) {
    let Some((_, _, entry)) = sharing.first() else { return };
    let taken = routes.get(&address).map(|owner| format!("already belongs to {}", owner.origin));
    if let Some(problem) = is_unusable(address.ip()).or(taken) {
        return unusable(traffic, entry, &address.to_string(), &problem);
    }
    if let Some(route) = route(traffic, sharing, false) {
        routes.insert(address, Arc::new(route));
    }
}

fn of_block<'a>(
    traffic: &mut Traffic<'a>,
    block: IpNet,
    sharing: &Sharing<'a>,
) -> Option<ServicePortRoute> {
    let (_, _, entry) = sharing.first()?;
    let everywhere = block.prefix_len() == 0;
    if let Some(problem) = is_unusable(block.addr()).filter(|_| !everywhere) {
        unusable(traffic, entry, &block.to_string(), &problem);
        return None;
    }
    route(traffic, sharing, everywhere)
}

fn is_unusable(address: IpAddr) -> Option<String> {
    let never = addr(address).is_never_meshed();
    never.then(|| "is loopback, link-local or multicast".to_owned())
}

fn unusable(traffic: &mut Traffic<'_>, entry: &ServiceEntry, address: &str, problem: &str) {
    let message = format!("its address {address} {problem}");
    let remedy = "give the host an address of its own";
    let code = "unusable-entry-address";
    traffic.findings.tell(Severity::Error, &entry.origin, code, message, remedy);
}

/// What stands at an address, at any of a block, or `everywhere`.
fn route<'a>(
    traffic: &mut Traffic<'a>,
    sharing: &Sharing<'a>,
    everywhere: bool,
) -> Option<ServicePortRoute> {
    let (host, port, entry) = sharing.first()?;
    let hosts: Vec<_> = sharing.iter().map(|(host, port, _)| (host.clone(), *port)).collect();
    let rest = everywhere.then(|| traffic.rest(port.number));
    let by_client = traffic.of(&hosts, true, rest.as_ref());
    (!by_client.is_empty()).then(|| ServicePortRoute {
        origin: entry.origin.clone(),
        service: entry.name.clone(),
        host: host.name.clone(),
        port: port.number,
        port_name: port.name.to_owned(),
        endpoints: endpoints(traffic, host, port),
        affinity: false,
        external: true,
        traffic: by_client,
    })
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
