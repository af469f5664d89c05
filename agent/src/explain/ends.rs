//! Who dials, and what: from names that people write to a pod and an address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use undermesh_model::{
    NamespacedName, Protocol, Service, Workload,
    traffic::{EntryAddress, ServiceEntry},
};
use undermesh_snapshot::traffic::HostPattern;

use super::{mesh::Mesh, near::suggestion};

/// Stands for an address that only DNS knows (RFC 5737).
const SOME_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Pods of a namespace that are looked at where a namespace alone was named.
const MAX_PODS: usize = 64;

/// What was dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dialled {
    /// The name that a request would name.
    pub(super) host: String,
    /// The address that a client dials.
    pub(super) address: SocketAddr,
    /// How it is called.
    pub(super) what: String,
    /// Where it leads without the mesh, if it is a virtual address.
    pub(super) endpoints: Vec<SocketAddr>,
    /// What was taken for granted on the way.
    pub(super) assumption: Option<String>,
}

/// The pods that a source stands for: one, or, of a namespace, all.
pub(super) fn sources<'a>(mesh: &'a Mesh, written: &str) -> Result<Vec<&'a Workload>> {
    if let Ok(address) = written.parse::<IpAddr>() {
        let pod = mesh.pod_at(address).with_context(|| {
            let all = mesh.cluster.workloads.values().flat_map(|pod| &pod.addresses);
            let near = suggestion(written, all.map(ToString::to_string));
            format!("no pod has the address {address}{near}")
        })?;
        return Ok(vec![pod]);
    }
    if let Some((namespace, name)) = written.split_once('/') {
        let name = NamespacedName::new(namespace, name);
        let pod = mesh.cluster.workloads.get(&name).with_context(|| {
            let all = mesh.cluster.workloads.keys().map(ToString::to_string);
            format!("there is no pod {name}{}", suggestion(written, all))
        })?;
        ensure!(
            !pod.addresses.is_empty() && pod.node.is_some(),
            "pod {name} has no {} yet",
            if pod.node.is_none() { "node" } else { "address" }
        );
        return Ok(vec![pod]);
    }
    let runs = |pod: &&Workload| {
        let running = !pod.terminated && pod.node.is_some() && !pod.addresses.is_empty();
        pod.name.namespace == written && running
    };
    let pods: Vec<&Workload> =
        mesh.cluster.workloads.values().filter(runs).take(MAX_PODS).collect();
    if pods.is_empty() {
        let names = mesh.cluster.workloads.keys();
        let all: Vec<String> = names
            .flat_map(|name| [name.namespace.clone(), name.to_string()])
            .chain(mesh.cluster.namespaces.keys().cloned())
            .collect();
        bail!(
            "no pod of a namespace {written:?} runs; a source is NAMESPACE/POD, an address, or a \
             NAMESPACE{}",
            suggestion(written, all)
        );
    }
    Ok(pods)
}

/// What a name or an address stands for to a client in a namespace.
pub(super) fn dialled(mesh: &Mesh, written: &str, client: &Workload) -> Result<Dialled> {
    let (name, port) = split(written)?;
    if let Ok(address) = name.parse::<IpAddr>() {
        return at_address(mesh, address, port);
    }
    if let Some((namespace, name)) = name.split_once('/') {
        let name = NamespacedName::new(namespace, name);
        if let Some(service) = mesh.cluster.services.get(&name) {
            return of_service(mesh, service, port, client);
        }
        if let Some(pod) = mesh.cluster.workloads.get(&name) {
            let address = pod.addresses.first().with_context(|| {
                format!("pod {name} has no address yet, so that nobody can dial it")
            })?;
            return at_address(mesh, *address, port);
        }
        let all = mesh.cluster.services.keys().chain(mesh.cluster.workloads.keys());
        let near = suggestion(&name.to_string(), all.map(ToString::to_string));
        bail!("there is neither a service nor a pod {name}{near}");
    }
    of_host(mesh, &name, port, client)
}

/// A name or an address, and a port if there is one: `[fd00::1]:80`, `fd00::1`, `cart:80`, `shop/cart`.
fn split(written: &str) -> Result<(String, Option<u16>)> {
    if written.parse::<IpAddr>().is_ok() {
        return Ok((written.to_owned(), None));
    }
    let bare = |name: &str| name.trim_start_matches('[').trim_end_matches(']').to_owned();
    if written.ends_with(']') {
        return Ok((bare(written), None));
    }
    match written.rsplit_once(':') {
        Some((name, port)) => {
            let port = port.parse().ok().filter(|port| *port != 0);
            let port = port
                .with_context(|| format!("the port of {written:?} is no number from 1 to 65535"))?;
            Ok((bare(name), Some(port)))
        }
        None => Ok((bare(written), None)),
    }
}

