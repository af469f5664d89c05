//! Rules for connections.

use undermesh_model::traffic::{L4Match, L4Rule};

use super::{backend, object, set};

#[test]
fn rules_for_connections_are_read_field_by_field() {
    let read = set(&object(
        "tls: [{match: [{sniHosts: [Cart]}, {sniHosts: [cart], destinationSubnets: [10.0.0.0/8, fd00::1], port: 443,
                sourceLabels: {app: web}, sourceNamespace: web, gateways: [mesh]}],
                route: [{destination: {host: cart, subset: a}, weight: 1}, {destination: {host: cart, subset: b}, weight: 2}]}],
         tcp: [{match: [{destinationSubnets: [10.0.0.1], port: 5432, sourceLabels: {app: web}, sourceNamespace: web}],
                route: [{destination: {host: cart, port: {number: 5433}}}]},
               {route: [{destination: {host: cart}}]}]",
    ));
    let named = L4Match { sni_hosts: vec!["cart".to_owned()], ..L4Match::default() };
    let block = |text: &str| text.parse().unwrap();
    let whole = L4Match {
        destinations: vec![block("10.0.0.0/8"), block("fd00::1/128")],
        port: Some(443),
        source_labels: [("app".to_owned(), "web".to_owned())].into(),
        source_namespace: Some("web".to_owned()),
        ..named.clone()
    };
    let weighted = vec![backend("cart", None, Some("a"), 1), backend("cart", None, Some("b"), 2)];
    let rule = |matches, backends| L4Rule { name: String::new(), matches, backends };
    assert_eq!(read.tls, [rule(vec![named, whole.clone()], weighted)]);
    let plain = L4Match {
        sni_hosts: vec![],
        destinations: vec![block("10.0.0.1/32")],
        port: Some(5432),
        ..whole
    };
    let port = vec![backend("cart", Some(5433), None, 100)];
    let expected = [rule(vec![plain], port), rule(vec![], vec![backend("cart", None, None, 100)])];
    assert_eq!(read.tcp, expected);
}

#[test]
fn a_wildcard_among_the_hosts_covers_server_names() {
    let text = object(
        "tls: [{match: [{sniHosts: [a.example.com, '*.b.example.com']}], route: [{destination: {host: cart}}]}]",
    );
    let read = set(&text.replace("hosts: [cart]", "hosts: ['*.example.com']"));
    assert_eq!(read.tls[0].matches[0].sni_hosts, ["a.example.com", "*.b.example.com"]);
}
