//! Hosts of ServiceEntries that have blocks of addresses, or none.

use undermesh_ebpf_common::{block_flags, service_flags};
use undermesh_model::{
    Generation,
    traffic::{EntryPort, Resolution, ServiceEntry, SimpleBalancer, WorkloadEntry},
};

use super::{
    entries::{endpoint, entry, with},
    *,
};
use crate::{
    OutboundPolicy,
    blocks::block_key,
    compile::{
        compile,
        tests::{key, options},
    },
};

/// An entry without addresses whose port speaks this.
fn nameless(name: &str, host: &str, protocol: &str, resolution: Resolution) -> ServiceEntry {
    let port = EntryPort {
        number: 443,
        name: "main".to_owned(),
        protocol: protocol.to_owned(),
        target: None,
    };
    ServiceEntry { addresses: Vec::new(), ports: vec![port], ..entry(name, &[host], resolution) }
}

fn registry_only(cluster: &Cluster) -> Compiled {
    let options = crate::Options { outbound_policy: OutboundPolicy::RegistryOnly, ..options() };
    compile(cluster, &options, Generation(7))
}

/// What stands at an address that is only known by a block.
fn at<'a>(compiled: &'a Compiled, dialled: &str) -> &'a ServicePortRoute {
    compiled.snapshot.blocks.find(socket(dialled)).unwrap()
}

/// Where a connection with this server name leads.
fn named(traffic: &PortTraffic, sni: Option<&str>) -> String {
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    let route = traffic.l4_route(sni, "192.0.2.1".parse().unwrap(), &client);
    match route.map(|route| &route.targets[0].target) {
        None => traffic.default.key.host.clone(),
        Some(Target::Cluster(cluster)) => cluster.key.host.clone(),
        Some(Target::Unusable(status)) => status.to_string(),
    }
}

#[test]
fn a_block_is_a_service_port_at_each_of_its_addresses() {
    let blocks = ["192.0.2.0/24", "2001:db8::/32"].map(|block| block.parse().unwrap());
    let endpoints = vec![endpoint("198.51.100.1")];
    let db = ServiceEntry {
        addresses: blocks.to_vec(),
        endpoints,
        ..entry("db", &["db.example.com"], Resolution::Static)
    };
    let compiled = run(&with(vec![db]));
    assert_eq!(findings(&compiled), []);
    for dialled in ["192.0.2.77:443", "[2001:db8::1]:443"] {
        let route = at(&compiled, dialled);
        assert!(route.external && route.host == "db.example.com");
        assert_eq!(addresses(&route.traffic["shop"].default), ["198.51.100.1:8443"]);
    }
    assert!(compiled.snapshot.blocks.find(socket("192.0.2.77:80")).is_none());
    assert!(compiled.snapshot.blocks.find(socket("192.0.3.77:443")).is_none());
    let flags: Vec<u32> = blocks
        .iter()
        .map(|block| compiled.snapshot.tables.blocks[&block_key(*block, 443)].flags)
        .collect();
    assert_eq!(flags, [block_flags::PROXY; 2]);
}

#[test]
fn a_block_without_resolution_leads_to_the_address_that_was_dialled() {
    let wild = ServiceEntry {
        addresses: vec!["192.0.2.0/24".parse().unwrap()],
        ..entry("wild", &["*.example.com"], Resolution::None)
    };
    let compiled = run(&with(vec![wild]));
    let default = &at(&compiled, "192.0.2.1:443").traffic["shop"].default;
    assert_eq!(default.settings.balancer.simple, Some(SimpleBalancer::Passthrough));
    assert_eq!(addresses(default), Vec::<String>::new());
}

#[test]
fn hosts_without_addresses_are_known_by_their_port_and_their_name() {
    let cluster = with(vec![
        nameless("api", "api.example.com", "HTTP", Resolution::Dns),
        nameless("wild", "*.example.org", "HTTP", Resolution::None),
    ]);
    let compiled = run(&cluster);
    assert_eq!(findings(&compiled), []);
    for dialled in ["203.0.113.1:443", "[2001:db8::1]:443"] {
        let traffic = &at(&compiled, dialled).traffic["shop"];
        let labels = BTreeMap::new();
        let client = Client { namespace: "shop", labels: &labels };
        let led = |name| led(traffic, &client, name).map(|cluster| cluster.key.host.clone());
        assert_eq!(led("api.example.com"), Ok("api.example.com".to_owned()));
        assert_eq!(led("x.example.org:443"), Ok("*.example.org".to_owned()));
        assert_eq!(led("elsewhere.example.com"), Ok("PassthroughCluster".to_owned()));
    }
    let refused = registry_only(&cluster);
    let traffic = &at(&refused, "203.0.113.1:443").traffic["shop"];
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    let led = |name| led(traffic, &client, name).map(|cluster| cluster.key.host.clone());
    assert_eq!(led("api.example.com"), Ok("api.example.com".to_owned()));
    assert_eq!(led("elsewhere.example.com"), Err(502));
}

