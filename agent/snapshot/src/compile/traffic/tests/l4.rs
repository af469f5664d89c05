//! Routes for connections.

use undermesh_model::traffic::{L4Match, L4Rule};

use super::*;
use crate::traffic::AppProtocol;

fn l4(name: &str, one: L4Match) -> L4Rule {
    L4Rule { name: name.to_owned(), matches: vec![one], backends: vec![backend(to(name))] }
}

/// A destination that does not exist tells rules apart well enough: by its finding.
fn to(name: &str) -> BackendRef {
    host(CART, Some(80), Some(name))
}

fn sni(all: &[&str]) -> L4Match {
    let sni_hosts = all.iter().map(|name| (*name).to_owned()).collect();
    L4Match { sni_hosts, ..L4Match::default() }
}

/// The world with subsets for all names that rules lead to, and the port as `protocol` says.
fn l4_world(protocol: &str, routes: Vec<RouteSet>) -> Compiled {
    let mut cluster = world();
    cluster.services.values_mut().next().unwrap().ports[0].app_protocol = Some(protocol.to_owned());
    let names = routes.iter().flat_map(|set| set.tls.iter().chain(&set.tcp));
    let subsets = names.map(|rule| subset(&rule.name, "v1")).collect();
    add(&mut cluster, DestinationRule { subsets, ..destination_rule("shop", "r", CART) });
    cluster.routes = routes;
    run(&cluster)
}

/// Where a connection leads: the rule's name, or nothing for the default.
fn found(compiled: &Compiled, sni: Option<&str>, dialled: &str, label: Option<&str>) -> String {
    let labels = label.map(|label| ("app".to_owned(), label.to_owned())).into_iter().collect();
    let client = Client { namespace: "shop", labels: &labels };
    let route = traffic(compiled, "shop").l4_route(sni, dialled.parse().unwrap(), &client);
    match route.map(|route| &route.targets[0].target) {
        Some(Target::Cluster(cluster)) => cluster.key.subset.clone(),
        Some(Target::Unusable(status)) => status.to_string(),
        None => String::new(),
    }
}

const VIP: &str = "10.96.0.1";

#[test]
fn the_most_specific_server_name_wins_and_tls_comes_before_tcp() {
    let mut passed = set("VirtualService", "tls", vec![Parent::Host(CART.to_owned())]);
    passed.tls = vec![
        l4("wide", sni(&["*.example.com"])),
        l4("exact", sni(&["a.example.com", "b.other"])),
        l4("narrow", sni(&["*.b.example.com"])),
    ];
    passed.tcp = vec![l4("tcp", L4Match::default())];
    let compiled = l4_world("tls", vec![passed]);
    let led = |name| found(&compiled, name, VIP, None);
    assert_eq!(findings(&compiled), []);
    assert_eq!(led(Some("a.example.com")), "exact");
    assert_eq!(led(Some("B.other")), "exact");
    assert_eq!(led(Some("x.b.example.com")), "narrow");
    assert_eq!(led(Some("x.example.com")), "wide");
    assert_eq!(led(Some("elsewhere")), "tcp");
    assert_eq!(led(None), "tcp");
    assert!(traffic(&compiled, "shop").looks_at_server_names());
}

#[test]
fn the_longest_block_of_addresses_comes_before_the_order_of_rules() {
    let block =
        |text: &str| L4Match { destinations: vec![text.parse().unwrap()], ..L4Match::default() };
    let labelled = L4Match {
        source_labels: [("app".to_owned(), "web".to_owned())].into(),
        ..L4Match::default()
    };
    let mut routes = set("VirtualService", "tcp", vec![Parent::Host(CART.to_owned())]);
    routes.tcp = vec![
        l4("labelled", labelled),
        l4("wide", block("10.0.0.0/8")),
        l4("narrow", block("10.96.0.1/32")),
        l4("elsewhere", L4Match { port: Some(81), ..L4Match::default() }),
    ];
    let compiled = l4_world("tcp", vec![routes]);
    assert_eq!(found(&compiled, None, VIP, Some("web")), "narrow");
    assert_eq!(found(&compiled, None, "10.9.9.9", None), "wide");
    assert_eq!(found(&compiled, None, "11.0.0.1", Some("web")), "labelled");
    assert_eq!(found(&compiled, None, "11.0.0.1", None), "");
    assert!(!traffic(&compiled, "shop").looks_at_server_names());
}

#[test]
fn routes_for_connections_of_several_virtual_services_are_all_read() {
    let routes = |name: &str, created, one| RouteSet {
        created,
        tls: vec![l4(name, one)],
        ..set("VirtualService", name, vec![Parent::Host(CART.to_owned())])
    };
    let compiled =
        l4_world("tls", vec![routes("young", 2, sni(&["a", "b"])), routes("old", 1, sni(&["a"]))]);
    assert_eq!(findings(&compiled), []);
    assert_eq!(found(&compiled, Some("a"), VIP, None), "old");
    assert_eq!(found(&compiled, Some("b"), VIP, None), "young");
}

#[test]
fn istios_routes_for_connections_are_not_for_http_ports() {
    let mut routes = set("VirtualService", "tcp", vec![Parent::Host(CART.to_owned())]);
    routes.tcp = vec![l4("tcp", L4Match::default())];
    let compiled = l4_world("http", vec![routes]);
    assert!(port(&compiled, CART_VIP).traffic.is_empty());
    assert_eq!(findings(&compiled)[0].0, "VirtualService shop/tcp route-without-port");
}

#[test]
fn a_tcp_route_makes_its_port_tcp_and_only_its_first_rule_holds() {
    let service = NamespacedName::new("shop", "cart");
    let mut route = set("TCPRoute", "tcp", vec![Parent::Service { service, port: None }]);
    let plain = |name| L4Rule { matches: Vec::new(), ..l4(name, L4Match::default()) };
    route.tcp = vec![plain("first"), plain("second")];
    let compiled = l4_world("http", vec![route]);
    assert_eq!(traffic(&compiled, "shop").protocol, AppProtocol::Tcp);
    assert_eq!(traffic(&compiled, "shop").l4.len(), 1);
    assert_eq!(found(&compiled, None, VIP, None), "first");
}

#[test]
fn a_tls_route_without_names_is_for_all_tls_and_nothing_else() {
    let service = NamespacedName::new("shop", "cart");
    let mut route = set("TLSRoute", "tls", vec![Parent::Service { service, port: None }]);
    route.tls = vec![L4Rule { matches: Vec::new(), ..l4("tls", L4Match::default()) }];
    let compiled = l4_world("tls", vec![route]);
    assert_eq!(traffic(&compiled, "shop").protocol, AppProtocol::Tls);
    assert_eq!(found(&compiled, Some("any"), VIP, None), "tls");
    assert_eq!(found(&compiled, None, VIP, None), "");
}
