//! Which service a judged request is for. Its client's node knows what was dialled; here, it is told from who stands
//! behind the services, and, of several, from which of them the request names.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use undermesh_snapshot::Snapshot;
use undermesh_telemetry::{ConnectionInfo, Requests, ServiceLabel, Telemetry};

use super::Visit;
use crate::record::service_label;

/// The services of one pod's ports, looked for once in each configuration.
#[derive(Debug, Default)]
pub(crate) struct Services(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    by_address: HashMap<SocketAddr, Arc<[ServiceLabel]>>,
}

impl Services {
    /// The services that lead to this address of the pod, those of its `namespace` first. Addresses are few: they
    /// are the pod's own, at ports where its application listens.
    fn of(&self, snapshot: &Snapshot, address: SocketAddr, namespace: &str) -> Arc<[ServiceLabel]> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.generation != snapshot.generation.0 {
            *known = Known { generation: snapshot.generation.0, ..Known::default() };
        }
        let found = known.by_address.entry(address);
        Arc::clone(found.or_insert_with(|| find(snapshot, address, namespace)))
    }
}

fn find(snapshot: &Snapshot, address: SocketAddr, namespace: &str) -> Arc<[ServiceLabel]> {
    let services = snapshot.services.values().filter(|route| !route.external);
    let leads_there = |endpoints: &[undermesh_snapshot::EndpointTarget]| {
        endpoints.iter().any(|endpoint| endpoint.address == address)
    };
    let leading = services.filter(|route| leads_there(&route.endpoints));
    let mut labels: Vec<ServiceLabel> = leading.map(|route| service_label(route)).collect();
    let order = |label: &ServiceLabel| (label.namespace != namespace, label.host.clone());
    labels.sort_by_key(order);
    labels.dedup();
    labels.into()
}

/// What telemetry says about the requests of one connection, for each of the services that they may be for.
pub(super) struct Visited {
    telemetry: Arc<Telemetry>,
    /// Number of the connection.
    connection: u64,
    info: ConnectionInfo,
    services: Arc<[ServiceLabel]>,
    made: Mutex<Vec<(usize, Arc<Requests>)>>,
}

impl Visited {
    pub(super) fn new(visit: &Visit, info: ConnectionInfo) -> Self {
        let (pod, shared) = (&visit.pod, &visit.pod.shared);
        let namespace = &pod.workload.name.namespace;
        let snapshot = shared.snapshot.load();
        let telemetry = Arc::clone(&shared.telemetry);
        Self {
            connection: telemetry.connection(),
            telemetry,
            info,
            services: pod.services.of(&snapshot, visit.destination, namespace),
            made: Mutex::default(),
        }
    }

    /// Requests that name this authority; the first service's where it names none of them.
    pub(super) fn requests(&self, authority: &str) -> Arc<Requests> {
        let namespace = &self.info.source.namespace;
        let named = self.services.iter().position(|one| is_named(one, authority, namespace));
        let index = named.unwrap_or_default();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, requests)) = made.iter().find(|(of, _)| *of == index) {
            return Arc::clone(requests);
        }
        let service = self.services.get(index).cloned();
        let info = ConnectionInfo { service, ..self.info.clone() };
        let requests = self.telemetry.requests(self.connection, info);
        made.push((index, Arc::clone(&requests)));
        requests
    }
}

/// Whether a client in `namespace` means this service by an authority: `cart:80` by `cart`, `cart.shop`,
/// `cart.shop.svc`, or its whole name.
fn is_named(service: &ServiceLabel, authority: &str, namespace: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let Some(rest) = host.strip_prefix(service.name.as_str()) else { return false };
    match rest.strip_prefix('.') {
        None => rest.is_empty() && service.namespace == namespace,
        Some(rest) => {
            host == service.host || {
                let svc = rest.strip_suffix(".svc").unwrap_or(rest);
                svc == service.namespace
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use undermesh_model::Generation;

    use super::*;
    use crate::testing;

    #[test]
    fn services_are_those_that_lead_there_as_long_as_they_do() {
        let services = Services::default();
        let mut snapshot = Snapshot::default();
        let endpoint = testing::endpoint("10.0.0.1:8080", None);
        testing::add_service(&mut snapshot, "10.96.0.1:80", vec![endpoint]);
        let of = |snapshot: &Snapshot, address: &str| {
            let found = services.of(snapshot, address.parse().unwrap(), "shop");
            found.iter().map(|service| service.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(&snapshot, "10.0.0.1:8080"), ["cart"]);
        assert!(of(&snapshot, "10.0.0.1:8081").is_empty());
        let snapshot = Snapshot { generation: Generation(2), ..Snapshot::default() };
        assert!(of(&snapshot, "10.0.0.1:8080").is_empty());
    }

    #[test]
    fn a_service_is_named_as_dns_would_find_it() {
        let cart = ServiceLabel {
            host: "cart.shop.svc.cluster.local".to_owned(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
        };
        for (authority, namespace, expected) in [
            ("cart", "shop", true),
            ("cart:80", "shop", true),
            ("cart", "bank", false),
            ("cart.shop", "bank", true),
            ("cart.shop.svc:8080", "bank", true),
            ("cart.shop.svc.cluster.local", "bank", true),
            ("cart.shop.svc.cluster.local.:80", "bank", true),
            ("cart.bank", "shop", false),
            ("cart-shadow", "shop", false),
            ("cart.shop.example", "shop", false),
            ("", "shop", false),
            ("10.0.0.1:80", "shop", false),
        ] {
            assert_eq!(is_named(&cart, authority, namespace), expected, "{authority}");
        }
    }
}
