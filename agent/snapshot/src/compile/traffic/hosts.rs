//! Names that rules can be about or lead to: Services, and the hosts of ServiceEntries.

use std::collections::HashMap;

use undermesh_model::{
    Cluster, ExternalName, NamespacedName, Protocol, ResourceRef, Service, ServicePort, TargetPort,
    traffic::ServiceEntry,
};

use super::protocol;
use crate::traffic::AppProtocol;

/// How many names may stand for one another, one after the other.
const MAX_ALIASES: usize = 8;

/// A name that rules can be about or lead to.
#[derive(Clone, Debug)]
pub(super) struct Host<'a> {
    /// Full DNS name in lower case; `*.` and a name for some ServiceEntries.
    pub(super) name: String,
    pub(super) source: Source<'a>,
}

/// Who says that there is a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Service(&'a Service),
    Entry(&'a ServiceEntry),
    External(&'a ExternalName),
}

/// A port of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPort<'a> {
    pub(super) number: u16,
    pub(super) name: &'a str,
    pub(super) protocol: AppProtocol,
    /// Where endpoints of a ServiceEntry serve it that do not say so themselves.
    pub(super) target: u16,
}

impl<'a> Host<'a> {
    /// Of a Service.
    pub(super) fn of_service(service: &'a Service) -> Self {
        Self { name: service_host(&service.name), source: Source::Service(service) }
    }

    /// The object that says that there is this host.
    pub(super) fn origin(&self) -> &'a ResourceRef {
        match self.source {
            Source::Service(service) => &service.origin,
            Source::Entry(entry) => &entry.origin,
            Source::External(external) => &external.origin,
        }
    }

    pub(super) fn namespace(&self) -> &'a str {
        match self.source {
            Source::Service(service) => &service.name.namespace,
            Source::Entry(entry) => &entry.name.namespace,
            Source::External(external) => &external.name.namespace,
        }
    }

    /// The Service, where it is one.
    pub(super) fn service(&self) -> Option<&'a NamespacedName> {
        match self.source {
            Source::Service(service) => Some(&service.name),
            Source::Entry(_) | Source::External(_) => None,
        }
    }

    /// Whether clients of a namespace know of it.
    pub(super) fn is_visible(&self, namespace: &str) -> bool {
        match self.source {
            Source::Service(_) | Source::External(_) => true,
            Source::Entry(entry) => entry.scope.includes(namespace),
        }
    }

    /// Its TCP ports.
    pub(super) fn ports(&self) -> Vec<HostPort<'a>> {
        match self.source {
            Source::Service(service) => of_service_ports(&service.ports),
            Source::External(external) => of_service_ports(&external.ports),
            Source::Entry(entry) => entry
                .ports
                .iter()
                .map(|port| HostPort {
                    number: port.number,
                    name: &port.name,
                    protocol: protocol::of_entry(&port.protocol, &port.name, port.number),
                    target: port.target.unwrap_or(port.number),
                })
                .collect(),
        }
    }

    /// The port of a destination: the one that is named, else the only one, else the one that was
    /// dialled.
    pub(super) fn port(&self, named: Option<u16>, dialled: u16) -> Option<HostPort<'a>> {
        let ports = self.ports();
        let wanted = match (named, ports.as_slice()) {
            (Some(named), _) => named,
            (None, [only]) => only.number,
            (None, _) => dialled,
        };
        ports.into_iter().find(|port| port.number == wanted)
    }

    /// Whether anything can be dialled that stands for it: without, rules about it have no effect.
    pub(super) fn has_address(&self) -> bool {
        match self.source {
            Source::Service(service) => !service.cluster_ips.is_empty(),
            Source::Entry(_) => true,
            Source::External(_) => false,
        }
    }
}

fn of_service_ports(ports: &[ServicePort]) -> Vec<HostPort<'_>> {
    let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    tcp.map(|port| {
        let number = port.port;
        let protocol = protocol::of_service(&port.name, port.app_protocol.as_deref(), number);
        let target = match port.target_port {
            // Where a host elsewhere serves it; endpoints of Services know their own.
            TargetPort::Number(target) => target,
            TargetPort::Name(_) => number,
        };
        HostPort { number, name: &port.name, protocol, target }
    })
    .collect()
}

/// Whether a block is one address.
pub(super) fn is_single(block: &ipnet::IpNet) -> bool {
    block.prefix_len() == block.max_prefix_len()
}

/// The DNS name of a Service.
pub(super) fn service_host(name: &NamespacedName) -> String {
    format!("{}.{}.svc.cluster.local", name.name, name.namespace)
}

/// All hosts, by name.
pub(super) struct Hosts<'a> {
    by_name: HashMap<String, Vec<Host<'a>>>,
}

impl<'a> Hosts<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut by_name: HashMap<String, Vec<Host<'a>>> = HashMap::new();
        for service in cluster.services.values() {
            let host = Host::of_service(service);
            by_name.entry(host.name.clone()).or_default().push(host);
        }
        for external in cluster.external_names.values() {
            let name = service_host(&external.name);
            let host = Host { name: name.clone(), source: Source::External(external) };
            by_name.entry(name).or_default().push(host);
        }
        for (name, entry) in entry_hosts(cluster) {
            let host = Host { name: name.clone(), source: Source::Entry(entry) };
            by_name.entry(name).or_default().push(host);
        }
        Self { by_name }
    }

    /// Everyone who says that there is a host of this name.
    pub(super) fn all(&self, name: &str) -> &[Host<'a>] {
        self.by_name.get(&name.to_ascii_lowercase()).map(Vec::as_slice).unwrap_or_default()
    }

    /// What a name stands for to clients of a namespace. A Service that is another name for a host that is
    /// known stands for that one, as in Istio; `None` where names stand for one another in a circle.
    pub(super) fn resolve(&self, name: &str, client: &str) -> Option<&Host<'a>> {
        let mut found = self.named(name, client)?;
        for _ in 0..MAX_ALIASES {
            let Source::External(external) = found.source else { return Some(found) };
            let Some(next) = self.named(&external.host, client) else { return Some(found) };
            found = next;
        }
        None
    }

    /// The Service, else the ServiceEntry of the clients' own namespace, else the oldest one that they may
    /// see.
    fn named(&self, name: &str, client: &str) -> Option<&Host<'a>> {
        let visible = || self.all(name).iter().filter(|host| host.is_visible(client));
        let own = |host: &&Host<'_>| {
            !matches!(host.source, Source::Entry(_)) || host.namespace() == client
        };
        visible().find(own).or_else(|| visible().next())
    }
}

/// Hosts of ServiceEntries with those, the oldest first.
pub(super) fn entry_hosts(cluster: &Cluster) -> Vec<(String, &ServiceEntry)> {
    let mut entries: Vec<&ServiceEntry> = cluster.service_entries.values().collect();
    entries.sort_by_key(|entry| (entry.created, &entry.name));
    let hosts = |entry: &'_ ServiceEntry| -> Vec<String> {
        entry.hosts.iter().map(|host| host.to_ascii_lowercase()).collect()
    };
    entries
        .into_iter()
        .flat_map(|entry| hosts(entry).into_iter().map(move |host| (host, entry)))
        .collect()
}