#[test]
fn connections_without_a_registered_server_name_go_where_they_were_dialled_or_nowhere() {
    let cluster = with(vec![nameless("api", "api.example.com", "TLS", Resolution::Dns)]);
    for (compiled, rest) in
        [(run(&cluster), "PassthroughCluster"), (registry_only(&cluster), "BlackHoleCluster")]
    {
        let traffic = &at(&compiled, "203.0.113.1:443").traffic["shop"];
        assert_eq!(named(traffic, Some("api.example.com")), "api.example.com");
        assert_eq!(named(traffic, Some("elsewhere.example.com")), rest);
        assert_eq!(named(traffic, None), rest);
    }
}

#[test]
fn a_host_whose_protocol_has_no_names_takes_its_port_and_that_is_said() {
    let compiled = run(&with(vec![nameless("db", "db.example.com", "TCP", Resolution::Dns)]));
    let traffic = &at(&compiled, "203.0.113.1:443").traffic["shop"];
    assert_eq!(named(traffic, None), "db.example.com");
    let found: Vec<_> = findings(&compiled).into_iter().map(|(code, _)| code).collect();
    assert_eq!(found, ["ServiceEntry shop/db captured-by-port"]);
    let both = run(&with(vec![
        nameless("db", "db.example.com", "TCP", Resolution::Dns),
        nameless("web", "web.example.com", "TLS", Resolution::Dns),
    ]));
    let traffic = &at(&both, "203.0.113.1:443").traffic["shop"];
    assert_eq!(named(traffic, Some("web.example.com")), "web.example.com");
    assert_eq!(named(traffic, Some("other.example.com")), "db.example.com");
}

#[test]
fn a_rule_about_a_host_without_an_address_holds() {
    let mut cluster = with(vec![nameless("api", "api.example.com", "HTTP", Resolution::Dns)]);
    cluster.routes.push(virtual_service("to-cart", "api.example.com"));
    let compiled = run(&cluster);
    assert_eq!(findings(&compiled), []);
    let traffic = &at(&compiled, "203.0.113.1:443").traffic["shop"];
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    let led = |name| led(traffic, &client, name).map(|cluster| cluster.key.host.clone());
    assert_eq!(led("api.example.com"), Ok(CART.to_owned()));
    assert_eq!(led("elsewhere.example.com"), Ok("PassthroughCluster".to_owned()));
}

#[test]
fn what_is_registered_elsewhere_is_left_alone_whatever_block_it_lies_in() {
    let mut cluster = world();
    let (mut plain, mut slice) = service("plain", &["10.96.0.7"], &[("10.1.9.1", true)]);
    slice.service = plain.name.clone();
    plain.ports[0].port = 443;
    cluster.services.insert(plain.name.clone(), plain);
    cluster.endpoint_slices.insert(slice.service.clone(), slice);
    let (headless, mut slice) = service("headless", &[], &[("10.1.9.2", true), ("10.1.1.1", true)]);
    slice.service = headless.name.clone();
    cluster.services.insert(headless.name.clone(), headless);
    cluster.endpoint_slices.insert(slice.service.clone(), slice);
    let known = |compiled: &Compiled| -> Vec<_> {
        let all = compiled.snapshot.tables.services.iter();
        let known = all.filter(|(_, service)| service.flags == service_flags::KNOWN);
        known.map(|(key, _)| *key).collect()
    };
    assert_eq!(known(&run(&cluster)), [], "it makes no difference");
    let expected = [key("10.1.9.2:8080"), key("10.96.0.7:443")];
    assert_eq!(known(&registry_only(&cluster)), expected);
    let any = nameless("db", "db.example.com", "TCP", Resolution::None);
    cluster.service_entries.insert(any.name.clone(), any);
    assert_eq!(known(&run(&cluster)), expected);
}

#[test]
fn a_name_that_nobody_resolves_is_said() {
    let selector = BTreeMap::from([("app".to_owned(), "vm".to_owned())]);
    let mut cluster = with(vec![ServiceEntry {
        selector: Some(selector),
        ..entry("api", &["api.example.com"], Resolution::Static)
    }]);
    let name = NamespacedName::new("shop", "vm");
    let origin = ResourceRef::namespaced("WorkloadEntry", "shop", "vm");
    let one = WorkloadEntry { origin, name: name.clone(), endpoint: endpoint("vm.example.com") };
    cluster.workload_entries.insert(name, one);
    let compiled = run(&cluster);
    let found: Vec<_> = findings(&compiled).into_iter().map(|(code, _)| code).collect();
    assert_eq!(found, ["WorkloadEntry shop/vm unresolved-endpoint"]);
    let default = &port(&compiled, "240.0.0.1:443").traffic["shop"].default;
    assert!(default.dns.is_empty() && default.endpoints.is_empty());
}
