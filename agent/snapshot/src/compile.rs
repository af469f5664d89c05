//! From nouns to a snapshot, in the order in which one thing needs another: workloads, services,
//! map entries.

mod services;
mod workloads;

use undermesh_ebpf_common::{Backend, BackendKey, Service, ServiceKey, WorkloadEntry};
use undermesh_ebpf_common::{backend_flags, service_flags, workload_flags};
use undermesh_model::{Cluster, Diagnostic, Generation, MtlsMode};

use crate::{DatapathTables, Options, Snapshot, addr};

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
    let services = services::compile(cluster, options, &workloads.by_address, &mut diagnostics);
    let mut snapshot = Snapshot {
        generation,
        options: options.clone(),
        workloads: workloads.by_address,
        services,
        local: workloads.local,
        tables: DatapathTables::default(),
    };
    snapshot.tables = tables(&snapshot);
    Compiled { snapshot, diagnostics }
}

/// The map entries that follow from a snapshot's workloads and services.
fn tables(snapshot: &Snapshot) -> DatapathTables {
    let mut tables = DatapathTables::default();
    for (address, workload) in &snapshot.workloads {
        let mut flags = 0;
        if workload.direct {
            flags |= workload_flags::LOCAL;
        }
        if workload.local && workload.mtls == MtlsMode::Strict {
            flags |= workload_flags::STRICT;
            tables.strict_unknown = true;
        }
        tables.workloads.insert(addr(*address), WorkloadEntry { flags });
    }
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
            tables.backends.insert(BackendKey { service: key, slot }, backend);
            slot += 1;
        }
        tables.services.insert(
            key,
            Service {
                backends: slot,
                flags: if route.affinity { service_flags::AFFINITY } else { 0 },
            },
        );
    }
    tables
}

#[cfg(test)]
mod tests;
