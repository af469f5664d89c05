//! Endpoints of hosts, with all that rules look at: labels, places, weights.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

use undermesh_model::{
    Cluster, Distribution, ExternalName, Protocol, Service, SpiffeId, TrustDomain, Workload,
    traffic::{EntryAddress, EntryEndpoint, Locality, Resolution, ServiceEntry},
};

use super::{
    hosts::{Host, HostPort, Source, is_single},
    view::Labels,
};
use crate::{
    Options, WorkloadInfo,
    compile::endpoints::{Candidate, Place, Slices, first_family},
};

/// An endpoint of a host.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) address: SocketAddr,
    pub(super) workload: Option<Arc<WorkloadInfo>>,
    pub(super) labels: &'a Labels,
    pub(super) locality: Locality,
    pub(super) network: &'a str,
    pub(super) weight: u32,
    /// Whom it proves to be, where somebody says it.
    pub(super) identity: Option<SpiffeId>,
}

/// The endpoints of a host's port.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints<'a> {
    pub(super) known: Vec<Found<'a>>,
    /// Names that stand for some.
    pub(super) dns: Vec<Name<'a>>,
}

/// A name that has to be resolved.
#[derive(Clone, Debug)]
pub(super) struct Name<'a> {
    pub(super) name: String,
    /// One address at a time stands for it.
    pub(super) one: bool,
    /// What holds for each of its addresses, with none in their place.
    pub(super) found: Found<'a>,
}

/// Endpoints of the whole cluster.
pub(super) struct Inventory<'a> {
    cluster: &'a Cluster,
    workloads: &'a HashMap<IpAddr, Arc<WorkloadInfo>>,
    pods: HashMap<IpAddr, &'a Workload>,
    slices: &'a Slices<'a>,
    place: Place<'a>,
    trust_domain: &'a TrustDomain,
    /// Where this node is.
    pub(super) here: Locality,
}

static NO_LABELS: LazyLock<Labels> = LazyLock::new(Labels::new);

impl<'a> Inventory<'a> {
    pub(super) fn new(
        cluster: &'a Cluster,
        options: &'a Options,
        workloads: &'a HashMap<IpAddr, Arc<WorkloadInfo>>,
        slices: &'a Slices<'a>,
    ) -> Self {
        let node = options.node.as_str();
        let running = cluster.workloads.values();
        let running = running.filter(|pod| !pod.terminated && !pod.host_network);
        let pods = running.flat_map(|pod| pod.addresses.iter().map(move |ip| (*ip, pod)));
        Self {
            cluster,
            workloads,
            pods: pods.collect(),
            slices,
            place: Place::of(cluster, node),
            trust_domain: &options.trust_domain,
            here: node_locality(cluster, Some(node)),
        }
    }

