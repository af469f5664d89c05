//! What is said of the object as a whole, and where findings point.

use undermesh_model::{
    NamespacedName,
    traffic::{Dialect, Parent, Scope},
};

use super::{named, object, read, set};
use crate::fixtures::findings;

const HTTP: &str = "http: [{route: [{destination: {host: cart}}]}]";

#[test]
fn an_object_becomes_one_set_of_routes_in_all_its_versions() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text = object(HTTP).replace("istio.io/v1", &format!("istio.io/{version}")).replace(
            "namespace: shop}",
            "namespace: shop, creationTimestamp: '2024-01-01T00:00:01Z',
              annotations: {undermesh.io/precedence: '-7'}}",
        );
        let read = set(&text);
        assert_eq!(read.name, NamespacedName::new("shop", "routes"));
        assert_eq!((read.dialect, read.precedence), (Dialect::Istio, -7));
        assert_eq!(read.created, 1_704_067_201);
        assert_eq!(read.scope, Scope::Everywhere);
        assert_eq!((read.http.len(), read.tls.len(), read.tcp.len()), (1, 0, 0));
    }
}

#[test]
fn hosts_are_full_names_wildcards_or_addresses() {
    let text = object(HTTP);
    let hosts = "hosts: [Cart, a.example.com, '*.b.example.com', 10.0.0.1, 'fd00::1']";
    let read = set(&text.replace("hosts: [cart]", hosts));
    let expected =
        ["cart.shop.svc.cluster.local", "a.example.com", "*.b.example.com", "10.0.0.1", "fd00::1"];
    assert_eq!(read.parents, expected.map(|host| Parent::Host(host.to_owned())));
}

#[test]
fn an_object_is_for_the_namespaces_that_it_is_exported_to() {
    let scope = |names: &str| set(&object(&format!("exportTo: {names}, {HTTP}"))).scope;
    assert_eq!(scope("['*']"), Scope::Everywhere);
    let namespaces = Scope::Namespaces(["shop".to_owned(), "web".to_owned()].into());
    assert_eq!(scope("['.', web]"), namespaces);
    assert_eq!(scope("['~']"), Scope::Namespaces([].into()));
}

#[test]
fn fields_that_nobody_knows_are_warnings() {
    for (spec, unknown) in [
        ("host: [a]", "\"host\" of spec"),
        ("http: [{rout: [], directResponse: {status: 200}}]", "\"rout\" of spec.http.[]"),
        (
            "tcp: [{match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: a}}]}]",
            "\"sourceSubnet\" of spec.tcp.[].match.[]",
        ),
        (
            "tcp: [{route: [{destination: {host: a, ports: 1}}]}]",
            "\"ports\" of spec.tcp.[].route.[].destination",
        ),
    ] {
        let (_, said) = read(&[&object(&format!("{spec}, tls: []"))]);
        let expected = format!("Warning unknown-field: field {unknown} is not known");
        assert!(said.contains(&expected), "{said:?}");
    }
}

#[test]
fn findings_name_the_line_of_the_field() {
    let text = named("routes", "").replace("spec: \n", "spec:\n");
    let rest = "  hosts: [cart]
  http:
  - match:
    - uri:
        regex: 'a('
    route:
    - destination:
        host: ''
    timeout: soon
  - retries:
      attempts: many
";
    let said = findings(&format!("{text}{}", rest.replace("many", "1")));
    let at = |line: usize| format!("Error all.yaml:{line}: VirtualService shop/routes: ");
    for (line, what) in [
        (9, "spec.http[0].match[0].uri.regex: the pattern is no regular expression"),
        (12, "spec.http[0].route[0].destination.host: is missing"),
        (13, "spec.http[0].timeout: \"soon\" is no duration"),
        (14, "spec.http[1]: has no route, redirect, directResponse or delegate"),
    ] {
        let expected = at(line) + what;
        assert!(said.iter().any(|one| one.starts_with(&expected)), "{expected}: {said:#?}");
    }
    let said = findings(&format!("{text}{rest}"));
    let expected = at(15) + "spec.http[1].retries.attempts: invalid type";
    assert!(said[0].starts_with(&expected), "{said:#?}");
}
