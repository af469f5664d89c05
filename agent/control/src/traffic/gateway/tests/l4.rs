//! TCPRoute and TLSRoute: what is read.

use undermesh_model::traffic::{L4Match, L4Rule};

use super::{backend, host, quiet, route, says};

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
