//! Derived slices, and slices that somebody has written.

use undermesh_model::{Cluster, EndpointSlice};

use crate::fixtures::{ACCOUNT, POD, SERVICE, cluster, documents, name};

/// A copy of the pod with other names and addresses.
fn pod(name: &str, host: u8) -> String {
    POD.replace("name: cart\n", &format!("name: {name}\n"))
        .replace("10.1.0.2", &format!("10.1.0.{host}"))
        .replace("fd00::2", &format!("fd00::{host}"))
}

fn derived(pods: &[&str]) -> Vec<EndpointSlice> {
    let cluster: Cluster = cluster(&documents(&[&documents(pods), ACCOUNT, SERVICE]));
    cluster.endpoint_slices.into_values().collect()
}

fn ports(slice: &EndpointSlice) -> Vec<(&str, u16)> {
    slice.ports.iter().map(|port| (port.name.as_str(), port.port)).collect()
}

#[test]
fn endpoints_are_the_addresses_of_the_pods_that_the_selector_matches() {
    let other = pod("other", 4).replace("app: cart", "app: other");
    let elsewhere = pod("elsewhere", 5).replace("namespace: shop", "namespace: away");
    let finished = pod("finished", 6).replace("status:\n", "status:\n  phase: Succeeded\n");
    let pending = pod("pending", 7).split("status:").next().unwrap().to_owned();
    let slices = derived(&[POD, &other, &elsewhere, &finished, &pending]);
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].service, name("cart"));
    assert_eq!(slices[0].origin.to_string(), "Service shop/cart");
    assert_eq!(ports(&slices[0]), [("web", 8080), ("raw", 9090)]);
    let endpoints: Vec<_> = slices[0]
        .endpoints
        .iter()
        .map(|e| (e.address.to_string(), e.ready, e.pod.clone(), e.node.as_deref()))
        .collect();
    let expected = |address: &str| (address.to_owned(), true, Some(name("cart")), Some("node-a"));
    assert_eq!(endpoints, [expected("10.1.0.2"), expected("fd00::2")]);
}

#[test]
fn readiness_follows_the_pod() {
    let going = "name: cart\n  deletionTimestamp: 2024-05-01T10:00:00Z\n";
    for (from, to, ready, draining) in [
        ("status:\n", "status:\n", true, false),
        ("status:\n", "status:\n  conditions: [{type: Ready, status: 'True'}]\n", true, false),
        ("status:\n", "status:\n  conditions: [{type: Ready, status: 'False'}]\n", false, false),
        ("status:\n", "status:\n  conditions: [{type: Ready, status: Unknown}]\n", false, false),
        ("status:\n", "status:\n  conditions: [{type: Other, status: 'False'}]\n", true, false),
        ("name: cart\n", going, false, true),
    ] {
        let slices = derived(&[&POD.replacen(from, to, 1)]);
        for endpoint in &slices[0].endpoints {
            assert_eq!((endpoint.ready, endpoint.draining), (ready, draining), "{to}");
        }
        assert_eq!(slices[0].endpoints.len(), 2);
    }
}

#[test]
fn named_ports_are_resolved_pod_by_pod() {
    let moved = pod("moved", 3).replace("8080", "8081");
    let nameless = pod("nameless", 4).replace("name: http, ", "");
    let udp = pod("udp", 5).replace("8080}", "8080, protocol: UDP}");
    let slices = derived(&[POD, &moved, &nameless, &udp]);
    let found: Vec<_> = slices.iter().map(|slice| (ports(slice), slice.endpoints.len())).collect();
    assert_eq!(
        found,
        [
            (vec![("web", 8080), ("raw", 9090)], 2),
            (vec![("web", 8081), ("raw", 9090)], 2),
            (vec![("raw", 9090)], 4),
        ]
    );
}

#[test]
fn ports_of_sidecars_count_and_those_of_other_init_containers_do_not() {
    let init = |policy: &str| {
        POD.replace(
            "  containers:\n  - name: app\n",
            &format!(
                "  initContainers:\n  - name: init{policy}\n    ports: [{{name: http, containerPort: 7070}}]\n  containers:\n  - name: app\n"
            ),
        )
        .replace("    - {name: http, containerPort: 8080}\n", "    - {containerPort: 8080}\n")
    };
    assert_eq!(ports(&derived(&[&init("\n    restartPolicy: Always")])[0])[0], ("web", 7070));
    assert_eq!(ports(&derived(&[&init("")])[0]), [("raw", 9090)]);
}

#[test]
fn pods_of_the_hosts_network_are_endpoints() {
    let slices = derived(&[&POD.replace("spec:\n", "spec:\n  hostNetwork: true\n")]);
    assert_eq!(slices[0].endpoints.len(), 2);
}

const SLICE: &str = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: web, port: 8081}, {name: all}]
endpoints:
- {addresses: [10.9.9.9], targetRef: {kind: Pod, name: cart}, nodeName: node-a}
- {addresses: [10.9.9.8], conditions: {ready: false}}
- {addresses: [10.9.9.7], conditions: {ready: true, terminating: true}}
- {addresses: [10.9.9.6], conditions: {ready: false, serving: false, terminating: true}}
";

#[test]
fn written_slices_are_taken_as_they_are_and_nothing_is_derived_beside_them() {
    let text = documents(&[POD, ACCOUNT, SERVICE, SLICE]);
    let cluster = cluster(&text);
    assert_eq!(cluster.endpoint_slices.len(), 1);
    let slice = &cluster.endpoint_slices[&name("cart-1")];
    assert_eq!(ports(slice), [("web", 8081)]);
    let states: Vec<_> = slice.endpoints.iter().map(|e| (e.ready, e.draining)).collect();
    assert_eq!(states, [(true, false), (false, false), (false, true), (false, false)]);
    assert_eq!(slice.endpoints[0].pod, Some(name("cart")));
    assert_eq!(slice.endpoints[0].node.as_deref(), Some("node-a"));
    assert!(slice.endpoints[1].pod.is_none());
}

#[test]
fn a_derived_slice_never_takes_the_place_of_a_written_one() {
    let foreign = SLICE.replace("cart-1", "cart-derived-0").replace("name: cart}}", "name: web}}");
    let service = SERVICE.replace("{name: cart", "{name: web").replace("10.96.0.1", "10.96.0.2");
    let foreign = foreign.replace("service-name: cart", "service-name: web");
    let cluster = cluster(&documents(&[POD, ACCOUNT, SERVICE, &service, &foreign]));
    let services: Vec<_> =
        cluster.endpoint_slices.values().map(|slice| slice.service.name.as_str()).collect();
    assert_eq!(services, ["web", "cart"]);
}
