//! The immutable state that the proxy works from.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Serialize;
use undermesh_ebpf_common::affinity_slot;
use undermesh_model::{Generation, NamespacedName, ResourceRef};

use crate::{
    Authorizers, Blocks, CompiledPolicy, DatapathTables, Options, PodPlace, WorkloadInfo, addr,
    traffic::PortTraffic,
};

/// One generation of everything that the data plane needs to know.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The source's number for this state.
    pub generation: Generation,
    /// The node settings it was compiled with.
    pub options: Options,
    /// Enrolled workloads by address.
    pub workloads: HashMap<IpAddr, Arc<WorkloadInfo>>,
    /// Service ports by virtual address and port.
    pub services: HashMap<SocketAddr, Arc<ServicePortRoute>>,
    /// Ports of blocks of addresses that hosts of ServiceEntries stand for.
    pub blocks: Blocks,
    /// Enrolled workloads of this node, in the order of their names.
    pub local: Vec<Arc<WorkloadInfo>>,
    /// Where pods of this node run, be they in the mesh or not.
    pub places: Vec<PodPlace>,
    /// Pods of this node that are to be in the mesh and cannot be, and why.
    pub impossible: Vec<(NamespacedName, String)>,
    /// Who may reach those of them that a policy is about.
    pub policies: HashMap<NamespacedName, Arc<CompiledPolicy>>,
    /// Whom these ask.
    pub authorizers: Authorizers,
    /// The desired content of the BPF maps that depend on configuration alone.
    pub tables: DatapathTables,
}

/// What an address that an application dialled stands for.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// A virtual address of a service.
    Service(&'a Arc<ServicePortRoute>),
    /// An enrolled pod, dialled by its own address (headless services too).
    Workload(&'a Arc<WorkloadInfo>),
    /// An address of a block, or any address, that a host of a ServiceEntry stands for. Whether it does
    /// so for the client as well, [`ServicePortRoute::traffic`] says.
    Block(&'a Arc<ServicePortRoute>),
    /// Nothing that the mesh knows.
    Outside,
}

impl Snapshot {
    /// Resolves an address that an application dialled.
    pub fn resolve(&self, dialled: SocketAddr) -> Destination<'_> {
        if let Some(route) = self.services.get(&dialled) {
            return Destination::Service(route);
        }
        if let Some(workload) = self.workloads.get(&dialled.ip()) {
            return Destination::Workload(workload);
        }
        self.blocks.find(dialled).map_or(Destination::Outside, Destination::Block)
    }

    /// The service port, or the port of a block, that an address stands for.
    pub fn route(&self, dialled: SocketAddr) -> Option<&Arc<ServicePortRoute>> {
        match self.resolve(dialled) {
            Destination::Service(route) | Destination::Block(route) => Some(route),
            Destination::Workload(_) | Destination::Outside => None,
        }
    }

    /// Endpoints of a service that is known by its name, in full or as `keys.auth` or `keys.auth.svc`: the node that
    /// the agent runs on may not be able to resolve it.
    pub fn addresses_of(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let (_, route) = self.services.iter().find(|(address, route)| {
            address.port() == port && (route.host == host || is_short(&route.host, host))
        })?;
        Some(route.endpoints.iter().map(|endpoint| endpoint.address).collect())
    }
}

/// `keys.auth` and `keys.auth.svc` for `keys.auth.svc.cluster.local`.
fn is_short(full: &str, host: &str) -> bool {
    let rest = full.strip_prefix(host);
    host.contains('.')
        && rest.is_some_and(|rest| {
            rest.starts_with(".svc.") || host.ends_with(".svc") && rest.starts_with('.')
        })
}

/// One port of a service: who stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePortRoute {
    /// The Service object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub service: NamespacedName,
    /// The service's DNS name, `cart.shop.svc.cluster.local`.
    pub host: String,
    /// The port that clients dial.
    pub port: u16,
    /// Name of the port; may be empty.
    pub port_name: String,
    /// The endpoints that clients of this node are led to, in a stable order.
    pub endpoints: Vec<EndpointTarget>,
    /// A client keeps its endpoint: [`ServicePortRoute::affine`].
    pub affinity: bool,
    /// A host of a ServiceEntry: to clients that it is not for, the address is any other.
    pub external: bool,
    /// What rules say about it, by client namespace; connections of other clients need no look at
    /// what they carry.
    #[serde(skip)]
    pub traffic: BTreeMap<String, Arc<PortTraffic>>,
}

impl ServicePortRoute {
    /// Index of the endpoint that a client has with affinity; the kernel chooses the same one.
    pub fn affine(&self, client: IpAddr) -> Option<usize> {
        let slots = self.endpoints.iter().map(|endpoint| endpoint.weight).sum();
        if !self.affinity || slots == 0 {
            return None;
        }
        let mut slot = affinity_slot(&addr(client), slots);
        self.endpoints.iter().position(|endpoint| {
            let found = slot < endpoint.weight;
            slot = slot.saturating_sub(endpoint.weight);
            found
        })
    }
}

/// One endpoint of a [`ServicePortRoute`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointTarget {
    /// Where to dial.
    pub address: SocketAddr,
    /// The enrolled workload at that address; `None` is dialled in plaintext, outside the mesh.
    pub workload: Option<Arc<WorkloadInfo>>,
    /// How many of the service's slots it has: its share of new connections. At least 1.
    pub weight: u32,
}
