//! TCPRoute and TLSRoute, and routes of several types for one Service.

use undermesh_model::traffic::{L4Match, L4Rule, Parent};

use super::{backend, host, quiet, read, route, says};
use crate::fixtures::{documents, name};

const RULES: &str = "  rules: [{name: one, backendRefs: [{name: cart, port: 90, weight: 9}, \
                     {name: v2, port: 80}]}]\n";

fn expected(matches: Vec<L4Match>) -> L4Rule {
    let backends = vec![backend(host("cart", "shop", 90), 9), backend(host("v2", "shop", 80), 1)];
    L4Rule { name: "one".to_owned(), matches, backends }
}

#[test]
fn a_tcp_route_is_about_every_connection() {
    for version in ["v1", "v1alpha2", "v1alpha3"] {
        let text = route("TCPRoute", RULES).replace("k8s.io/v1", &format!("k8s.io/{version}"));
        let set = quiet(&text);
        assert_eq!(set.tcp, [expected(vec![])]);
        assert!(set.tls.is_empty() && set.http.is_empty());
    }
}

#[test]
fn a_tls_route_is_about_its_server_names() {
    for version in ["v1", "v1alpha2", "v1alpha3"] {
        let hosts = format!("  hostnames: [a.example, '*.b.example']\n{RULES}");
        let text = route("TLSRoute", &hosts).replace("k8s.io/v1", &format!("k8s.io/{version}"));
        let set = quiet(&text);
        let names = vec!["a.example".to_owned(), "*.b.example".to_owned()];
        let matched = L4Match { sni_hosts: names, ..L4Match::default() };
        assert_eq!(set.tls, [expected(vec![matched])]);
        assert!(set.tcp.is_empty() && set.http.is_empty());
    }
}

#[test]
fn only_the_first_rule_for_connections_counts_and_that_is_said() {
    let text = "  rules: [{backendRefs: [{name: cart, port: 90}]}, \
                {backendRefs: [{name: v2, port: 80}]}]\n";
    says(&route("TCPRoute", text), "Warning ignored-entry: spec.rules[1]");
}

#[test]
fn on_one_port_the_most_specific_type_of_route_is_used() {
    let backends = "  rules: [{backendRefs: [{name: v2, port: 80}]}]\n";
    let of = |kind: &str, port: &str| {
        let name = format!("name: cart{port}");
        route(kind, backends).replace("name: cart", &name)
    };
    let parent = |port| Parent::Service { service: name("cart"), port };
    // Two routes, and what is left of their parents.
    for (first, second, left) in [
        (of("GRPCRoute", ""), of("HTTPRoute", ""), [vec![parent(None)], vec![]]),
        (of("HTTPRoute", ""), of("GRPCRoute", ""), [vec![], vec![parent(None)]]),
        (of("HTTPRoute", ""), of("TCPRoute", ""), [vec![parent(None)], vec![]]),
        (
            of("HTTPRoute", ""),
            of("GRPCRoute", ", port: 80"),
            [vec![parent(Some(90))], vec![parent(Some(80))]],
        ),
        (
            of("HTTPRoute", ", port: 80"),
            of("TCPRoute", ", port: 90"),
            [vec![parent(Some(80))], vec![parent(Some(90))]],
        ),
        (
            of("HTTPRoute", ""),
            of("HTTPRoute", "").replace("name: r,", "name: s,"),
            [vec![parent(None)], vec![parent(None)]],
        ),
    ] {
        let (cluster, said) = read(&documents(&[&first, &second]));
        let parents: Vec<_> = cluster.routes.iter().map(|set| set.parents.clone()).collect();
        let left: Vec<_> = left.into_iter().filter(|left| !left.is_empty()).collect();
        assert_eq!(parents, left, "{first}{second}");
        let untouched = parents.len() == 2 && !parents.contains(&vec![parent(Some(90))])
            || first.contains("port: 80}]\n");
        assert_eq!(said.is_empty(), untouched, "{said:?}");
        assert!(said.iter().all(|one| one.starts_with("Warning conflicting-route: port ")));
    }
}
