//! Clusters in, snapshots out.

use std::net::{IpAddr, SocketAddr};

use undermesh_ebpf_common::{ServiceKey, backend_flags, service_flags, workload_flags};
use undermesh_model::{
    Cluster, Distribution, Endpoint, EndpointPort, EndpointSlice, Enrolment, FailMode, Generation,
    MtlsMode, NamespacedName, Node, PodLocation, Protocol, ResourceRef, Service, ServicePort,
    SourceAddress, TargetPort, Wire, Workload,
};

use super::*;
use crate::{Destination, SameNode};

pub(super) fn workload(name: &str, node: &str, addresses: &[&str]) -> Workload {
    Workload {
        origin: ResourceRef::namespaced("Pod", "shop", name),
        name: NamespacedName::new("shop", name),
        service_account: name.to_owned(),
        node: Some(node.to_owned()),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        labels: [("app".to_owned(), name.to_owned())].into(),
        enrolment: Enrolment::Enrolled("test".to_owned()),
        outbound_failure: None,
        wire: Wire::default(),
        source_address: None,
        weight: 1,
        probe_ports: [].into(),
        location: Some(PodLocation::Netns(format!("/run/netns/{name}").into())),
        host_network: false,
        terminated: false,
        workload_name: name.to_owned(),
    }
}

pub(super) fn service(
    name: &str,
    vips: &[&str],
    endpoints: &[(&str, bool)],
) -> (Service, EndpointSlice) {
    let origin = ResourceRef::namespaced("Service", "shop", name);
    let service = Service {
        origin: origin.clone(),
        name: NamespacedName::new("shop", name),
        cluster_ips: vips.iter().map(|text| text.parse().unwrap()).collect(),
        headless: vips.is_empty(),
        ports: [("http", 80, Protocol::Tcp), ("dns", 53, Protocol::Udp)]
            .map(|(name, port, protocol)| ServicePort {
                name: name.to_owned(),
                port,
                target_port: TargetPort::Number(port),
                protocol,
                app_protocol: None,
            })
            .into(),
        selector: [].into(),
        publish_not_ready: false,
        affinity: false,
        distribution: Distribution::Anywhere,
        l7: false,
    };
    let slice = EndpointSlice {
        origin,
        service: service.name.clone(),
        ports: vec![EndpointPort { name: "http".into(), port: 8080, protocol: Protocol::Tcp }],
        endpoints: endpoints
            .iter()
            .map(|(address, ready)| Endpoint {
                address: address.parse().unwrap(),
                ready: *ready,
                draining: false,
                pod: None,
                node: None,
            })
            .collect(),
    };
    (service, slice)
}

pub(super) fn cluster(
    workloads: Vec<Workload>,
    services: Vec<(Service, EndpointSlice)>,
) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.workloads.extend(workloads.into_iter().map(|w| (w.name.clone(), w)));
    for (service, slice) in services {
        cluster.endpoint_slices.insert(service.name.clone(), slice);
        cluster.services.insert(service.name.clone(), service);
    }
    cluster
}

pub(super) fn options() -> Options {
    Options { node: "a".to_owned(), ..Options::default() }
}

