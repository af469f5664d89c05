//! From nouns to a snapshot, in the order in which one thing needs another: workloads, services,
//! map entries.

mod authorizers;
mod endpoints;
mod opaque;
mod services;
mod traffic;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use undermesh_ebpf_common::{
    Backend, BackendKey, Block, PortKey, Service, ServiceKey, WorkloadEntry, backend_flags,
    block_flags, service_flags, workload_flags,
};
use undermesh_model::{Cluster, Diagnostic, Generation, MtlsMode, Wire};

use crate::{
    DatapathTables, Options, Snapshot, WorkloadInfo, addr, blocks::block_key, policy::PolicyTable,
};

/// What [`compile`] gives.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The snapshot; complete even where there are diagnostics.
    pub snapshot: Snapshot,
    /// What could not be used, or not as meant.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles one state of the configuration for one node.
pub fn compile(cluster: &Cluster, options: &Options, generation: Generation) -> Compiled {
    let mut diagnostics = Vec::new();
    let workloads = workloads::compile(cluster, options, &mut diagnostics);
    let services = services::compile(cluster, options, &workloads, &mut diagnostics);
    let mut snapshot = Snapshot {
        generation,
        options: options.clone(),
        workloads: workloads.by_address,
        services: services.routes,
        blocks: services.blocks,
        local: workloads.local,
        places: workloads::places(cluster, options),
        impossible: workloads::impossible(cluster, options),
        policies: workloads.policies,
        authorizers: services.authorizers,
        tables: DatapathTables::default(),
    };
    snapshot.tables = tables(&snapshot, &services.known);
    Compiled { snapshot, diagnostics }
}

/// The map entries that follow from a snapshot's workloads and services.
fn tables(snapshot: &Snapshot, known: &BTreeSet<SocketAddr>) -> DatapathTables {
    let mut tables = DatapathTables::default();
    guard(snapshot, &mut tables);
    for (vip, route) in &snapshot.services {
        let key = ServiceKey { addr: addr(vip.ip()), port_be: vip.port().to_be(), pad: 0 };
        let mut slot = 0;
        for endpoint in &route.endpoints {
            let direct = endpoint.workload.as_ref().is_some_and(|workload| workload.direct);
            let backend = Backend {
                addr: addr(endpoint.address.ip()),
                port_be: endpoint.address.port().to_be(),
                pad: 0,
                flags: if direct { backend_flags::LOCAL } else { 0 },
            };
            for _ in 0..endpoint.weight {
                tables.backends.insert(BackendKey { service: key, slot }, backend);
                slot += 1;
            }
        }
        let mut flags = if route.affinity { service_flags::AFFINITY } else { 0 };
        if !route.traffic.is_empty() {
            flags |= service_flags::PROXY;
        }
        tables.services.insert(key, Service { backends: slot, flags });
    }
    for address in known {
        let key = ServiceKey { addr: addr(address.ip()), port_be: address.port().to_be(), pad: 0 };
        let service = Service { backends: 0, flags: service_flags::KNOWN };
        tables.services.entry(key).or_insert(service);
    }
    for (block, port, _) in snapshot.blocks.iter() {
        tables.blocks.insert(block_key(block, port), Block { flags: block_flags::PROXY });
    }
    tables
}

/// Workloads, and who may reach those of this node.
fn guard(snapshot: &Snapshot, tables: &mut DatapathTables) {
    let mut policy = PolicyTable::default();
    for workload in &snapshot.local {
        policy.add_source(workload);
    }
    // In the order of addresses: ids must not depend on that of a hash map.
    let workloads: BTreeMap<_, _> = snapshot.workloads.iter().collect();
    for (address, workload) in workloads {
        let entry = entry(snapshot, *address, workload, &mut policy);
        let strict = entry.flags & workload_flags::STRICT != 0;
        tables.strict_unknown |= workload.local && (strict || entry.policy != 0);
        tables.workloads.insert(addr(*address), entry);
        for port in &workload.probe_ports {
            tables.probe_ports.insert(PortKey::new(&addr(*address), port.to_be()), 1);
        }
    }
    tables.policy = policy.entries;
}

fn entry(
    snapshot: &Snapshot,
    address: IpAddr,
    workload: &WorkloadInfo,
    policy: &mut PolicyTable,
) -> WorkloadEntry {
    let flags = match workload.wire {
        Wire::Native => workload_flags::NATIVE,
        Wire::Hbone => 0,
    };
    let mut entry = WorkloadEntry { flags, pad: 0, policy: 0, class: 0, address_class: 0 };
    if workload.mtls.is_plain() {
        entry.flags |= workload_flags::PLAIN;
    }
    if !workload.local {
        return entry;
    }
    if workload.direct {
        entry.flags |= workload_flags::LOCAL;
    }
    if workload.mtls.default == MtlsMode::Strict {
        entry.flags |= workload_flags::STRICT;
    }
    (entry.class, entry.address_class) = policy.classes(workload, address);
    let compiled = snapshot.policies.get(&workload.name).filter(|one| one.is_enforced());
    if let Some(compiled) = compiled {
        entry.policy = policy.add_policy(compiled, address);
        if compiled.looks_at_sources() {
            entry.flags |= workload_flags::BY_ADDRESS;
        }
    }
    entry
}

#[cfg(test)]
mod tests;
