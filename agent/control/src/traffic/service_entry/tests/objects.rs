//! Every field that is supported.

use std::collections::BTreeMap;

use undermesh_model::traffic::{EntryAddress, EntryLocation, EntryPort, Resolution, Scope};

use super::{entry, quiet, read, with};
use crate::fixtures::{findings, name};

#[test]
fn an_entry_is_read_in_every_version_with_its_age() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let text = with("").replace("io/v1", &format!("io/{version}")).replace(
            "namespace: shop}",
            "namespace: shop, creationTimestamp: '2024-01-01T00:00:01Z'}",
        );
        let read = quiet(&text);
        assert_eq!((read.name, read.created), (name("e"), 1_704_067_201));
        assert_eq!(read.origin.to_string(), "ServiceEntry shop/e");
    }
}

#[test]
fn hosts_are_full_names_or_wildcards_as_they_are_written() {
    for (hosts, expected) in [
        ("[A.example.com]", vec!["a.example.com"]),
        ("['*.example.com', b]", vec!["*.example.com", "b"]),
        ("[a, a, A]", vec!["a"]),
    ] {
        let text = with("").replace("[a.example.com]", hosts);
        assert_eq!(quiet(&text).hosts, expected, "{hosts}");
    }
}

#[test]
fn addresses_are_single_ones_or_blocks() {
    for (addresses, expected) in [
        ("[10.0.0.1]", vec!["10.0.0.1/32"]),
        ("[10.0.0.1/32, 10.0.0.1]", vec!["10.0.0.1/32"]),
        ("[10.1.2.3/8, 'fd00::1']", vec!["10.0.0.0/8", "fd00::1/128"]),
        ("['fd00::/64', '::ffff:10.0.0.1']", vec!["10.0.0.1/32", "fd00::/64"]),
    ] {
        let read = quiet(&with(&format!("addresses: {addresses}")));
        let found: Vec<String> = read.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{addresses}");
    }
}

#[test]
fn ports_have_numbers_names_protocols_and_targets() {
    let read = quiet(&entry(
        "{hosts: [a], resolution: DNS, ports: [{number: 80, name: web, protocol: http, targetPort: 8080},
           {number: 443, name: tls, protocol: TLS, targetPort: 0}, {number: 9, name: raw}]}",
    ));
    let port = |number, name: &str, protocol: &str, target| EntryPort {
        number,
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        target,
    };
    let expected = [
        port(80, "web", "HTTP", Some(8080)),
        port(443, "tls", "TLS", None),
        port(9, "raw", "", None),
    ];
    assert_eq!(read.ports, expected);
}

#[test]
fn every_protocol_that_istio_knows_is_taken() {
    for protocol in [
        "TCP",
        "tcp",
        "GRPC",
        "GRPC-Web",
        "HTTP",
        "HTTP_PROXY",
        "HTTP2",
        "HTTPS",
        "TLS",
        "MONGO",
        "Redis",
        "MySQL",
    ] {
        let read = quiet(&with("").replace("protocol: HTTP", &format!("protocol: {protocol}")));
        assert_eq!(read.ports[0].protocol, protocol.to_ascii_uppercase());
    }
}

#[test]
fn a_location_and_a_resolution_have_defaults() {
    let read = quiet(&with(""));
    assert_eq!((read.location, read.resolution), (EntryLocation::External, Resolution::None));
    let endpoint = "endpoints: [{address: 10.0.0.1}]";
    for (text, location, resolution) in [
        ("location: MESH_INTERNAL", EntryLocation::Internal, Resolution::None),
        ("location: MESH_EXTERNAL", EntryLocation::External, Resolution::None),
        ("resolution: NONE", EntryLocation::External, Resolution::None),
        ("resolution: DNS", EntryLocation::External, Resolution::Dns),
        ("resolution: DNS_ROUND_ROBIN", EntryLocation::External, Resolution::DnsRoundRobin),
        (&format!("resolution: STATIC, {endpoint}"), EntryLocation::External, Resolution::Static),
    ] {
        let read = quiet(&with(text));
        assert_eq!((read.location, read.resolution), (location, resolution), "{text}");
    }
}

#[test]
fn endpoints_have_addresses_or_with_dns_names() {
    let read = quiet(&with(
        "resolution: DNS, endpoints: [{address: 10.0.0.1, ports: {http: 8080}, weight: 3},
           {address: B.example.com, labels: {version: v1}}]",
    ));
    let [first, second] = read.endpoints.as_slice() else { panic!("{:?}", read.endpoints) };
    assert_eq!(first.address, EntryAddress::Ip("10.0.0.1".parse().unwrap()));
    assert_eq!((first.ports.get("http"), first.weight), (Some(&8080), 3));
    assert_eq!(second.address, EntryAddress::Host("b.example.com".to_owned()));
    assert_eq!(second.labels, BTreeMap::from([("version".to_owned(), "v1".to_owned())]));
}

#[test]
fn a_selector_selects_by_labels_and_without_any_selects_all() {
    assert_eq!(quiet(&with("")).selector, None);
    let selected = quiet(&with("resolution: STATIC, workloadSelector: {labels: {app: db}}"));
    assert_eq!(selected.selector, Some([("app".to_owned(), "db".to_owned())].into()));
    let (all, said) = read(&with("resolution: STATIC, workloadSelector: {}"));
    assert_eq!(all.unwrap().selector, Some(BTreeMap::new()));
    assert!(said.len() == 1 && said[0].starts_with("Warning empty-selector"), "{said:?}");
}

#[test]
fn an_entry_is_for_the_namespaces_that_it_is_exported_to() {
    let only =
        |names: &[&str]| Scope::Namespaces(names.iter().map(|name| (*name).to_owned()).collect());
    for (export, expected) in [
        ("[]", Scope::Everywhere),
        ("['*']", Scope::Everywhere),
        ("['.', bank]", only(&["bank", "shop"])),
        ("['~']", only(&[])),
    ] {
        assert_eq!(quiet(&with(&format!("exportTo: {export}"))).scope, expected, "{export}");
    }
}

#[test]
fn names_of_the_servers_certificate_are_kept() {
    let read = quiet(&with("subjectAltNames: [b.example.com, 'spiffe://other/x']"));
    let names: Vec<&str> = read.subject_alt_names.iter().map(String::as_str).collect();
    assert_eq!(names, ["b.example.com", "spiffe://other/x"]);
}

#[test]
fn findings_name_the_line_of_the_field() {
    let head = entry("").replace("spec: \n", "spec:\n  hosts: [a]\n");
    for (rest, expected) in [
        (
            "  ports:\n  - {number: 80, name: a}\n  - name: b\n    number: 80\n",
            "Error all.yaml:9: ServiceEntry shop/e: spec.ports[1].number: 80 stands there twice",
        ),
        (
            "  ports: [{number: 80, name: a}]\n  resolution: STATIC\n  endpoints:\n\
             \x20 - address: 10.0.0.1\n    network: far\n",
            "Warning all.yaml:10: ServiceEntry shop/e: spec.endpoints[0].network: is not supported",
        ),
    ] {
        let found = findings(&format!("{head}{rest}"));
        assert!(found.iter().any(|one| one.starts_with(expected)), "{expected:?}: {found:#?}");
    }
}