fn at_address(mesh: &Mesh, address: IpAddr, port: Option<u16>) -> Result<Dialled> {
    let owner = mesh.cluster.services.values().find(|one| one.cluster_ips.contains(&address));
    if let Some(service) = owner {
        let port = port_of(service, port)?;
        return Ok(at_vip(mesh, service, SocketAddr::new(address, port)));
    }
    let what = match mesh.pod_at(address) {
        Some(pod) => format!("pod {}", pod.name),
        None => address.to_string(),
    };
    let port = port.with_context(|| {
        let mut ports = ports_at(mesh, address);
        ports.sort_unstable();
        ports.dedup();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let known = match ports.as_slice() {
            [] => String::new(),
            ports => format!("; services lead to it at {}", ports.join(", ")),
        };
        format!("say which port of {what}: ADDRESS:PORT{known}")
    })?;
    let address = SocketAddr::new(address, port);
    Ok(Dialled {
        host: address.to_string(),
        address,
        what,
        endpoints: Vec::new(),
        assumption: None,
    })
}

/// Ports of a pod that services lead to.
fn ports_at(mesh: &Mesh, address: IpAddr) -> Vec<u16> {
    let slices = mesh.cluster.endpoint_slices.values();
    let about = slices.filter(|slice| slice.endpoints.iter().any(|one| one.address == address));
    about.flat_map(|slice| slice.ports.iter().map(|port| port.port)).collect()
}

fn of_host(mesh: &Mesh, name: &str, port: Option<u16>, client: &Workload) -> Result<Dialled> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let namespace = client.name.namespace.as_str();
    let is = |service: &&Service| is_named(&service.name, &name, namespace);
    if let Some(service) = mesh.cluster.services.values().find(is) {
        return of_service(mesh, service, port, client);
    }
    let about = |entry: &&ServiceEntry| {
        let mut hosts = entry.hosts.iter();
        hosts.any(|host| HostPattern::new(host).matches(&name)) && entry.scope.includes(namespace)
    };
    if let Some(entry) = mesh.cluster.service_entries.values().find(about) {
        return of_entry(entry, &name, port, client);
    }
    let services = mesh.cluster.services.keys();
    let mut known: Vec<String> =
        services.map(|one| format!("{}.{}", one.name, one.namespace)).collect();
    known.extend(mesh.cluster.services.keys().map(|one| one.name.clone()));
    known.extend(mesh.cluster.service_entries.values().flat_map(|one| one.hosts.clone()));
    let near = suggestion(&name, known);
    bail!(
        "no service, and no host of a ServiceEntry for clients of {namespace}, is called {name:?}{near} \
         (of a host outside the mesh, write the address)"
    )
}

/// Whether a client in a namespace means this service by a name, as DNS in a cluster finds it.
fn is_named(service: &NamespacedName, name: &str, namespace: &str) -> bool {
    let NamespacedName { namespace: own, name: bare } = service;
    name == format!("{bare}.{own}.svc.cluster.local")
        || name == format!("{bare}.{own}.svc")
        || name == format!("{bare}.{own}")
        || own == namespace && name == bare
}

fn of_service(
    mesh: &Mesh,
    service: &Service,
    port: Option<u16>,
    client: &Workload,
) -> Result<Dialled> {
    let port = port_of(service, port)?;
    let has_family = |ipv4: bool| client.addresses.iter().any(|own| own.is_ipv4() == ipv4);
    let mut vips = service.cluster_ips.iter();
    let vip = vips.find(|vip| has_family(vip.is_ipv4())).or(service.cluster_ips.first());
    if let Some(vip) = vip {
        return Ok(at_vip(mesh, service, SocketAddr::new(*vip, port)));
    }
    let endpoints = endpoints(mesh, service, port);
    let first = endpoints.first().copied().with_context(|| {
        format!(
            "service {} has no address of its own and no endpoint: its name leads nowhere",
            service.name
        )
    })?;
    let others = endpoints.len();
    Ok(Dialled {
        host: host_of(service),
        address: first,
        what: format!("service {}, which is headless", service.name),
        endpoints: Vec::new(),
        assumption: (others > 1)
            .then(|| format!("the client dials {first}, one of {others} that DNS names")),
    })
}

fn host_of(service: &Service) -> String {
    format!("{}.{}.svc.cluster.local", service.name.name, service.name.namespace)
}

fn at_vip(mesh: &Mesh, service: &Service, address: SocketAddr) -> Dialled {
    let endpoints = endpoints(mesh, service, address.port());
    let endpoints = endpoints.into_iter().filter(|one| one.is_ipv4() == address.is_ipv4());
    Dialled {
        host: host_of(service),
        address,
        what: format!("service {}", service.name),
        endpoints: endpoints.collect(),
        assumption: None,
    }
}

