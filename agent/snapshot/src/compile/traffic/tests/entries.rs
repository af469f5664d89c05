//! Hosts of ServiceEntries.

use undermesh_ebpf_common::service_flags;
use undermesh_model::traffic::{
    EntryAddress, EntryEndpoint, EntryLocation, EntryPort, Locality, OutlierDetection, Resolution,
    ServiceEntry, SimpleBalancer, WorkloadEntry,
};

use super::*;
use crate::compile::tests::key;

const VIP: &str = "240.0.0.1:443";

pub(super) fn entry(name: &str, hosts: &[&str], resolution: Resolution) -> ServiceEntry {
    ServiceEntry {
        origin: ResourceRef::namespaced("ServiceEntry", "shop", name),
        name: NamespacedName::new("shop", name),
        created: 0,
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        addresses: vec!["240.0.0.1/32".parse().unwrap()],
        ports: vec![EntryPort {
            number: 443,
            name: "https".to_owned(),
            protocol: "HTTP".to_owned(),
            target: Some(8443),
        }],
        location: EntryLocation::External,
        resolution,
        endpoints: Vec::new(),
        selector: None,
        subject_alt_names: ["spiffe://x".to_owned()].into(),
        scope: Scope::Everywhere,
    }
}

pub(super) fn endpoint(address: &str) -> EntryEndpoint {
    EntryEndpoint {
        address: match address.parse() {
            Ok(ip) => EntryAddress::Ip(ip),
            Err(_) => EntryAddress::Host(address.to_owned()),
        },
        ports: BTreeMap::new(),
        labels: [("app".to_owned(), "vm".to_owned())].into(),
        network: String::new(),
        locality: Locality::default(),
        weight: 0,
        service_account: None,
    }
}

pub(super) fn with(entries: Vec<ServiceEntry>) -> Cluster {
    let mut cluster = world();
    cluster.service_entries = entries.into_iter().map(|one| (one.name.clone(), one)).collect();
    cluster
}

#[test]
fn a_static_entry_is_a_service_port_that_the_proxy_always_looks_at() {
    let own_port =
        EntryEndpoint { ports: [("https".to_owned(), 9443)].into(), ..endpoint("192.0.2.2") };
    let endpoints = vec![endpoint("192.0.2.1"), own_port];
    let entry =
        ServiceEntry { endpoints, ..entry("api", &["api.example.com"], Resolution::Static) };
    let compiled = run(&with(vec![entry]));
    let port = port(&compiled, VIP);
    assert_eq!((port.host.as_str(), port.port), ("api.example.com", 443));
    assert_eq!(port.endpoints.len(), 2);
    let default = &port.traffic["other"].default;
    assert_eq!(addresses(default), ["192.0.2.1:8443", "192.0.2.2:9443"]);
    assert_eq!(default.endpoints[0].weight, 1);
    assert_eq!(compiled.snapshot.tables.services[&key(VIP)].flags, service_flags::PROXY);
    assert_eq!(findings(&compiled), []);
}

#[test]
fn names_are_left_to_be_resolved() {
    let api = entry("api", &["api.example.com"], Resolution::Dns);
    let compiled = run(&with(vec![api.clone()]));
    let default = &port(&compiled, VIP).traffic["shop"].default;
    assert_eq!(names(default), [("api.example.com", 8443, false)]);
    assert!(default.endpoints.is_empty());
    let endpoints = vec![endpoint("backup.example.com"), endpoint("192.0.2.1")];
    let compiled = run(&with(vec![ServiceEntry { endpoints, ..api }]));
    let default = &port(&compiled, VIP).traffic["shop"].default;
    assert_eq!(names(default), [("backup.example.com", 8443, false)]);
    assert_eq!(addresses(default), ["192.0.2.1:8443"]);
}

