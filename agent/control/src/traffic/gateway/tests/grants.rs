//! What routes name in other objects: parents, backends, and grants.

use undermesh_model::{
    NamespacedName,
    traffic::{BackendRef, HttpAction, Parent, Scope},
};

use super::{host, quiet, read, route, rules, says};
use crate::fixtures::{documents, findings, name};

fn with_parents(parents: &str) -> String {
    rules("[{backendRefs: [{name: cart, port: 80}]}]")
        .replace("[{group: '', kind: Service, name: cart}]", parents)
}

fn service(service: NamespacedName, port: Option<u16>) -> Parent {
    Parent::Service { service, port }
}

#[test]
fn parents_are_services_and_their_ports() {
    for (written, port) in [
        ("", None),
        (", namespace: shop", None),
        (", port: 90", Some(90)),
        (", sectionName: web", Some(80)),
        (", sectionName: raw, port: 90", Some(90)),
    ] {
        let parents = format!("[{{group: '', kind: Service, name: cart{written}}}]");
        assert_eq!(quiet(&with_parents(&parents)).parents, [service(name("cart"), port)]);
    }
    let parents = "[{group: '', kind: Service, name: cart, port: 80}, \
                    {group: '', kind: Service, name: cart, port: 90}]";
    assert_eq!(quiet(&with_parents(parents)).parents.len(), 2);
}

#[test]
fn parents_that_are_no_services_are_ignored() {
    for parents in [
        "[{name: gw}]",
        "[{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]",
        "[{group: networking.istio.io, kind: ServiceEntry, name: gw}]",
        "[{group: multicluster.x-k8s.io, kind: ServiceImport, name: gw}]",
        "[{group: gateway.networking.k8s.io, kind: Service, name: cart}]",
    ] {
        let cluster =
            says(&with_parents(parents), "Info ignored-parent: spec.parentRefs[0]: parent");
        assert!(cluster.routes.is_empty());
    }
    let cluster = says(&with_parents("[]"), "Info route-without-parent: spec: ");
    assert!(cluster.routes.is_empty());
    let both = "[{name: gw}, {group: '', kind: Service, name: cart}]";
    let cluster = says(&with_parents(both), "Info ignored-parent");
    assert_eq!(cluster.routes[0].parents, [service(name("cart"), None)]);
    let cluster =
        says(&with_parents("[{kind: Service, name: cart}]"), "Warning parent-without-group");
    assert_eq!(cluster.routes.len(), 1);
}

#[test]
fn parents_that_have_no_traffic_of_their_own_are_ignored() {
    for (written, expected) in [
        ("name: none", "Service shop/none does not exist"),
        ("name: pods", "Service shop/pods is headless"),
        ("name: outside", "Service shop/outside is of a type that is not supported"),
        ("name: cart, port: 81", "Service shop/cart has no port 81"),
        ("name: cart, sectionName: x", "Service shop/cart has no port named \"x\""),
        (
            "name: cart, sectionName: web, port: 90",
            "Service shop/cart has no port 90 named \"web\"",
        ),
    ] {
        let text = with_parents(&format!("[{{group: '', kind: Service, {written}}}]"));
        let cluster = says(&text, &format!("Warning unknown-parent: {expected}"));
        assert!(cluster.routes.is_empty());
    }
}

#[test]
fn a_route_for_another_namespaces_service_is_for_its_own_clients() {
    let parents = "[{group: '', kind: Service, name: cart}, \
                    {group: '', kind: Service, name: pay, namespace: bank}]";
    let (cluster, said) = read(&with_parents(parents));
    assert_eq!(said, Vec::<String>::new());
    let [produced, consumed] = &cluster.routes[..] else { panic!("{:?}", cluster.routes) };
    assert_eq!(produced.scope, Scope::Everywhere);
    assert_eq!(produced.parents, [service(name("cart"), None)]);
    assert_eq!(consumed.scope, Scope::Namespaces(["shop".to_owned()].into()));
    assert_eq!(consumed.parents, [service(NamespacedName::new("bank", "pay"), None)]);
    assert_eq!(produced.http, consumed.http);
}

