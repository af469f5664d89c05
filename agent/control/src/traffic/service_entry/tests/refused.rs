//! What Istio's validation refuses is refused, at its field.

use super::{entry, read, with};

fn is_refused(text: &str, field: &str) {
    let (read, said) = read(text);
    assert_eq!(read, None, "accepted: {text}");
    let expected = format!("Error invalid-service-entry: spec.{field}: ");
    assert!(said.iter().any(|one| one.starts_with(&expected)), "{expected:?}: {said:#?}\n{text}");
}

#[test]
fn of_hosts() {
    for (spec, field) in [
        ("{}", "hosts"),
        ("{hosts: []}", "hosts"),
        ("{hosts: ['*']}", "hosts[0]"),
        ("{hosts: [a, '']}", "hosts[1]"),
        ("{hosts: ['a.*.com']}", "hosts[0]"),
        ("{hosts: [10.0.0.1]}", "hosts[0]"),
        ("{hosts: ['*.example.com'], resolution: DNS}", "hosts[0]"),
        ("{hosts: ['*.example.com'], resolution: DNS_ROUND_ROBIN}", "hosts[0]"),
        ("{hosts: [a.example.com], resolution: DYNAMIC_DNS}", "hosts[0]"),
    ] {
        is_refused(&entry(spec), field);
    }
    let many = vec!["a"; 257].join(", ");
    is_refused(&entry(&format!("{{hosts: [{many}]}}")), "hosts");
}

#[test]
fn of_addresses() {
    for (fields, field) in [
        ("addresses: [a]", "addresses[0]"),
        ("addresses: [10.0.0.1, 10.0.0.0/33]", "addresses[1]"),
        ("addresses: [10.0.0.0/8/8]", "addresses[0]"),
        ("resolution: DNS, addresses: [10.0.0.0/8]", "addresses[0]"),
        ("resolution: DNS, addresses: [10.0.0.1/32]", "addresses[0]"),
    ] {
        is_refused(&with(fields), field);
    }
    let spec = "{hosts: ['*.a'], resolution: DYNAMIC_DNS, addresses: [10.0.0.1]}";
    is_refused(&entry(spec), "addresses");
}

#[test]
fn of_ports() {
    for (ports, field) in [
        ("{number: 80}", "ports[0].name"),
        ("{number: 80, name: A}", "ports[0].name"),
        ("{name: a}", "ports[0].number"),
        ("{number: 80, name: a}, {number: 81, name: a}", "ports[1].name"),
        ("{number: 80, name: a}, {number: 80, name: b}", "ports[1].number"),
        ("{number: 80, name: a, protocol: SCTP}", "ports[0].protocol"),
    ] {
        is_refused(&entry(&format!("{{hosts: [a], ports: [{ports}]}}")), field);
    }
    let dynamic = "{hosts: ['*.a'], resolution: DYNAMIC_DNS,
                    ports: [{number: 80, name: a, protocol: TCP}]}";
    is_refused(&entry(dynamic), "ports[0].protocol");
    for number in ["0", "65536", "-1"] {
        let text = with("").replace("number: 80", &format!("number: {number}"));
        let (read, said) = read(&text);
        assert_eq!(read, None, "{text}");
        assert!(said.iter().any(|one| one.contains("spec.ports[0].number")), "{said:?}");
    }
}

#[test]
fn of_many_hosts_that_a_protocol_does_not_tell_apart() {
    let spec = |resolution: &str, protocol: &str| {
        entry(&format!(
            "{{hosts: [a, b], resolution: {resolution}, endpoints: {},
               ports: [{{number: 80, name: a, protocol: {protocol}}}]}}",
            if resolution == "STATIC" { "[{address: 10.0.0.1}]" } else { "[]" }
        ))
    };
    for protocol in ["TCP", "MONGO", "''"] {
        is_refused(&spec("STATIC", protocol), "ports[0].protocol");
        is_refused(&spec("DNS", protocol), "ports[0].protocol");
        assert_eq!(read(&spec("NONE", protocol)).1, Vec::<String>::new());
    }
    assert_eq!(read(&spec("STATIC", "TLS")).1, Vec::<String>::new());
}

#[test]
fn of_endpoints() {
    for (fields, field) in [
        ("endpoints: [{address: 10.0.0.1}]", "endpoints"),
        (
            "resolution: STATIC, endpoints: [{address: 10.0.0.1}], workloadSelector: {labels: {a: b}}",
            "endpoints",
        ),
        ("resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.b}, {address: b.b}]", "endpoints"),
        ("resolution: STATIC, endpoints: [{address: a.b}]", "endpoints[0].address"),
        ("resolution: STATIC, endpoints: [{}]", "endpoints[0].address"),
        ("resolution: DNS, endpoints: [{address: 'a_b'}]", "endpoints[0].address"),
        ("resolution: DNS, endpoints: [{address: '*.b'}]", "endpoints[0].address"),
        ("resolution: DNS, endpoints: [{address: 'unix:///a'}]", "endpoints[0].address"),
        (
            "resolution: STATIC, endpoints: [{address: 10.0.0.1, ports: {other: 1}}]",
            "endpoints[0].ports.other",
        ),
        (
            "resolution: STATIC, endpoints: [{address: 10.0.0.1, labels: {a: 'b c'}}]",
            "endpoints[0].labels.a",
        ),
        ("resolution: STATIC, workloadSelector: {labels: {a: 'b*'}}", "workloadSelector.labels.a"),
    ] {
        is_refused(&with(fields), field);
    }
}

#[test]
fn of_scopes() {
    for (export, field) in [
        ("['~', a]", "exportTo[0]"),
        ("['*', a]", "exportTo[0]"),
        ("[a, a]", "exportTo[1]"),
        ("[shop, '.']", "exportTo[1]"),
        ("[A_]", "exportTo[0]"),
    ] {
        is_refused(&with(&format!("exportTo: {export}")), field);
    }
}