    /// Endpoints of a host's port that have these labels. `everywhere`: preferences of the Service
    /// for close ones are left to a rule about localities.
    pub(super) fn of(
        &self,
        host: &Host<'a>,
        port: &HostPort<'_>,
        labels: &Labels,
        everywhere: bool,
    ) -> Endpoints<'a> {
        let mut found = match host.source {
            Source::Service(service) => self.of_service(service, port.number, everywhere),
            Source::Entry(entry) => self.of_entry(entry, &host.name, port, labels),
            Source::External(external) => self.of_external(external, port, labels),
        };
        let wanted = |one: &Found<'_>| {
            labels.iter().all(|(label, value)| one.labels.get(label) == Some(value))
        };
        found.known.retain(wanted);
        found.known.sort_by_key(|one| one.address);
        found.known.dedup_by_key(|one| one.address);
        found
    }

    fn of_service(&self, service: &'a Service, number: u16, everywhere: bool) -> Endpoints<'a> {
        let tcp = |port: &&undermesh_model::ServicePort| port.protocol == Protocol::Tcp;
        let port = service.ports.iter().filter(tcp).find(|port| port.port == number);
        let Some(port) = port else { return Endpoints::default() };
        let first = first_family(service);
        let mut candidates = self.slices.candidates(service, port, first);
        if candidates.is_empty() {
            candidates = self.slices.candidates(service, port, !first);
        }
        let distribution = match service.distribution {
            strict @ Distribution::OnlySameNode => strict,
            _ if everywhere => Distribution::Anywhere,
            wanted => wanted,
        };
        let chosen = self.place.choose(candidates, distribution);
        let known = chosen.into_iter().map(|candidate| self.of_candidate(candidate)).collect();
        Endpoints { known, dns: Vec::new() }
    }

    /// The addresses of the name elsewhere.
    fn of_external(
        &self,
        external: &ExternalName,
        port: &HostPort<'_>,
        labels: &Labels,
    ) -> Endpoints<'a> {
        let mut found = Endpoints::default();
        // Nobody knows what labels they have.
        if labels.is_empty() {
            let nowhere = self.bare((Ipv4Addr::UNSPECIFIED, port.target).into());
            found.dns.push(Name { name: external.host.clone(), one: false, found: nowhere });
        }
        found
    }

    fn of_candidate(&self, candidate: Candidate<'a>) -> Found<'a> {
        let by_name = candidate.pod.and_then(|name| self.cluster.workloads.get(name));
        let pod = by_name.or_else(|| self.pods.get(&candidate.address.ip()).copied());
        let node = candidate.node.or_else(|| pod.and_then(|pod| pod.node.as_deref()));
        let labels = pod.map_or(&*NO_LABELS, |pod| &pod.labels);
        Found {
            address: candidate.address,
            workload: self.workloads.get(&candidate.address.ip()).cloned(),
            labels,
            locality: own_locality(labels).unwrap_or_else(|| node_locality(self.cluster, node)),
            network: "",
            weight: pod.map_or(1, |pod| pod.weight.max(1)),
            identity: pod.map(|pod| self.identity(&pod.name.namespace, &pod.service_account)),
        }
    }

    fn identity(&self, namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::new(self.trust_domain.clone(), namespace.to_owned(), account.to_owned())
    }

    fn of_entry(
        &self,
        entry: &'a ServiceEntry,
        host: &str,
        port: &HostPort<'_>,
        labels: &Labels,
    ) -> Endpoints<'a> {
        let mut found = Endpoints::default();
        if entry.resolution == Resolution::None {
            let single = entry.addresses.iter().filter(|block| is_single(block));
            let addresses = single.map(|block| SocketAddr::new(block.addr(), port.number));
            found.known.extend(addresses.map(|address| self.bare(address)));
            return found;
        }
        if entry.resolution == Resolution::DynamicDns {
            return found;
        }
        if let Some(selector) = &entry.selector {
            self.add_selected(entry, selector, port, labels, &mut found);
        }
        for endpoint in &entry.endpoints {
            let namespace = &entry.name.namespace;
            self.add_endpoint((endpoint, namespace, entry.resolution), port, labels, &mut found);
        }
        let dns = matches!(entry.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if dns && entry.endpoints.is_empty() && entry.selector.is_none() && labels.is_empty() {
            let nowhere = self.bare((Ipv4Addr::UNSPECIFIED, port.target).into());
            found.dns.push(Name { name: host.to_owned(), one: false, found: nowhere });
        }
        let one = entry.resolution == Resolution::DnsRoundRobin;
        found.dns.iter_mut().for_each(|name| name.one = one);
        found
    }

    /// Pods and WorkloadEntries of the entry's namespace that have its labels.
    fn add_selected(
        &self,
        entry: &ServiceEntry,
        selector: &Labels,
        port: &HostPort<'_>,
        subset: &Labels,
        found: &mut Endpoints<'a>,
    ) {
        let wanted = |labels: &Labels| {
            selector.iter().all(|(label, value)| labels.get(label) == Some(value))
        };
        let pods = self.cluster.workloads.values().filter(|pod| {
            pod.name.namespace == entry.name.namespace && !pod.terminated && wanted(&pod.labels)
        });
        for pod in pods {
            for ip in pod.addresses.iter().take(1) {
                let address = SocketAddr::new(*ip, port.target);
                let candidate =
                    Candidate { address, node: pod.node.as_deref(), pod: Some(&pod.name) };
                found.known.push(self.of_candidate(candidate));
            }
        }
        let entries = self.cluster.workload_entries.values().filter(|one| {
            one.name.namespace == entry.name.namespace && wanted(&one.endpoint.labels)
        });
        for one in entries {
            let namespace = &one.name.namespace;
            self.add_endpoint((&one.endpoint, namespace, entry.resolution), port, subset, found);
        }
    }

    fn add_endpoint(
        &self,
        (endpoint, namespace, resolution): (&'a EntryEndpoint, &str, Resolution),
        port: &HostPort<'_>,
        labels: &Labels,
        found: &mut Endpoints<'a>,
    ) {
        let target = endpoint.ports.get(port.name).copied().unwrap_or(port.target);
        let account = endpoint.service_account.as_ref();
        let at = |ip: IpAddr| Found {
            identity: account.map(|account| self.identity(namespace, account)),
            labels: &endpoint.labels,
            locality: endpoint.locality.clone(),
            network: &endpoint.network,
            weight: endpoint.weight.max(1),
            ..self.bare(SocketAddr::new(ip, target))
        };
        match &endpoint.address {
            EntryAddress::Ip(ip) => found.known.push(at(*ip)),
            // Nobody resolves it; `entries` says so.
            EntryAddress::Host(_) if resolution == Resolution::Static => {}
            EntryAddress::Host(name) => {
                let has =
                    |(label, value): (&String, &String)| endpoint.labels.get(label) == Some(value);
                if labels.iter().all(has) {
                    let nowhere = at(Ipv4Addr::UNSPECIFIED.into());
                    found.dns.push(Name { name: name.clone(), one: false, found: nowhere });
                }
            }
        }
    }

    fn bare(&self, address: SocketAddr) -> Found<'a> {
        Found {
            address,
            workload: self.workloads.get(&address.ip()).cloned(),
            labels: &NO_LABELS,
            locality: Locality::default(),
            network: "",
            weight: 1,
            identity: None,
        }
    }
}

/// `istio-locality: region.zone.subzone` of a pod.
fn own_locality(labels: &Labels) -> Option<Locality> {
    let mut parts = labels.get("istio-locality")?.splitn(3, ['.', '/']);
    let mut part = || parts.next().unwrap_or_default().to_owned();
    Some(Locality { region: part(), zone: part(), subzone: part() })
}

fn node_locality(cluster: &Cluster, node: Option<&str>) -> Locality {
    let labels = node.and_then(|node| cluster.nodes.get(node)).map(|node| &node.labels);
    let label = |name: &str| labels.and_then(|all| all.get(name)).cloned().unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        subzone: label("topology.istio.io/subzone"),
    }
}