#[test]
fn backends_that_cannot_be_used_are_invalid() {
    for (written, code, reason) in [
        ("name: none, port: 80", "backend-not-found", "Service shop/none does not exist"),
        ("name: cart, port: 81", "backend-not-found", "Service shop/cart has no port 81"),
        (
            "name: outside, port: 80",
            "backend-not-found",
            "Service shop/outside is of a type that is not supported",
        ),
        (
            "name: pay, namespace: bank, port: 80",
            "reference-not-permitted",
            "Service bank/pay: no ReferenceGrant permits it",
        ),
        (
            "name: none, namespace: bank, port: 80",
            "reference-not-permitted",
            "Service bank/none: no ReferenceGrant permits it",
        ),
        (
            "name: a, group: multicluster.x-k8s.io, kind: ServiceImport, port: 80",
            "unsupported-backend",
            "a backend of kind \"ServiceImport\", group \"multicluster.x-k8s.io\", is not supported",
        ),
    ] {
        let text = rules(&format!("[{{backendRefs: [{{{written}}}, {{name: cart, port: 80}}]}}]"));
        let cluster = says(&text, &format!("Warning {code}: "));
        let HttpAction::Forward(backends) = &cluster.routes[0].http[0].action else { panic!() };
        assert_eq!(backends[0].to, BackendRef::Invalid(reason.to_owned()));
        assert_eq!(backends[1].to, host("cart", "shop", 80));
        let text = route("TCPRoute", &format!("  rules: [{{backendRefs: [{{{written}}}]}}]\n"));
        let backends = &says(&text, &format!("Warning {code}: ")).routes[0].tcp[0].backends;
        assert_eq!(backends[0].to, BackendRef::Invalid(reason.to_owned()));
        let text = rules(&format!(
            "[{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{{written}}}}}}}]}}]"
        ));
        let cluster = says(&text, &format!("Warning {code}: "));
        assert!(cluster.routes[0].http[0].mirrors.is_empty());
    }
}

#[test]
fn a_consumers_route_may_send_to_the_service_it_is_for() {
    let text = rules("[{backendRefs: [{name: pay, namespace: bank, port: 80}]}]")
        .replace("kind: Service, name: cart}", "kind: Service, name: pay, namespace: bank}");
    let HttpAction::Forward(backends) = &quiet(&text).http[0].action else { panic!() };
    assert_eq!(backends[0].to, host("pay", "bank", 80));
}

#[test]
fn grants_permit_kinds_of_routes_from_namespaces_to_services() {
    let to_pay = rules("[{backendRefs: [{name: pay, namespace: bank, port: 80}]}]");
    let from = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}";
    let to = "{group: '', kind: Service}";
    let grant = |namespace: &str, from: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: g, namespace: {namespace}}}\nspec: {{from: [{from}], to: [{to}]}}\n"
        )
    };
    for (grant, permitted) in [
        (grant("bank", from, to), true),
        (grant("bank", from, to).replace("v1beta1", "v1"), true),
        (grant("bank", from, "{group: '', kind: Service, name: pay}"), true),
        (grant("bank", from, "{group: '', kind: Service, name: other}"), false),
        (grant("bank", from, "{group: '', kind: Secret}"), false),
        (grant("bank", from, "{group: a.example, kind: Service}"), false),
        (grant("shop", from, to), false),
        (grant("bank", &from.replace("shop", "other"), to), false),
        (grant("bank", &from.replace("HTTP", "GRPC"), to), false),
        (grant("bank", &from.replace("gateway.networking.k8s.io", "''"), to), false),
        (grant("bank", &format!("{from}, {}", from.replace("shop", "x")), to), true),
    ] {
        let (cluster, said) = read(&documents(&[&to_pay, &grant]));
        let HttpAction::Forward(backends) = &cluster.routes[0].http[0].action else { panic!() };
        assert_eq!(backends[0].to == host("pay", "bank", 80), permitted, "{grant}");
        assert_eq!(said.is_empty(), permitted, "{said:?}");
    }
}

#[test]
fn findings_of_references_name_their_lines() {
    let text = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs:
  - group: ''
    kind: Service
    name: cart
  - group: ''
    kind: Service
    name: none
  rules:
  - backendRefs:
    - port: 80
      name: gone
";
    let found = findings(&documents(&[text, super::SERVICES]));
    for expected in [
        "Warning all.yaml:9: HTTPRoute shop/r: Service shop/none does not exist",
        "Warning all.yaml:15: HTTPRoute shop/r: Service shop/gone does not exist",
    ] {
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected}: {found:#?}");
    }
}
