//! What Istio's validation refuses, too.

use super::{named, object, read};

const ROUTE: &str = "route: [{destination: {host: cart}}]";

/// Asserts that the first error about an object begins with this, after its severity and code.
fn refused(text: &str, expected: &str) {
    let (sets, said) = read(&[text]);
    assert!(sets.is_empty(), "accepted: {text}");
    let expected = format!("Error invalid-virtual-service: {expected}");
    assert!(said.iter().any(|one| one.starts_with(&expected)), "{expected} is not in {said:#?}");
}

#[test]
fn rules_that_contradict_themselves_are_refused() {
    for (rule, expected) in [
        ("name: own", ": has no route, redirect, directResponse or delegate"),
        (
            "redirect: {uri: /a}, directResponse: {status: 200}",
            ": has both redirect and directResponse",
        ),
        ("redirect: {uri: /a}, rewrite: {uri: /b}", ": has both redirect and rewrite"),
        ("redirect: {uri: /a}, fault: {abort: {httpStatus: 500}}", ": has both redirect and fault"),
        (
            "directResponse: {status: 200}, rewrite: {uri: /b}",
            ": has both directResponse and rewrite",
        ),
        ("directResponse: {status: 200}, fault: {}", ": has both directResponse and fault"),
        ("redirect: {}", ".redirect: says nothing"),
        ("redirect: {port: 80, derivePort: FROM_REQUEST_PORT}", ".redirect: has both port"),
        ("redirect: {port: 0}", ".redirect.port: is 0"),
        ("redirect: {scheme: ftp}", ".redirect.scheme: \"ftp\""),
        ("redirect: {uri: /a, redirectCode: 200}", ".redirect.redirectCode: 200"),
        ("redirect: {uri: /a, redirectCode: 304}", ".redirect.redirectCode: 304"),
        ("directResponse: {}", ".directResponse.status: 0 is no status"),
        ("directResponse: {status: 199}", ".directResponse.status: 199"),
        ("directResponse: {status: 600}", ".directResponse.status: 600"),
        (
            "directResponse: {status: 200, body: {string: a, bytes: YQ==}}",
            ".directResponse.body: has both",
        ),
        (
            "redirect: {uri: /a}, route: [{destination: {host: cart}}]",
            ": has both redirect and route",
        ),
        (
            "directResponse: {status: 200}, route: [{destination: {host: a}}]",
            ": has both directResponse and route",
        ),
        ("route: [{weight: 1}]", ".route[0].destination: is missing"),
        ("route: [{destination: {}}]", ".route[0].destination.host: is missing"),
        ("route: [{destination: {host: '*'}}]", ".route[0].destination.host: \"*\""),
        ("route: [{destination: {host: 'a b'}}]", ".route[0].destination.host: \"a b\""),
        ("route: [{destination: {host: a, subset: A_b}}]", ".route[0].destination.subset"),
        (
            "route: [{destination: {host: a, port: {number: 0}}}]",
            ".route[0].destination.port.number",
        ),
        (
            "route: [{destination: {host: a}}, {destination: {host: b}}]",
            ".route: no destination has a weight",
        ),
    ] {
        refused(&object(&format!("http: [{{{rule}}}]")), &format!("spec.http[0]{expected}"));
    }
    let large =
        format!("directResponse: {{status: 200, body: {{string: {}}}}}", "a".repeat(1 << 21));
    refused(
        &object(&format!("http: [{{{large}}}]")),
        "spec.http[0].directResponse.body: is longer",
    );
}

