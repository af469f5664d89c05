//! Service ports that the mesh takes part in.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use undermesh_model::{
    Cluster, Diagnostic, Distribution, Endpoint, EndpointSlice, NamespacedName, Protocol, Service,
    ServicePort, Severity,
};

use crate::{EndpointTarget, Options, ServicePortRoute, WorkloadInfo, addr};

/// Slots that the weights of one service port may take.
const MAX_SLOTS: u64 = 4_096;

type Workloads = HashMap<IpAddr, Arc<WorkloadInfo>>;
type Routes = HashMap<SocketAddr, Arc<ServicePortRoute>>;

/// Compiles every service port that has a meshed endpoint, or none at all (which is refused rather
/// than left to a time-out). The others are none of the mesh's business.
pub(super) fn compile(
    cluster: &Cluster,
    options: &Options,
    workloads: &Workloads,
    diagnostics: &mut Vec<Diagnostic>,
) -> Routes {
    let place = Place::of(cluster, &options.node);
    let mut slices: BTreeMap<&NamespacedName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in cluster.endpoint_slices.values() {
        slices.entry(&slice.service).or_default().push(slice);
    }
    let mut routes = Routes::new();
    for service in cluster.services.values() {
        let slices = slices.get(&service.name).map(Vec::as_slice).unwrap_or_default();
        for vip in &service.cluster_ips {
            for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
                let candidates = candidates(service, port, *vip, slices);
                let chosen = place.choose(candidates, service.distribution);
                let route = route(service, port, &chosen, workloads);
                let meshed = route.endpoints.iter().any(|endpoint| endpoint.workload.is_some());
                if meshed || route.endpoints.is_empty() {
                    add(&mut routes, SocketAddr::new(*vip, port.port), route, diagnostics);
                }
            }
        }
    }
    routes
}

/// An endpoint that a service port may lead to.
#[derive(Clone, Debug)]
struct Candidate<'a> {
    address: SocketAddr,
    node: Option<&'a str>,
}

/// Where this node is.
struct Place<'a> {
    cluster: &'a Cluster,
    node: &'a str,
    zone: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(cluster: &'a Cluster, node: &'a str) -> Self {
        Self { cluster, node, zone: zone(cluster, node) }
    }

    /// The endpoints that clients of this node are led to.
    fn choose(&self, all: Vec<Candidate<'a>>, distribution: Distribution) -> Vec<Candidate<'a>> {
        let here = |candidate: &Candidate<'_>| candidate.node == Some(self.node);
        let close = |candidate: &Candidate<'_>| {
            self.zone.is_some()
                && candidate.node.and_then(|node| zone(self.cluster, node)) == self.zone
        };
        match distribution {
            Distribution::Anywhere => all,
            Distribution::OnlySameNode => all.into_iter().filter(here).collect(),
            Distribution::PreferSameZone => prefer(all, close),
            Distribution::PreferSameNode if all.iter().any(here) => prefer(all, here),
            Distribution::PreferSameNode => prefer(all, close),
        }
    }
}

/// Those that are `wanted`, if there are any, else all.
fn prefer<'a>(
    all: Vec<Candidate<'a>>,
    wanted: impl Fn(&Candidate<'_>) -> bool,
) -> Vec<Candidate<'a>> {
    if all.iter().any(&wanted) { all.into_iter().filter(wanted).collect() } else { all }
}

fn zone<'a>(cluster: &'a Cluster, node: &str) -> Option<&'a str> {
    cluster.nodes.get(node)?.labels.get("topology.kubernetes.io/zone").map(String::as_str)
}

/// The endpoints of a service port that take connections: the ready ones, or, where none is, those
/// that are going away but still answer.
fn candidates<'a>(
    service: &Service,
    port: &ServicePort,
    vip: IpAddr,
    slices: &[&'a EndpointSlice],
) -> Vec<Candidate<'a>> {
    let all = |usable: fn(&Endpoint) -> bool| -> Vec<Candidate<'a>> {
        let mut found: Vec<_> = slices
            .iter()
            .flat_map(|slice| slice_endpoints(slice, port))
            .filter(|(endpoint, _)| endpoint.address.is_ipv4() == vip.is_ipv4())
            .filter(|(endpoint, _)| usable(endpoint) || service.publish_not_ready)
            .map(|(endpoint, port)| Candidate {
                address: SocketAddr::new(endpoint.address, port),
                node: endpoint.node.as_deref(),
            })
            .collect();
        found.sort_unstable_by_key(|candidate| candidate.address);
        found.dedup_by_key(|candidate| candidate.address);
        found
    };
    let ready = all(|endpoint| endpoint.ready);
    if ready.is_empty() { all(|endpoint| endpoint.draining) } else { ready }
}

fn route(
    service: &Service,
    port: &ServicePort,
    chosen: &[Candidate<'_>],
    workloads: &Workloads,
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
        traffic: BTreeMap::new(),
    }
}

/// Turns weights into as few slots as have the same proportions, or nearly so where that would take
/// too many.
fn give_out_slots(endpoints: &mut [EndpointTarget]) {
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

/// Endpoints of a slice with the port that serves a service port: matched by the port's name, as
/// Kubernetes does.
fn slice_endpoints<'a>(
    slice: &'a EndpointSlice,
    port: &ServicePort,
) -> impl Iterator<Item = (&'a Endpoint, u16)> {
    slice
        .ports
        .iter()
        .filter(|candidate| candidate.name == port.name && candidate.protocol == port.protocol)
        .flat_map(|target| slice.endpoints.iter().map(|endpoint| (endpoint, target.port)))
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
