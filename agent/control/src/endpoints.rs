//! Stands in for Kubernetes' EndpointSlice controller, which does not run beside a directory of
//! manifests: services with a selector and no EndpointSlice of their own get theirs derived.

use std::collections::{BTreeMap, BTreeSet};

use undermesh_model::{
    Endpoint, EndpointPort, EndpointSlice, NamespacedName, Service, ServicePort, TargetPort,
};

use crate::convert::PodRecord;

/// Derives the slices of one service: one for each set of ports that its pods resolve to.
pub(crate) fn derive<'a>(
    service: &Service,
    pods: impl Iterator<Item = &'a PodRecord>,
) -> BTreeMap<NamespacedName, EndpointSlice> {
    let mut by_ports: BTreeMap<Vec<(String, u16)>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.filter(|pod| selects(service, pod)) {
        let ports: Vec<(String, u16)> = service
            .ports
            .iter()
            .filter_map(|port| Some((port.name.clone(), target(port, pod)?)))
            .collect();
        let workload = &pod.workload;
        let endpoints = workload.addresses.iter().map(|address| Endpoint {
            address: *address,
            ready: pod.ready,
            draining: pod.draining,
            pod: Some(workload.name.clone()),
            node: workload.node.clone(),
        });
        by_ports.entry(ports).or_default().extend(endpoints);
    }
    by_ports
        .into_iter()
        .enumerate()
        .map(|(index, (ports, endpoints))| slice(service, index, &ports, endpoints))
        .collect()
}

/// The services that need derived slices.
pub(crate) fn without_slices<'a>(
    services: impl Iterator<Item = &'a Service>,
    covered: &BTreeSet<NamespacedName>,
) -> Vec<&'a Service> {
    services
        .filter(|service| !service.selector.is_empty() && !covered.contains(&service.name))
        .collect()
}

fn selects(service: &Service, pod: &PodRecord) -> bool {
    let workload = &pod.workload;
    let labels = &workload.labels;
    workload.name.namespace == service.name.namespace
        && !workload.terminated
        && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The port of the pod that a service port leads to; `None` where a name is not known there.
fn target(port: &ServicePort, pod: &PodRecord) -> Option<u16> {
    match &port.target_port {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let named =
                |(own, _, protocol): &&(String, u16, _)| own == name && *protocol == port.protocol;
            pod.ports.iter().find(named).map(|(_, number, _)| *number)
        }
    }
}

fn slice(
    service: &Service,
    index: usize,
    ports: &[(String, u16)],
    endpoints: Vec<Endpoint>,
) -> (NamespacedName, EndpointSlice) {
    let name = format!("{}-derived-{index}", service.name.name);
    let protocol =
        |name: &str| service.ports.iter().find(|port| port.name == name).map(|port| port.protocol);
    let slice = EndpointSlice {
        origin: service.origin.clone(),
        service: service.name.clone(),
        ports: ports
            .iter()
            .map(|(name, port)| EndpointPort {
                name: name.clone(),
                port: *port,
                protocol: protocol(name).unwrap_or_default(),
            })
            .collect(),
        endpoints,
    };
    (NamespacedName::new(&service.name.namespace, name), slice)
}
