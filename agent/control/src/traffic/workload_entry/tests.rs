//! Manifests in, nouns and findings out.

use std::collections::BTreeMap;

use undermesh_model::traffic::{EntryAddress, Locality, WorkloadEntry};

use crate::fixtures::{load, name};

/// An entry in `shop` with this `spec`.
fn entry(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
         metadata: {{name: e, namespace: shop, labels: {{app: object, tier: db}}}}\nspec: {spec}\n"
    )
}

/// The entry, if there is one, whether anything is refused, and the findings without place and object.
fn read(text: &str) -> (Option<WorkloadEntry>, bool, Vec<String>) {
    let loaded = load(text);
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    let refused = loaded.cluster.is_none();
    let entry = loaded.cluster.and_then(|cluster| cluster.workload_entries.into_values().next());
    (entry, refused, said.collect())
}

/// The entry of a text that nothing is said against.
fn quiet(spec: &str) -> WorkloadEntry {
    let (entry, _, said) = read(&entry(spec));
    assert_eq!(said, Vec::<String>::new(), "{spec}");
    entry.unwrap()
}

#[test]
fn an_entry_is_read_in_every_version() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text = entry("{address: 10.0.0.1}").replace("io/v1", &format!("io/{version}"));
        let (read, _, said) = read(&text);
        assert_eq!(said, Vec::<String>::new());
        let read = read.unwrap();
        assert_eq!(read.name, name("e"));
        assert_eq!(read.origin.to_string(), "WorkloadEntry shop/e");
    }
}

#[test]
fn addresses_are_addresses_or_full_names() {
    for (address, expected) in [
        ("10.0.0.1", EntryAddress::Ip("10.0.0.1".parse().unwrap())),
        ("'::ffff:10.0.0.1'", EntryAddress::Ip("10.0.0.1".parse().unwrap())),
        ("'fd00::1'", EntryAddress::Ip("fd00::1".parse().unwrap())),
        ("DB.example.com", EntryAddress::Host("db.example.com".to_owned())),
    ] {
        assert_eq!(quiet(&format!("{{address: {address}}}")).endpoint.address, expected);
    }
}

#[test]
fn ports_labels_and_weight_are_read() {
    let read =
        quiet("{address: 10.0.0.1, ports: {http: 8080}, labels: {app: spec, a: b}, weight: 7}");
    assert_eq!(read.endpoint.ports, BTreeMap::from([("http".to_owned(), 8080)]));
    assert_eq!(read.endpoint.weight, 7);
    let label = |name: &str| read.endpoint.labels.get(name).map(String::as_str);
    assert_eq!((label("app"), label("a"), label("tier")), (Some("object"), Some("b"), Some("db")));
}

#[test]
fn the_field_says_where_an_endpoint_is_and_else_the_label() {
    let place = |region: &str, zone: &str, subzone: &str| Locality {
        region: region.to_owned(),
        zone: zone.to_owned(),
        subzone: subzone.to_owned(),
    };
    for (fields, expected) in [
        ("locality: eu/eu-1/a", place("eu", "eu-1", "a")),
        ("locality: eu/eu-1/a/rack", place("eu", "eu-1", "a/rack")),
        ("locality: eu", place("eu", "", "")),
        ("labels: {istio-locality: eu.eu-1.a}", place("eu", "eu-1", "a")),
        ("locality: us, labels: {istio-locality: eu.eu-1.a}", place("us", "", "")),
        ("weight: 1", place("", "", "")),
    ] {
        let read = quiet(&format!("{{address: 10.0.0.1, {fields}}}"));
        assert_eq!(read.endpoint.locality, expected, "{fields}");
    }
}

#[test]
fn what_istios_validation_refuses_is_refused_at_its_field() {
    for (spec, field) in [
        ("{}", "address"),
        ("{address: ''}", "address"),
        ("{address: 'a_b'}", "address"),
        ("{address: '*.example.com'}", "address"),
        ("{address: 10.0.0.256}", "address"),
        ("{address: 'unix://a'}", "address"),
        ("{address: 'unix:///a/'}", "address"),
        ("{address: 'unix:///a', ports: {http: 1}}", "ports"),
        ("{address: 10.0.0.1, ports: {A: 1}}", "ports.A"),
        ("{address: 10.0.0.1, labels: {a: 'b c'}}", "labels.a"),
    ] {
        let (_, refused, said) = read(&entry(spec));
        assert!(refused, "accepted: {spec}");
        let expected = format!("Error invalid-workload-entry: spec.{field}: ");
        assert!(said.iter().any(|one| one.starts_with(&expected)), "{expected:?}: {said:#?}");
    }
    for port in ["0", "65536"] {
        let (_, refused, said) =
            read(&entry(&format!("{{address: 10.0.0.1, ports: {{http: {port}}}}}")));
        assert!(refused && said.iter().any(|one| one.contains("spec.ports.http")), "{said:?}");
    }
}

#[test]
fn what_is_not_supported_is_said() {
    for (spec, expected) in [
        ("{address: 10.0.0.1, network: far}", "unsupported-field: spec.network: "),
        ("{address: 10.0.0.1, port: 1}", "unknown-field: field \"port\" of spec is not known"),
    ] {
        let (read, _, said) = read(&entry(spec));
        let expected = format!("Warning {expected}");
        assert!(read.is_some(), "{said:?}");
        assert!(said.len() == 1 && said[0].starts_with(&expected), "{expected:?}: {said:#?}");
    }
}

#[test]
fn an_endpoint_that_nobody_can_connect_to_is_left_out_and_said() {
    for (spec, expected) in [
        ("{network: far}", "unsupported-field: spec.network: "),
        ("{address: 'unix:///run/a'}", "unsupported-field: spec.address: "),
        ("{address: 'unix://@a'}", "unsupported-field: spec.address: "),
    ] {
        let (read, refused, said) = read(&entry(spec));
        let expected = format!("Warning {expected}");
        assert!(read.is_none() && !refused, "{said:?}");
        assert!(said.len() == 1 && said[0].starts_with(&expected), "{expected:?}: {said:#?}");
    }
}
