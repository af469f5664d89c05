//! Stands in for Kubernetes' EndpointSlice controller, which does not run beside a directory of
//! manifests: services with a selector and no EndpointSlice of their own get theirs derived.

use std::collections::{BTreeMap, BTreeSet};

use undermesh_model::{
    Cluster, Endpoint, EndpointPort, EndpointSlice, NamespacedName, Service, ServicePort,
    TargetPort,
};

use crate::{convert::PodRecord, objects::Placed};

type Slices = BTreeMap<NamespacedName, EndpointSlice>;

/// Derives the slices of every service that selects pods and that no slice was written for.
pub(crate) fn derive_missing(cluster: &Cluster, pods: &[Placed<PodRecord>]) -> Slices {
    let written: BTreeSet<&NamespacedName> =
        cluster.endpoint_slices.values().map(|slice| &slice.service).collect();
    let mut by_namespace: BTreeMap<&str, Vec<&PodRecord>> = BTreeMap::new();
    for pod in pods {
        by_namespace.entry(&pod.origin.namespace).or_default().push(&pod.value);
    }
    let missing =
        |service: &&Service| !service.selector.is_empty() && !written.contains(&service.name);
    let mut slices = Slices::new();
    for service in cluster.services.values().filter(missing) {
        let pods = by_namespace.get(service.name.namespace.as_str());
        slices.extend(derive(service, pods.into_iter().flatten().copied()));
    }
    slices
}

/// One slice for each set of ports that the pods resolve to; families may be mixed in it.
fn derive<'a>(service: &Service, pods: impl Iterator<Item = &'a PodRecord>) -> Slices {
    let mut by_ports: BTreeMap<Vec<(usize, u16)>, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.filter(|pod| selects(service, pod)) {
        let ports = service.ports.iter().enumerate();
        let ports = ports.filter_map(|(index, port)| Some((index, target(port, pod)?))).collect();
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
    let slices = by_ports.into_iter().enumerate();
    slices.map(|(index, (ports, endpoints))| slice(service, index, &ports, endpoints)).collect()
}

fn selects(service: &Service, pod: &PodRecord) -> bool {
    let labels = &pod.workload.labels;
    !pod.workload.terminated
        && !pod.workload.addresses.is_empty()
        && service.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The port of the pod that a service port leads to; `None` where a name is not known there.
fn target(port: &ServicePort, pod: &PodRecord) -> Option<u16> {
    match &port.target_port {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod
            .ports
            .iter()
            .find(|own| own.name == *name && own.protocol == port.protocol)
            .map(|own| own.number),
    }
}

/// The colon keeps derived names apart from written ones, which cannot have it.
fn slice(
    service: &Service,
    index: usize,
    ports: &[(usize, u16)],
    endpoints: Vec<Endpoint>,
) -> (NamespacedName, EndpointSlice) {
    let name = format!("{}:derived-{index}", service.name.name);
    let ports = ports.iter().filter_map(|(index, number)| {
        let port = service.ports.get(*index)?;
        Some(EndpointPort { name: port.name.clone(), port: *number, protocol: port.protocol })
    });
    let slice = EndpointSlice {
        origin: service.origin.clone(),
        service: service.name.clone(),
        ports: ports.collect(),
        endpoints,
    };
    (NamespacedName::new(&service.name.namespace, name), slice)
}

#[cfg(test)]
mod tests;
