//! Service ports that the mesh takes part in.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use undermesh_model::{
    Cluster, Diagnostic, EndpointSlice, NamespacedName, Protocol, Service, ServicePort, Severity,
};

use crate::{EndpointTarget, ServicePortRoute, WorkloadInfo, addr};

type Workloads = HashMap<IpAddr, Arc<WorkloadInfo>>;
type Routes = HashMap<SocketAddr, Arc<ServicePortRoute>>;

/// Compiles every service port that has a meshed endpoint, or none at all (which is refused rather
/// than left to a time-out). The others are none of the mesh's business.
pub(super) fn compile(
    cluster: &Cluster,
    workloads: &Workloads,
    diagnostics: &mut Vec<Diagnostic>,
) -> Routes {
    let mut slices: BTreeMap<&NamespacedName, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in cluster.endpoint_slices.values() {
        slices.entry(&slice.service).or_default().push(slice);
    }
    let mut routes = Routes::new();
    for service in cluster.services.values() {
        let slices = slices.get(&service.name).map(Vec::as_slice).unwrap_or_default();
        for vip in &service.cluster_ips {
            for port in service.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
                let route = route(service, port, *vip, slices, workloads);
                let meshed = route.endpoints.iter().any(|endpoint| endpoint.workload.is_some());
                if meshed || route.endpoints.is_empty() {
                    add(&mut routes, SocketAddr::new(*vip, port.port), route, diagnostics);
                }
            }
        }
    }
    routes
}

fn route(
    service: &Service,
    port: &ServicePort,
    vip: IpAddr,
    slices: &[&EndpointSlice],
    workloads: &Workloads,
) -> ServicePortRoute {
    let mut endpoints: Vec<EndpointTarget> = slices
        .iter()
        .flat_map(|slice| slice_endpoints(slice, service, port))
        .filter(|address| address.is_ipv4() == vip.is_ipv4())
        .map(|address| EndpointTarget { address, workload: workloads.get(&address.ip()).cloned() })
        .collect();
    endpoints.sort_unstable_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    let NamespacedName { namespace, name } = &service.name;
    ServicePortRoute {
        origin: service.origin.clone(),
        service: service.name.clone(),
        host: format!("{name}.{namespace}.svc.cluster.local"),
        port: port.port,
        port_name: port.name.clone(),
        endpoints,
    }
}

/// Addresses of a slice that serve a service port: matched by the port's name, as Kubernetes does.
fn slice_endpoints(
    slice: &EndpointSlice,
    service: &Service,
    port: &ServicePort,
) -> impl Iterator<Item = SocketAddr> {
    let publish_all = service.publish_not_ready;
    slice
        .ports
        .iter()
        .filter(|candidate| candidate.name == port.name && candidate.protocol == port.protocol)
        .flat_map(move |target| {
            slice
                .endpoints
                .iter()
                .filter(move |endpoint| endpoint.ready || publish_all)
                .map(|endpoint| SocketAddr::new(endpoint.address, target.port))
        })
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