#[test]
fn fields_of_a_rule_with_values_that_nobody_can_use_are_refused() {
    for (field, expected) in [
        ("match: [{uri: {regex: 'a('}}]", "match[0].uri.regex: the pattern is no regular"),
        ("match: [{uri: {regex: ''}}]", "match[0].uri.regex: the pattern is empty"),
        ("match: [{uri: {exact: a, prefix: b}}]", "match[0].uri: has more than one"),
        ("match: [{method: {prefix: ''}}]", "match[0].method.prefix: is empty"),
        ("match: [{headers: {x: null}}]", "match[0].headers.x: is null"),
        ("match: [{headers: {'a b': {}}}]", "match[0].headers[\"a b\"]"),
        ("match: [{headers: {x: {regex: '*'}}}]", "match[0].headers.x.regex"),
        ("match: [{sourceNamespace: A}]", "match[0].sourceNamespace: \"A\""),
        ("match: [{sourceLabels: {a: 'b c'}}]", "match[0].sourceLabels.a: \"b c\""),
        ("match: [{gateways: ['a/']}]", "match[0].gateways[0]: \"a/\""),
        ("rewrite: {}", "rewrite: says nothing"),
        ("rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}", "rewrite: has both"),
        ("rewrite: {uriRegexRewrite: {match: a}}", "rewrite.uriRegexRewrite: lacks"),
        ("rewrite: {uriRegexRewrite: {match: 'a[', rewrite: b}}", "rewrite.uriRegexRewrite.match"),
        (
            "rewrite: {uriRegexRewrite: {match: a, rewrite: '\\1'}}",
            "rewrite.uriRegexRewrite.rewrite: \\1",
        ),
        ("timeout: 0s", "timeout: \"0s\" is no duration"),
        ("timeout: 1.5ms", "timeout: \"1.5ms\""),
        ("timeout: -1s", "timeout: \"-1s\""),
        ("retries: {attempts: 0, retryOn: 5xx}", "retries: has conditions and no attempts"),
        ("retries: {attempts: 1, retryOn: '600'}", "retries.retryOn: \"600\""),
        ("retries: {attempts: 1, retryOn: 'reset,often'}", "retries.retryOn: \"often\""),
        ("retries: {attempts: 1, perTryTimeout: 0s}", "retries.perTryTimeout: \"0s\""),
        ("retries: {attempts: 1, backoff: x}", "retries.backoff: \"x\""),
        ("fault: {}", "fault: says nothing"),
        (
            "fault: {abort: {httpStatus: 600, percentage: {value: 1}}}",
            "fault.abort.httpStatus: 600",
        ),
        ("fault: {abort: {grpcStatus: BAD}}", "fault.abort.grpcStatus: \"BAD\""),
        ("fault: {abort: {http2Error: a}}", "fault.abort.http2Error: is not supported"),
        ("fault: {abort: {httpStatus: 500, grpcStatus: OK}}", "fault.abort: has both"),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}",
            "fault.delay.percentage: 101",
        ),
        ("fault: {delay: {fixedDelay: 1s, percent: -1}}", "fault.delay.percent: -1"),
        ("fault: {delay: {exponentialDelay: 1s}}", "fault.delay.exponentialDelay"),
        ("mirror: {host: a}, mirrorPercentage: {value: 200}", "mirrorPercentage: 200"),
        ("mirror: {host: a}, mirrors: [{destination: {host: b}}]", "http[0]: has both mirror and"),
        ("mirrors: [{}]", "mirrors[0].destination: is missing"),
        (
            "mirrors: [{destination: {host: b}, percentage: {value: -1}}]",
            "mirrors[0].percentage: -1",
        ),
        ("corsPolicy: {allowOrigins: [{}]}", "corsPolicy.allowOrigins[0]: says nothing"),
        ("corsPolicy: {allowOrigins: [{regex: '('}]}", "corsPolicy.allowOrigins[0].regex"),
        ("corsPolicy: {allowMethods: [FETCH]}", "corsPolicy.allowMethods[0]: \"FETCH\""),
        ("corsPolicy: {allowHeaders: ['a b']}", "corsPolicy.allowHeaders[0]: \"a b\""),
        ("corsPolicy: {exposeHeaders: ['']}", "corsPolicy.exposeHeaders[0]: \"\""),
        ("corsPolicy: {maxAge: 1500ms}", "corsPolicy.maxAge: has parts of a second"),
        ("headers: {request: {set: {':path': /}}}", "headers.request.set[\":path\"]"),
        ("headers: {request: {remove: [host]}}", "headers.request.remove[0]: \"host\""),
        ("headers: {response: {add: {host: a}}}", "headers.response.add.host"),
        ("headers: {request: {set: {x: \"a\\nb\"}}}", "headers.request.set.x: its value"),
        ("headers: {request: {set: {host: a}, add: {Host: b}}}", "http[0]: the authority"),
        ("headers: {request: {set: {host: a}}}, rewrite: {authority: b}", "http[0]: the authority"),
        ("delegate: {name: a}", "http[0]: has delegate beside route"),
    ] {
        let expected = match expected.strip_prefix("http[0]") {
            Some(rest) => format!("spec.http[0]{rest}"),
            None => format!("spec.http[0].{expected}"),
        };
        refused(&object(&format!("http: [{{{ROUTE}, {field}}}]")), &expected);
    }
}

