//! What is valid and not done here, or has no effect, is said.

use super::{entry, read, with};

fn is_said(text: &str, expected: &str) {
    let (read, said) = read(text);
    assert!(read.is_some(), "{said:?}");
    let expected = format!("Warning {expected}");
    assert!(said.len() == 1 && said[0].starts_with(&expected), "{expected:?}: {said:#?}");
}

#[test]
fn what_is_not_supported_is_said() {
    for (fields, expected) in [
        (
            "resolution: STATIC, endpoints: [{address: 10.0.0.1, network: far}]",
            "unsupported-field: spec.endpoints[0].network: ",
        ),
        (
            "resolution: STATIC, endpoints: [{network: far}]",
            "unsupported-field: spec.endpoints[0].network: ",
        ),
        (
            "resolution: STATIC, endpoints: [{address: 'unix:///run/a'}]",
            "unsupported-field: spec.endpoints[0].address: ",
        ),
    ] {
        is_said(&with(fields), expected);
    }
    let moved = with("").replace("number: 80", "number: 80, targetPort: 8080");
    is_said(&moved, "unsupported-field: spec.ports[0].targetPort: ");
}

#[test]
fn ports_for_datagrams_are_left_out_and_said() {
    let text = with("").replace("protocol: HTTP", "protocol: UDP");
    is_said(&text, "unsupported-protocol: spec.ports[0].protocol: ");
    assert_eq!(read(&text).0.unwrap().ports, []);
}

#[test]
fn what_has_no_effect_is_said() {
    for (text, expected) in [
        (entry("{hosts: [a]}"), "no-effect: spec.ports: "),
        (with("resolution: STATIC"), "no-endpoints: spec.endpoints: "),
        (with("workloadSelector: {labels: {a: b}}"), "no-effect: spec.workloadSelector: "),
        (
            with("").replace("a.example.com", "'*-a.example.com'"),
            "partial-wildcard: spec.hosts[0]: ",
        ),
    ] {
        is_said(&text, expected);
    }
}

#[test]
fn fields_that_nobody_knows_are_said_at_every_depth() {
    for (fields, place) in [
        ("host: a", "spec"),
        (
            "resolution: STATIC, workloadSelector: {labels: {a: b}, matchLabels: {}}",
            "spec.workloadSelector",
        ),
        ("resolution: STATIC, endpoints: [{address: 10.0.0.1, port: 1}]", "spec.endpoints.[]"),
    ] {
        let (read, said) = read(&with(fields));
        assert!(read.is_some(), "{said:?}");
        assert!(said.len() == 1 && said[0].starts_with("Warning unknown-field"), "{said:?}");
        assert!(said[0].ends_with(&format!("of {place} is not known")), "{said:?}");
    }
}