/// The ready endpoints of a service port.
fn endpoints(mesh: &Mesh, service: &Service, port: u16) -> Vec<SocketAddr> {
    let Some(named) = service.ports.iter().find(|one| one.port == port) else { return Vec::new() };
    let slices = mesh.cluster.endpoint_slices.values().filter(|one| one.service == service.name);
    let mut found = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter();
        let ports = ports.filter(|one| one.name == named.name && one.protocol == named.protocol);
        for port in ports {
            let ready = slice.endpoints.iter().filter(|one| one.ready);
            found.extend(ready.map(|one| SocketAddr::new(one.address, port.port)));
        }
    }
    found.sort_unstable();
    found
}

fn port_of(service: &Service, port: Option<u16>) -> Result<u16> {
    let tcp = service.ports.iter().filter(|one| one.protocol == Protocol::Tcp);
    let ports: Vec<u16> = tcp.map(|one| one.port).collect();
    choose(&format!("service {}", service.name), &ports, port)
}

/// A port of these, the only one where none is named.
fn choose(what: &str, ports: &[u16], port: Option<u16>) -> Result<u16> {
    let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    match (port, ports) {
        (_, []) => bail!("{what} has no TCP port"),
        (Some(port), ports) if ports.contains(&port) => Ok(port),
        (Some(port), _) => bail!("{what} has no TCP port {port}; it has {list}"),
        (None, [port]) => Ok(*port),
        (None, _) => bail!("say which port of {what}, NAME:PORT; it has {list}"),
    }
}

fn of_entry(
    entry: &ServiceEntry,
    name: &str,
    port: Option<u16>,
    client: &Workload,
) -> Result<Dialled> {
    let ports: Vec<u16> = entry.ports.iter().map(|port| port.number).collect();
    let port = choose(&entry.origin.to_string(), &ports, port)?;
    let has_family = |ipv4: bool| client.addresses.iter().any(|own| own.is_ipv4() == ipv4);
    let of_family = |address: &IpAddr| has_family(address.is_ipv4());
    let virtual_ones = entry.addresses.iter().map(ipnet::IpNet::addr);
    let fixed = entry.endpoints.iter().filter_map(|endpoint| match &endpoint.address {
        EntryAddress::Ip(address) => Some(*address),
        _ => None,
    });
    let mut known = virtual_ones.chain(fixed);
    let known = known.find(of_family);
    let address = SocketAddr::new(known.unwrap_or(SOME_ADDRESS), port);
    Ok(Dialled {
        host: name.to_owned(),
        address,
        what: entry.origin.to_string(),
        endpoints: Vec::new(),
        assumption: known
            .is_none()
            .then(|| format!("{name} has an address, for which {SOME_ADDRESS} stands here")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ports_are_told_apart() {
        for (written, name, port) in [
            ("cart", "cart", None),
            ("cart:80", "cart", Some(80)),
            ("shop/cart:80", "shop/cart", Some(80)),
            ("10.0.0.1", "10.0.0.1", None),
            ("10.0.0.1:8080", "10.0.0.1", Some(8080)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]", "fd00::1", None),
            ("[fd00::1]:80", "fd00::1", Some(80)),
        ] {
            assert_eq!(split(written).unwrap(), (name.to_owned(), port), "{written}");
        }
        for written in ["cart:http", "cart:0", "cart:65536", "[fd00::1]:"] {
            assert!(split(written).is_err(), "{written}");
        }
    }

    #[test]
    fn services_are_named_as_dns_finds_them() {
        let cart = NamespacedName::new("shop", "cart");
        for (name, namespace, expected) in [
            ("cart", "shop", true),
            ("cart", "bank", false),
            ("cart.shop", "bank", true),
            ("cart.shop.svc", "bank", true),
            ("cart.shop.svc.cluster.local", "bank", true),
            ("cart.bank", "shop", false),
        ] {
            assert_eq!(is_named(&cart, name, namespace), expected, "{name}");
        }
    }

    #[test]
    fn a_port_is_the_only_one_or_has_to_be_said() {
        assert_eq!(choose("x", &[80], None).unwrap(), 80);
        assert_eq!(choose("x", &[80, 443], Some(443)).unwrap(), 443);
        let error = choose("service shop/cart", &[80, 443], None).unwrap_err().to_string();
        assert!(error.contains("it has 80, 443"), "{error}");
        let error = choose("service shop/cart", &[80], Some(81)).unwrap_err().to_string();
        assert!(error.contains("has no TCP port 81; it has 80"), "{error}");
    }
}