#[test]
fn names_have_all_that_addresses_have() {
    let near = EntryEndpoint { weight: 7, ..endpoint("near.example.com") };
    let locality = Locality { region: "far".to_owned(), ..Locality::default() };
    let far = EntryEndpoint { locality: locality.clone(), ..endpoint("far.example.com") };
    let entry = ServiceEntry {
        endpoints: vec![near, far],
        ..entry("api", &["api.example.com"], Resolution::DnsRoundRobin)
    };
    let mut cluster = with(vec![entry]);
    let mut rule = destination_rule("shop", "api", "api.example.com");
    rule.policy.outlier = Some(OutlierDetection::default());
    cluster.destination_rules.insert(rule.name.clone(), rule);
    let compiled = run(&cluster);
    let default = &port(&compiled, VIP).traffic["shop"].default;
    let wanted = [("near.example.com", 8443, true), ("far.example.com", 8443, true)];
    assert_eq!(names(default), wanted);
    let [near, far] = default.dns.as_slice() else { panic!("{:?}", default.dns) };
    assert_eq!((near.weight, near.priority), (7, 0));
    assert_eq!((&far.locality, far.weight, far.priority), (&locality, 1, 1));
}

fn names(spec: &ClusterSpec) -> Vec<(&str, u16, bool)> {
    spec.dns.iter().map(|one| (one.name.as_str(), one.port, one.one)).collect()
}

#[test]
fn without_resolution_the_address_is_its_own_endpoint() {
    let compiled = run(&with(vec![entry("api", &["api.example.com"], Resolution::None)]));
    let default = &port(&compiled, VIP).traffic["shop"].default;
    assert_eq!(addresses(default), [VIP]);
    assert_eq!(default.settings.balancer.simple, Some(SimpleBalancer::Passthrough));
}

#[test]
fn pods_and_workload_entries_are_selected_by_label() {
    let selector = BTreeMap::from([("app".to_owned(), "vm".to_owned())]);
    let entry = ServiceEntry {
        selector: Some(selector),
        ..entry("api", &["api.example.com"], Resolution::Static)
    };
    let mut cluster = with(vec![entry]);
    let mut pod = workload("vm-pod", "b", &["10.1.1.9"]);
    pod.labels.insert("app".to_owned(), "vm".to_owned());
    cluster.workloads.insert(pod.name.clone(), pod);
    for namespace in ["shop", "other"] {
        let name = NamespacedName::new(namespace, "vm");
        let origin = ResourceRef::namespaced("WorkloadEntry", namespace, "vm");
        let address = if namespace == "shop" { "192.0.2.1" } else { "192.0.2.9" };
        let one = WorkloadEntry { origin, name: name.clone(), endpoint: endpoint(address) };
        cluster.workload_entries.insert(name, one);
    }
    let compiled = run(&cluster);
    let default = &port(&compiled, VIP).traffic["shop"].default;
    assert_eq!(addresses(default), ["10.1.1.9:8443", "192.0.2.1:8443"]);
    assert!(default.endpoints[0].workload.is_some());
}

#[test]
fn hosts_that_share_an_address_are_told_apart_by_the_authority() {
    let endpoints = |ip: &str| vec![endpoint(ip)];
    let a = ServiceEntry {
        endpoints: endpoints("192.0.2.1"),
        ..entry("a", &["a.example.com"], Resolution::Static)
    };
    let b = ServiceEntry {
        endpoints: endpoints("192.0.2.2"),
        ..entry("b", &["*.example.com"], Resolution::Static)
    };
    let mut cluster = with(vec![a, b]);
    let mut only_a = virtual_service("a", "a.example.com");
    let never = HttpMatch { port: Some(443), method: None, ..HttpMatch::default() };
    only_a.http = vec![rule("a", vec![never], host("a.example.com", Some(443), None))];
    cluster.routes.push(only_a);
    let compiled = run(&cluster);
    let traffic = &port(&compiled, VIP).traffic["shop"];
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    let led = |authority| led(traffic, &client, authority).map(|cluster| cluster.key.host.clone());
    assert_eq!(led("A.example.com:443"), Ok("a.example.com".to_owned()));
    assert_eq!(led("b.example.com"), Ok("*.example.com".to_owned()));
    assert_eq!(led("elsewhere"), Err(404));
    let by_name = |sni| {
        let route = traffic.l4_route(Some(sni), "240.0.0.1".parse().unwrap(), &client).unwrap();
        match &route.targets[0].target {
            Target::Cluster(cluster) => cluster.key.host.clone(),
            Target::Unusable(status) => status.to_string(),
        }
    };
    assert_eq!(by_name("a.example.com"), "a.example.com");
    assert_eq!(by_name("x.example.com"), "*.example.com");
}

