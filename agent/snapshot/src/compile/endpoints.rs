//! Endpoints of service ports, and which of them clients of this node are led to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use undermesh_model::{
    Cluster, Distribution, Endpoint, EndpointSlice, NamespacedName, Service, ServicePort,
};

/// An endpoint that a service port may lead to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) address: SocketAddr,
    pub(super) node: Option<&'a str>,
    pub(super) pod: Option<&'a NamespacedName>,
}

/// All endpoint slices, by service.
pub(super) struct Slices<'a>(BTreeMap<&'a NamespacedName, Vec<&'a EndpointSlice>>);

impl<'a> Slices<'a> {
    pub(super) fn of(cluster: &'a Cluster) -> Self {
        let mut slices: BTreeMap<&NamespacedName, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in cluster.endpoint_slices.values() {
            slices.entry(&slice.service).or_default().push(slice);
        }
        Self(slices)
    }

    /// The endpoints of a service port that take connections, of one address family: the ready ones,
    /// or, where none is, those that are going away but still answer.
    pub(super) fn candidates(
        &self,
        service: &Service,
        port: &ServicePort,
        ipv4: bool,
    ) -> Vec<Candidate<'a>> {
        let slices = self.0.get(&service.name).map(Vec::as_slice).unwrap_or_default();
        let all = |usable: fn(&Endpoint) -> bool| -> Vec<Candidate<'a>> {
            let mut found: Vec<_> = slices
                .iter()
                .flat_map(|slice| slice_endpoints(slice, port))
                .filter(|(endpoint, _)| endpoint.address.is_ipv4() == ipv4)
                .filter(|(endpoint, _)| usable(endpoint) || service.publish_not_ready)
                .map(|(endpoint, port)| Candidate {
                    address: SocketAddr::new(endpoint.address, port),
                    node: endpoint.node.as_deref(),
                    pod: endpoint.pod.as_ref(),
                })
                .collect();
            found.sort_unstable_by_key(|candidate| candidate.address);
            found.dedup_by_key(|candidate| candidate.address);
            found
        };
        let ready = all(|endpoint| endpoint.ready);
        if ready.is_empty() { all(|endpoint| endpoint.draining) } else { ready }
    }
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

/// Where this node is.
pub(super) struct Place<'a> {
    cluster: &'a Cluster,
    node: &'a str,
    zone: Option<&'a str>,
}

impl<'a> Place<'a> {
    pub(super) fn of(cluster: &'a Cluster, node: &'a str) -> Self {
        Self { cluster, node, zone: zone(cluster, node) }
    }

    /// The endpoints that clients of this node are led to.
    pub(super) fn choose<'e>(
        &self,
        all: Vec<Candidate<'e>>,
        distribution: Distribution,
    ) -> Vec<Candidate<'e>> {
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

/// The family of a service's first address; a headless one's endpoints decide.
pub(super) fn first_family(service: &Service) -> bool {
    service.cluster_ips.first().is_none_or(IpAddr::is_ipv4)
}
