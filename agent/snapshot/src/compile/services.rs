//! Service ports that the mesh takes part in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use undermesh_model::{
    Cluster, Diagnostic, NamespacedName, Protocol, Service, ServicePort, Severity,
};

use super::{
    authorizers,
    endpoints::{Candidate, Place, Slices},
    opaque,
    traffic::{Traffic, add_entries},
    workloads::Workloads,
};
use crate::{
    Authorizers, Blocks, EndpointTarget, Options, OutboundPolicy, ServicePortRoute, WorkloadInfo,
    addr,
};

/// Slots that the weights of one service port may take.
const MAX_SLOTS: u64 = 4_096;

/// What clients of this node may dial besides pods.
pub(super) struct Services {
    pub(super) routes: Routes,
    /// Ports of blocks of addresses.
    pub(super) blocks: Blocks,
    /// What is registered and left alone; empty where it makes no difference.
    pub(super) known: BTreeSet<SocketAddr>,
    pub(super) authorizers: Authorizers,
}

pub(super) type Routes = HashMap<SocketAddr, Arc<ServicePortRoute>>;

/// Compiles every service port that has a meshed endpoint, or none at all (which is refused rather
/// than left to a time-out), or that a rule is about. The others are none of the mesh's business.
pub(super) fn compile<'a>(
    cluster: &'a Cluster,
    options: &'a Options,
    workloads: &'a Workloads,
    diagnostics: &mut Vec<Diagnostic>,
) -> Services {
    let slices = Slices::of(cluster);
    let place = Place::of(cluster, &options.node);
    let mut traffic = Traffic::new(cluster, options, workloads, &slices, diagnostics);
    let mut routes = Routes::new();
    for service in cluster.services.values() {
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            if service.cluster_ips.is_empty() {
                continue;
            }
            let by_client = traffic.of_service(service, port.port);
            for vip in &service.cluster_ips {
                let candidates = slices.candidates(service, port, vip.is_ipv4());
                let chosen = place.choose(candidates, service.distribution);
                let mut route = route(service, port, &chosen, &workloads.by_address);
                route.traffic.clone_from(&by_client);
                let meshed = route.endpoints.iter().any(|endpoint| endpoint.workload.is_some());
                if meshed || route.endpoints.is_empty() || !route.traffic.is_empty() {
                    add(&mut routes, SocketAddr::new(*vip, port.port), route, diagnostics);
                }
            }
        }
    }
    let blocks = add_entries(cluster, &mut traffic, &mut routes);
    let policies = &workloads.policies;
    let authorizers = authorizers::compile(cluster, options, policies, &mut traffic, diagnostics);
    traffic.report(diagnostics);
    opaque::report(cluster, &slices, &workloads.local, policies, diagnostics);
    let needed = options.outbound_policy == OutboundPolicy::RegistryOnly || !blocks.is_empty();
    let known = if needed { known(cluster, &slices, &routes, workloads) } else { BTreeSet::new() };
    Services { routes, blocks, known, authorizers }
}

/// Addresses that are services', or endpoints of services which clients dial directly, and none of the
/// mesh's business.
fn known(
    cluster: &Cluster,
    slices: &Slices<'_>,
    routes: &Routes,
    workloads: &Workloads,
) -> BTreeSet<SocketAddr> {
    let mut known = BTreeSet::new();
    for service in cluster.services.values() {
        for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
            let vips = service.cluster_ips.iter();
            known.extend(vips.map(|vip| SocketAddr::new(*vip, port.port)));
            if service.cluster_ips.is_empty() {
                let both = [true, false];
                let all = both.iter().flat_map(|ipv4| slices.candidates(service, port, *ipv4));
                known.extend(all.map(|candidate| candidate.address));
            }
        }
    }
    let meshed = |address: &SocketAddr| {
        routes.contains_key(address) || workloads.by_address.contains_key(&address.ip())
    };
    known.retain(|address| !meshed(address));
    known
}

fn route(
    service: &Service,
    port: &ServicePort,
    chosen: &[Candidate<'_>],
    workloads: &HashMap<IpAddr, Arc<WorkloadInfo>>,
) -> ServicePortRoute {
    let NamespacedName { namespace, name } = &service.name;
    let mut endpoints: Vec<EndpointTarget> = chosen
        .iter()
        .map(|candidate| {
            let workload = workloads.get(&candidate.address.ip()).cloned();
            let weight = workload.as_ref().map_or(1, |workload| workload.weight);
            EndpointTarget { address: candidate.address, workload, weight }
        })
        .collect();
    give_out_slots(&mut endpoints);
    ServicePortRoute {
        origin: service.origin.clone(),
        service: service.name.clone(),
        host: format!("{name}.{namespace}.svc.cluster.local"),
        port: port.port,
        port_name: port.name.clone(),
        endpoints,
        affinity: service.affinity,
        external: false,
        traffic: BTreeMap::new(),
    }
}

/// Turns weights into as few slots as have the same proportions, or nearly so where that would take
/// too many.
pub(super) fn give_out_slots(endpoints: &mut [EndpointTarget]) {
    let divisor = endpoints.iter().fold(0, |divisor, endpoint| gcd(endpoint.weight, divisor));
    let total: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight / divisor)).sum();
    for endpoint in endpoints {
        let weight = u64::from(endpoint.weight / divisor);
        let slots = if total > MAX_SLOTS { weight * MAX_SLOTS / total } else { weight };
        endpoint.weight = u32::try_from(slots).unwrap_or(u32::MAX).max(1);
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn add(
    routes: &mut Routes,
    vip: SocketAddr,
    route: ServicePortRoute,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let problem = if addr(vip.ip()).is_never_meshed() {
        Some("is loopback, link-local or multicast".to_owned())
    } else {
        routes.get(&vip).map(|owner| format!("already belongs to {}", owner.origin))
    };
    match problem {
        Some(problem) => diagnostics.push(Diagnostic {
            severity: Severity::Error,
            code: "unusable-cluster-ip",
            object: Some(route.origin),
            position: None,
            message: format!("its address {vip} {problem}"),
            remedy: "give the service a clusterIP of its own".to_owned(),
        }),
        None => {
            routes.insert(vip, Arc::new(route));
        }
    }
}
