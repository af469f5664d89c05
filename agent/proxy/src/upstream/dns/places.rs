//! The endpoints of a cluster, with those that names stand for at the moment.

use std::{collections::HashSet, net::IpAddr, net::SocketAddr, sync::Arc};

use undermesh_snapshot::traffic::{ClusterEndpoint, ClusterSpec, DnsEndpoint};

use super::{super::member::HostKey, Name};

/// Families of addresses that a pod has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Families {
    v4: bool,
    v6: bool,
}

/// An endpoint of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) endpoint: ClusterEndpoint,
    /// What its state is kept by.
    pub(crate) key: HostKey,
    /// It is one of this pod's; others are known so that all pods watch the same.
    pub(crate) used: bool,
}

impl Families {
    pub(crate) fn of(addresses: &[IpAddr]) -> Self {
        Self {
            v4: addresses.iter().any(IpAddr::is_ipv4),
            v6: addresses.iter().any(IpAddr::is_ipv6),
        }
    }

    fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// All endpoints, those of names last. `names` are in the order of the specification's.
pub(crate) fn places(
    spec: &ClusterSpec,
    names: &[Option<Arc<Name>>],
    families: Families,
) -> Vec<Place> {
    let of_addresses = spec.endpoints.iter().map(|endpoint| Place {
        key: HostKey::of(endpoint),
        endpoint: endpoint.clone(),
        used: true,
    });
    let mut all: Vec<_> = of_addresses.collect();
    for (wanted, name) in spec.dns.iter().zip(names) {
        if let Some(name) = name {
            all.extend(of_name(wanted, &name.state().addresses, families));
        }
    }
    let mut taken = HashSet::new();
    for place in all.iter_mut().filter(|place| place.used) {
        place.used = taken.insert(place.key.clone());
    }
    all
}

/// Endpoints of the families that the pod has, or of any where there is no such address.
fn of_name(wanted: &DnsEndpoint, addresses: &[IpAddr], families: Families) -> Vec<Place> {
    let fits = |address: &&IpAddr| families.has(**address);
    let any = !addresses.iter().any(|address| families.has(*address));
    let one = addresses.iter().find(fits).or(addresses.first());
    let place = |address: &IpAddr| {
        let endpoint = ClusterEndpoint {
            address: SocketAddr::new(*address, wanted.port),
            workload: None,
            weight: wanted.weight,
            locality: wanted.locality.clone(),
            priority: wanted.priority,
        };
        let used = match wanted.one {
            true => one == Some(address),
            false => any || families.has(*address),
        };
        let mut key = HostKey::of(&endpoint);
        if wanted.one {
            // Connections to an address that the name had before are as good as any.
            key.name = Some((wanted.name.as_str().into(), wanted.port));
            key.address = SocketAddr::from(([0; 4], 0));
        }
        Place { endpoint, key, used }
    };
    addresses.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use undermesh_model::traffic::Locality;

    use super::*;

    fn name(one: bool) -> DnsEndpoint {
        DnsEndpoint {
            name: "api.example".to_owned(),
            port: 8443,
            one,
            weight: 3,
            locality: Locality::default(),
            priority: 1,
        }
    }

    fn used(one: bool, addresses: &[&str], own: &[&str]) -> Vec<String> {
        let parse =
            |all: &[&str]| all.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let places = of_name(&name(one), &parse(addresses), Families::of(&parse(own)));
        let used = places.iter().filter(|place| place.used);
        used.map(|place| place.endpoint.address.to_string()).collect()
    }

    #[test]
    fn pods_use_addresses_of_their_own_families() {
        let both = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
        assert_eq!(used(false, &both, &["10.0.0.1"]), ["192.0.2.1:8443", "192.0.2.2:8443"]);
        assert_eq!(used(false, &both, &["fd00::1"]), ["[2001:db8::1]:8443"]);
        assert_eq!(used(false, &both, &["10.0.0.1", "fd00::1"]).len(), 3);
        assert_eq!(used(false, &["2001:db8::1"], &["10.0.0.1"]), ["[2001:db8::1]:8443"]);
    }

    #[test]
    fn a_name_with_one_address_at_a_time_has_the_first_that_fits() {
        let both = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
        assert_eq!(used(true, &both, &["10.0.0.1", "fd00::1"]), ["192.0.2.1:8443"]);
        assert_eq!(used(true, &both, &["fd00::1"]), ["[2001:db8::1]:8443"]);
        assert_eq!(used(true, &[], &["fd00::1"]), Vec::<String>::new());
    }

    #[test]
    fn one_address_at_a_time_is_one_host_whatever_its_address() {
        let key = |ip: &str| of_name(&name(true), &[ip.parse().unwrap()], Families::default());
        assert_eq!(key("192.0.2.1")[0].key, key("192.0.2.2")[0].key);
        let key = |ip: &str| of_name(&name(false), &[ip.parse().unwrap()], Families::default());
        assert_ne!(key("192.0.2.1")[0].key, key("192.0.2.2")[0].key);
    }
}