#[test]
fn an_entry_is_for_those_that_it_is_exported_to() {
    let scope = Scope::Namespaces(["shop".to_owned()].into());
    let endpoints = vec![endpoint("192.0.2.1")];
    let hidden =
        ServiceEntry { scope, endpoints, ..entry("a", &["a.example.com"], Resolution::Static) };
    let mut cluster = with(vec![hidden]);
    let to = host("a.example.com", Some(443), None);
    let http = vec![rule("out", Vec::new(), to)];
    cluster.routes.push(RouteSet { http, ..virtual_service("split", CART) });
    let compiled = run(&cluster);
    assert_eq!(port(&compiled, VIP).traffic.keys().collect::<Vec<_>>(), ["shop"]);
    let labels = BTreeMap::new();
    let led = |namespace| {
        let client = Client { namespace, labels: &labels };
        led(traffic(&compiled, namespace), &client, "cart").map(|one| one.key.view.clone())
    };
    assert_eq!(led("shop"), Ok("shop".to_owned()));
    assert_eq!(led("other"), Err(503));
}

#[test]
fn addresses_that_cannot_be_captured_are_reported() {
    let local = ServiceEntry {
        addresses: vec!["169.254.0.0/16".parse().unwrap()],
        ..entry("local", &["a.example.com"], Resolution::Static)
    };
    let taken = ServiceEntry {
        addresses: vec!["10.96.0.1/32".parse().unwrap()],
        ports: vec![EntryPort {
            number: 80,
            name: "http".into(),
            protocol: "HTTP".into(),
            target: None,
        }],
        ..entry("taken", &["b.example.com"], Resolution::Static)
    };
    let compiled = run(&with(vec![local, taken]));
    let found: Vec<_> = findings(&compiled).into_iter().map(|(code, _)| code).collect();
    assert_eq!(
        found,
        [
            "ServiceEntry shop/local unusable-entry-address",
            "ServiceEntry shop/taken unusable-entry-address"
        ]
    );
    assert!(port(&compiled, CART_VIP).traffic.is_empty());
    assert!(compiled.snapshot.blocks.is_empty());
}

#[test]
fn names_that_the_entry_demands_hold_where_the_rule_demands_none() {
    let mut cluster = with(vec![entry("a", &["a.example.com"], Resolution::Dns)]);
    let tls = undermesh_model::traffic::ClientTls {
        mode: undermesh_model::traffic::TlsMode::Simple,
        ..undermesh_model::traffic::ClientTls::default()
    };
    let policy = TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() };
    add(&mut cluster, DestinationRule { policy, ..destination_rule("shop", "a", "a.example.com") });
    let compiled = run(&cluster);
    let tls = port(&compiled, VIP).traffic["shop"].default.settings.tls.clone().unwrap();
    assert_eq!(tls.subject_alt_names, ["spiffe://x"]);
}

fn mesh_tls(names: &[&str]) -> TrafficPolicy {
    let tls = undermesh_model::traffic::ClientTls {
        mode: undermesh_model::traffic::TlsMode::IstioMutual,
        subject_alt_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..undermesh_model::traffic::ClientTls::default()
    };
    TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() }
}

#[test]
fn with_certificates_of_the_mesh_endpoints_are_who_their_accounts_say_unless_the_rule_does() {
    let vm = EntryEndpoint { service_account: Some("db".to_owned()), ..endpoint("192.0.2.1") };
    let mut entry = entry("a", &["a.example.com"], Resolution::Static);
    entry.subject_alt_names.clear();
    entry.endpoints = vec![vm, endpoint("192.0.2.2")];
    let tls = |names: &[&str]| {
        let mut cluster = with(vec![entry.clone()]);
        let policy = mesh_tls(names);
        add(
            &mut cluster,
            DestinationRule { policy, ..destination_rule("shop", "a", "a.example.com") },
        );
        let compiled = run(&cluster);
        port(&compiled, VIP).traffic["shop"].default.settings.tls.clone().unwrap()
    };
    assert_eq!(tls(&[]).subject_alt_names, ["spiffe://cluster.local/ns/shop/sa/db"]);
    assert_eq!(tls(&[]).sni.as_deref(), Some("outbound_.443_._.a.example.com"));
    assert_eq!(tls(&["spiffe://x"]).subject_alt_names, ["spiffe://x"]);
}