pub(super) fn run(cluster: &Cluster) -> Compiled {
    compile(cluster, &options(), Generation(7))
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn key(text: &str) -> ServiceKey {
    let vip = socket(text);
    ServiceKey { addr: addr(vip.ip()), port_be: vip.port().to_be(), pad: 0 }
}

#[test]
fn workloads_are_local_or_remote_and_know_their_identity() {
    let compiled = run(&cluster(
        vec![workload("cart", "a", &["10.1.0.2", "fd00::2"]), workload("web", "b", &["10.1.1.2"])],
        vec![],
    ));
    let snapshot = &compiled.snapshot;
    assert_eq!(compiled.diagnostics, vec![]);
    assert_eq!(snapshot.generation, Generation(7));
    assert_eq!(snapshot.local.len(), 1);
    let cart = &snapshot.workloads[&ip("fd00::2")];
    assert_eq!(cart.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
    let flags = |text| snapshot.tables.workloads[&addr(ip(text))].flags;
    assert_eq!(flags("10.1.0.2"), workload_flags::LOCAL | workload_flags::NATIVE);
    assert_eq!(flags("10.1.1.2"), workload_flags::NATIVE);
    assert!(snapshot.workloads[&ip("10.1.1.2")].location.is_none(), "not ours to enter");
}

#[test]
fn what_is_not_running_in_the_mesh_is_left_out() {
    let mut opted_out = workload("out", "a", &["10.1.0.3"]);
    opted_out.enrolment = Enrolment::NotEnrolled("test".to_owned());
    let mut finished = workload("done", "a", &["10.1.0.4"]);
    finished.terminated = true;
    let mut host = workload("host", "a", &["10.1.0.5"]);
    host.host_network = true;
    let mut pending = workload("pending", "a", &["10.1.0.6"]);
    pending.node = None;
    let no_address = workload("new", "a", &[]);
    let compiled = run(&cluster(vec![opted_out, finished, host, pending, no_address], vec![]));
    assert!(compiled.snapshot.workloads.is_empty());
    assert!(compiled.snapshot.local.is_empty());
    assert_eq!(compiled.diagnostics, vec![]);
}

#[test]
fn places_are_known_before_addresses_and_outside_the_mesh_too() {
    let mut not_enrolled = workload("listed", "n1", &["10.0.0.3"]);
    not_enrolled.enrolment = Enrolment::NotEnrolled("test".to_owned());
    let mut host = workload("host", "n1", &["10.0.0.4"]);
    host.host_network = true;
    host.enrolment = Enrolment::Impossible("host".to_owned());
    let mut finished = workload("finished", "n1", &[]);
    finished.terminated = true;
    let mut nowhere = workload("nowhere", "n1", &["10.0.0.5"]);
    nowhere.location = None;
    let pods = vec![
        workload("new", "n1", &[]),
        not_enrolled,
        host,
        finished,
        nowhere,
        workload("far", "n2", &[]),
    ];
    let snapshot = compile(
        &cluster(pods, vec![]),
        &Options { node: "n1".to_owned(), ..options() },
        Generation(1),
    )
    .snapshot;
    let places: Vec<_> =
        snapshot.places.iter().map(|place| (place.name.name.as_str(), place.enrolled)).collect();
    assert_eq!(places, [("host", false), ("listed", false), ("new", true)]);
    assert!(snapshot.local.iter().all(|workload| workload.name.name != "new"));
    assert_eq!(snapshot.impossible.len(), 1);
    assert_eq!(
        (snapshot.impossible[0].0.name.as_str(), snapshot.impossible[0].1.as_str()),
        ("host", "host")
    );
}

#[test]
fn a_service_lists_its_ready_endpoints_of_the_address_family() {
    let compiled = run(&cluster(
        vec![workload("cart", "a", &["10.1.0.2", "fd00::2"]), workload("web", "b", &["10.1.1.2"])],
        vec![service(
            "front",
            &["10.96.0.1", "fd01::1"],
            &[("10.1.1.2", true), ("10.1.0.2", true), ("fd00::2", true), ("10.9.9.9", false)],
        )],
    ));
    let snapshot = &compiled.snapshot;
    let Destination::Service(route) = snapshot.resolve(socket("10.96.0.1:80")) else {
        panic!("not a service");
    };
    let addresses: Vec<_> = route.endpoints.iter().map(|endpoint| endpoint.address).collect();
    assert_eq!(addresses, [socket("10.1.0.2:8080"), socket("10.1.1.2:8080")]);
    assert_eq!(route.host, "front.shop.svc.cluster.local");
    let backends = &snapshot.tables.backends;
    let flags = |slot| backends[&BackendKey { service: key("10.96.0.1:80"), slot }].flags;
    assert_eq!((flags(0), flags(1)), (backend_flags::LOCAL, 0));
    assert_eq!(snapshot.tables.services[&key("[fd01::1]:80")].backends, 1);
    assert!(!snapshot.tables.services.contains_key(&key("10.96.0.1:53")), "UDP is left alone");
}

#[test]
fn a_service_outside_the_mesh_is_left_alone_and_an_empty_one_is_not() {
    let compiled = run(&cluster(
        vec![],
        vec![
            service("plain", &["10.96.0.1"], &[("10.9.9.9", true)]),
            service("empty", &["10.96.0.2"], &[("10.9.9.9", false)]),
        ],
    ));
    let snapshot = &compiled.snapshot;
    assert!(matches!(snapshot.resolve(socket("10.96.0.1:80")), Destination::Outside));
    assert_eq!(snapshot.tables.services.len(), 1);
    assert_eq!(snapshot.tables.services[&key("10.96.0.2:80")].backends, 0);
}

#[test]
fn pod_addresses_resolve_to_workloads() {
    let compiled = run(&cluster(vec![workload("web", "b", &["10.1.1.2"])], vec![]));
    let resolved = compiled.snapshot.resolve(socket("10.1.1.2:9999"));
    assert!(matches!(resolved, Destination::Workload(w) if w.name.name == "web"));
}

#[test]
fn probe_ports_of_local_pods_are_known_to_the_kernel() {
    let mut input = cluster(
        vec![workload("cart", "a", &["10.1.0.2", "fd00::2"]), workload("web", "b", &["10.1.1.2"])],
        vec![],
    );
    input.workloads.values_mut().for_each(|workload| workload.probe_ports = [80].into());
    let tables = run(&input).snapshot.tables;
    let key = |text| PortKey::new(&addr(ip(text)), 80_u16.to_be());
    let mut known: Vec<_> = tables.probe_ports.into_keys().collect();
    known.sort_unstable_by_key(|key| crate::ip(key.addr));
    assert_eq!(known, [key("10.1.0.2"), key("fd00::2")]);
}

#[test]
fn strict_marks_local_pods_and_unknown_addresses() {
    let input = cluster(
        vec![workload("cart", "a", &["10.1.0.2"]), workload("web", "b", &["10.1.1.2"])],
        vec![],
    );
    assert!(!run(&input).snapshot.tables.strict_unknown);
    let strict = Options { mtls: MtlsMode::Strict, ..options() };
    let tables = compile(&input, &strict, Generation(1)).snapshot.tables;
    assert!(tables.strict_unknown);
    let flags = tables.workloads[&addr(ip("10.1.0.2"))].flags;
    let native = workload_flags::NATIVE;
    assert_eq!(flags, workload_flags::LOCAL | workload_flags::STRICT | native);
}

#[test]
fn endpoints_are_chosen_by_where_they_are() {
    let ends = ["10.1.0.2", "10.1.0.3", "10.1.1.2", "10.1.2.2"];
    let nodes = ["a", "a", "b", "c"];
    let zones = [("a", "west"), ("b", "west"), ("c", "east")];
    for (distribution, gone, expected) in [
        (Distribution::Anywhere, "", 4),
        (Distribution::OnlySameNode, "", 2),
        (Distribution::OnlySameNode, "a", 0),
        (Distribution::PreferSameNode, "", 2),
        (Distribution::PreferSameNode, "a", 1),
        (Distribution::PreferSameZone, "", 3),
        (Distribution::PreferSameZone, "a", 1),
    ] {
        let listed: Vec<(&str, bool)> = ends.map(|end| (end, true)).to_vec();
        let (mut service, mut slice) = service("s", &["10.96.0.1"], &listed);
        service.distribution = distribution;
        for (endpoint, node) in slice.endpoints.iter_mut().zip(nodes) {
            endpoint.node = Some(node.to_owned());
            endpoint.ready = node != gone;
        }
        let pods = ends.iter().zip(nodes).map(|(end, node)| workload(end, node, &[end])).collect();
        let mut input = cluster(pods, vec![(service, slice)]);
        for (node, zone) in zones {
            let labels = [("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into();
            let origin = ResourceRef::cluster_scoped("Node", node);
            input.nodes.insert(node.to_owned(), Node { origin, addresses: vec![], labels });
        }
        let snapshot = run(&input).snapshot;
        let found = snapshot.services[&socket("10.96.0.1:80")].endpoints.len();
        assert_eq!(found, expected, "{distribution:?} without {gone:?}");
    }
}

#[test]
fn draining_endpoints_are_used_where_none_is_ready() {
    let listed = [("10.1.0.2", true), ("10.1.0.3", false), ("10.1.0.4", false)];
    let (service, mut slice) = service("s", &["10.96.0.1"], &listed);
    slice.endpoints[1].draining = true;
    let pods = || vec![workload("p", "a", &["10.1.0.2"]), workload("q", "a", &["10.1.0.3"])];
    let addresses = |slice: &EndpointSlice| -> Vec<String> {
        let input = cluster(pods(), vec![(service.clone(), slice.clone())]);
        let route = &run(&input).snapshot.services[&socket("10.96.0.1:80")];
        route.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
    };
    assert_eq!(addresses(&slice), ["10.1.0.2:8080"]);
    slice.endpoints[0].ready = false;
    assert_eq!(addresses(&slice), ["10.1.0.3:8080"]);
}

#[test]
fn with_affinity_kernel_and_proxy_choose_the_same_endpoint() {
    let ends = [("10.1.1.2", true), ("10.1.1.3", true), ("10.1.1.4", true)];
    let (mut service, slice) = service("s", &["10.96.0.1"], &ends);
    service.affinity = true;
    let mut pods: Vec<Workload> = ends.map(|(end, _)| workload(end, "b", &[end])).into();
    pods[1].weight = 3;
    let snapshot = run(&cluster(pods, vec![(service, slice)])).snapshot;
    let route = &snapshot.services[&socket("10.96.0.1:80")];
    let tables = &snapshot.tables;
    let entry = tables.services[&key("10.96.0.1:80")];
    assert_eq!((entry.backends, entry.flags), (5, service_flags::AFFINITY));
    for last in 0..50 {
        let client: IpAddr = [10, 1, 0, last].into();
        let slot = undermesh_ebpf_common::affinity_slot(&addr(client), entry.backends);
        let backend = tables.backends[&BackendKey { service: key("10.96.0.1:80"), slot }];
        let chosen = route.endpoints[route.affine(client).unwrap()].address;
        assert_eq!(crate::ip(backend.addr), chosen.ip());
    }
}

#[test]
fn weights_become_as_few_slots_as_their_proportions_need() {
    let ends = [("10.1.0.2", true), ("10.1.1.3", true), ("10.1.1.4", true)];
    let slots = |weights: [u32; 3]| -> Vec<u32> {
        let mut pods: Vec<Workload> = ends.map(|(end, _)| workload(end, "b", &[end])).into();
        for (pod, weight) in pods.iter_mut().zip(weights) {
            pod.weight = weight;
        }
        let snapshot = run(&cluster(pods, vec![service("s", &["10.96.0.1"], &ends)])).snapshot;
        let route = &snapshot.services[&socket("10.96.0.1:80")];
        let slots: Vec<u32> = route.endpoints.iter().map(|endpoint| endpoint.weight).collect();
        let entry = snapshot.tables.services[&key("10.96.0.1:80")];
        assert_eq!(entry.backends, slots.iter().sum::<u32>());
        assert_eq!(entry.backends as usize, snapshot.tables.backends.len());
        slots
    };
    assert_eq!(slots([1, 1, 1]), [1, 1, 1]);
    assert_eq!(slots([100, 50, 50]), [2, 1, 1]);
    assert_eq!(slots([900, 90, 10]), [90, 9, 1]);
    assert_eq!(slots([1_000_000, 1_000_001, 1]), [2047, 2048, 1], "bounded, and nobody left out");
}

#[test]
fn neighbours_are_led_to_the_proxy_where_the_node_encrypts() {
    let input = cluster(
        vec![workload("cart", "a", &["10.1.0.2"])],
        vec![service("one", &["10.96.0.1"], &[("10.1.0.2", true)])],
    );
    let encrypt = Options { same_node: SameNode::Encrypt, mtls: MtlsMode::Strict, ..options() };
    let snapshot = compile(&input, &encrypt, Generation(1)).snapshot;
    let flags = snapshot.tables.workloads[&addr(ip("10.1.0.2"))].flags;
    assert_eq!(flags, workload_flags::STRICT | workload_flags::NATIVE);
    let key = BackendKey { service: key("10.96.0.1:80"), slot: 0 };
    assert_eq!(snapshot.tables.backends[&key].flags, 0);
    assert!(snapshot.workloads[&ip("10.1.0.2")].local);
}

#[test]
fn a_pod_may_fail_otherwise_than_its_node() {
    let mut open = workload("open", "a", &["10.1.0.2"]);
    open.outbound_failure = Some(FailMode::Open);
    let snapshot =
        run(&cluster(vec![open, workload("as-node", "a", &["10.1.0.3"])], vec![])).snapshot;
    assert_eq!(snapshot.workloads[&ip("10.1.0.2")].outbound_failure, FailMode::Open);
    assert_eq!(snapshot.workloads[&ip("10.1.0.3")].outbound_failure, FailMode::Closed);
}

#[test]
fn a_pod_may_see_other_source_addresses_than_its_node() {
    let mut own = workload("own", "a", &["10.1.0.2"]);
    own.source_address = Some(SourceAddress::Translated);
    let input = cluster(vec![own, workload("as-node", "a", &["10.1.0.3"])], vec![]);
    let transparent = Options { source_address: SourceAddress::Transparent, ..options() };
    let snapshot = compile(&input, &transparent, Generation(1)).snapshot;
    let of = |text| snapshot.workloads[&ip(text)].source_address;
    assert_eq!(of("10.1.0.2"), SourceAddress::Translated);
    assert_eq!(of("10.1.0.3"), SourceAddress::Transparent);
    assert_eq!(
        run(&input).snapshot.workloads[&ip("10.1.0.3")].source_address,
        SourceAddress::Translated
    );
}

#[test]
fn conflicts_are_said_about_the_object_that_loses() {
    let mut lost = workload("lost", "a", &["10.1.0.9"]);
    lost.location = None;
    let compiled = run(&cluster(
        vec![
            workload("cart", "a", &["10.1.0.2"]),
            workload("twin", "a", &["10.1.0.2"]),
            workload("loop", "a", &["127.0.0.1"]),
            lost,
        ],
        vec![
            service("one", &["10.96.0.1"], &[("10.1.0.2", true)]),
            service("two", &["10.96.0.1"], &[("10.1.0.2", true)]),
        ],
    ));
    let said: Vec<String> = compiled.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(said[0].starts_with("Pod shop/loop: its address 127.0.0.1 is loopback"), "{said:#?}");
    assert!(said[1].starts_with("Pod shop/lost: is enrolled"), "{said:#?}");
    assert!(
        said[2].starts_with("Pod shop/twin: its address 10.1.0.2 already belongs to Pod shop/cart")
    );
    assert!(said[3].starts_with("Service shop/two: its address 10.96.0.1:80 already belongs"));
}

#[test]
fn the_same_input_gives_the_same_tables() {
    let input = cluster(
        (2..50).map(|n| workload(&format!("w{n}"), "a", &[&format!("10.1.0.{n}")])).collect(),
        vec![service("all", &["10.96.0.1"], &[("10.1.0.9", true), ("10.1.0.3", true)])],
    );
    assert_eq!(run(&input).snapshot.tables, run(&input).snapshot.tables);
}

#[test]
fn what_an_agent_speaks_is_known_to_others_and_to_the_kernel() {
    let mut old = workload("old", "b", &["10.1.1.2"]);
    old.wire = Wire::Hbone;
    let snapshot = run(&cluster(vec![old, workload("new", "b", &["10.1.1.3"])], vec![])).snapshot;
    for (address, wire, flags) in
        [("10.1.1.2", Wire::Hbone, 0), ("10.1.1.3", Wire::Native, workload_flags::NATIVE)]
    {
        assert_eq!(snapshot.workloads[&ip(address)].wire, wire);
        assert_eq!(snapshot.tables.workloads[&addr(ip(address))].flags, flags);
    }
}