#[test]
fn objects_that_nobody_can_use_are_refused() {
    for (spec, expected) in [
        ("{hosts: [a]}".to_owned(), "spec: has no rules"),
        (format!("{{hosts: ['*'], http: [{{{ROUTE}}}]}}"), "spec.hosts[0]: *"),
        (format!("{{hosts: ['a b'], http: [{{{ROUTE}}}]}}"), "spec.hosts[0]: \"a b\""),
        (format!("{{hosts: [a, a.shop.svc.cluster.local], http: [{{{ROUTE}}}]}}"), "spec.hosts[1]"),
        (format!("{{hosts: ['*.b.c', '*.c'], http: [{{{ROUTE}}}]}}"), "spec.hosts[1]"),
        (format!("{{hosts: [a], exportTo: [A], http: [{{{ROUTE}}}]}}"), "spec.exportTo[0]"),
        (format!("{{hosts: [a], exportTo: [b, '*'], http: [{{{ROUTE}}}]}}"), "spec.exportTo[1]"),
        (format!("{{hosts: [a], gateways: [''], http: [{{{ROUTE}}}]}}"), "spec.gateways[0]"),
        (format!("{{gateways: [mesh], http: [{{{ROUTE}}}]}}"), "spec.gateways: an object without"),
        (format!("{{tcp: [{{{ROUTE}}}]}}"), "spec.tcp: an object without hosts"),
        (format!("{{hosts: [a], tls: [{{{ROUTE}}}]}}"), "spec.tls[0]: has no match"),
        (
            format!("{{hosts: [a], tls: [{{match: [{{port: 1}}], {ROUTE}}}]}}"),
            "spec.tls[0].match[0].sniHosts: is missing",
        ),
        (
            format!("{{hosts: [a], tls: [{{match: [{{sniHosts: [b]}}], {ROUTE}}}]}}"),
            "spec.tls[0].match[0].sniHosts[0]: \"b\" is none",
        ),
        (
            format!("{{hosts: [a], tls: [{{match: [{{sniHosts: ['a b']}}], {ROUTE}}}]}}"),
            "spec.tls[0].match[0].sniHosts[0]: \"a b\"",
        ),
        ("{hosts: [a], tls: [{match: [{sniHosts: [a]}]}]}".to_owned(), "spec.tls[0]: has no route"),
        ("{hosts: [a], tcp: [{match: [{port: 1}]}]}".to_owned(), "spec.tcp[0]: has no route"),
        (
            format!("{{hosts: [a], tcp: [{{match: [{{destinationSubnets: [x]}}], {ROUTE}}}]}}"),
            "spec.tcp[0].match[0].destinationSubnets[0]",
        ),
        (
            format!("{{hosts: [a], tcp: [{{match: [{{sourceNamespace: A}}], {ROUTE}}}]}}"),
            "spec.tcp[0].match[0].sourceNamespace",
        ),
    ] {
        refused(&named("routes", &spec), expected);
    }
}

#[test]
fn wrong_types_are_refused_where_they_stand() {
    for (rule, expected) in [
        ("match: [{port: 70000}]", "spec.http[0].match[0].port: "),
        ("match: [{uri: {suffix: a}}]", "spec.http[0].match[0].uri: unknown field"),
        ("redirect: {derivePort: SOME}", "spec.http[0].redirect.derivePort: unknown variant"),
        (
            "directResponse: {status: 200, body: {bytes: '%'}}",
            "spec.http[0].directResponse.body.bytes: ",
        ),
        ("route: [{weight: -1}]", "spec.http[0].route[0].weight: "),
    ] {
        let (sets, said) = read(&[&object(&format!("http: [{{{rule}}}]"))]);
        assert!(sets.is_empty());
        assert!(said.len() == 1 && said[0].contains(expected), "{expected} is not in {said:?}");
    }
}

#[test]
fn a_precedence_that_is_no_integer_is_refused() {
    let text = object(&format!("http: [{{{ROUTE}}}]")).replace(
        "namespace: shop}",
        "namespace: shop, annotations: {undermesh.io/precedence: high}}",
    );
    let (sets, said) = read(&[&text]);
    assert!(sets.is_empty() && said[0].starts_with("Error invalid-precedence: "), "{said:?}");
}
