//! What the API's own validation refuses rejects the state, at the line of the field.

use super::{read, route, rules};
use crate::fixtures::{documents, findings};

/// Texts that are refused with an error that begins with the place.
fn refused(cases: impl IntoIterator<Item = (String, &'static str)>) {
    for (text, place) in cases {
        let (_, said) = read(&text);
        let found = said.iter().any(|one| {
            one.starts_with(&format!("Error invalid-route: {place}: "))
                || one.starts_with(&format!("Error malformed-manifest: {place}: "))
        });
        assert!(found, "{place}: {said:#?}\n{text}");
    }
}

fn in_match(text: &str) -> String {
    rules(&format!("[{{matches: [{text}]}}]"))
}

fn in_filters(text: &str) -> String {
    rules(&format!("[{{filters: [{text}]}}]"))
}

#[test]
fn matches_that_no_request_could_have() {
    let path = "spec.rules[0].matches[0].path.value";
    let exact = |value: &str| in_match(&format!("{{path: {{type: Exact, value: '{value}'}}}}"));
    refused([
        (in_match("{path: {value: a}}"), path),
        (in_match("{path: {value: ''}}"), path),
        (exact("/a//b"), path),
        (exact("/./a"), path),
        (exact("/../a"), path),
        (exact("/a/.."), path),
        (exact("/a/."), path),
        (exact("/a%2fb"), path),
        (exact("/a%2Fb"), path),
        (exact("/a#b"), path),
        (exact("/a?b"), path),
        (exact("/a%2"), path),
        (exact("/a b"), path),
        (exact(&format!("/{}", "a".repeat(1024))), path),
        (in_match("{path: {type: RegularExpression, value: 'a('}}"), path),
        (in_match("{path: {type: Glob, value: /a}}"), "spec.rules[0].matches[0].path.type"),
        (in_match("{method: get}"), "spec.rules[0].matches[0].method"),
        (in_match("{method: FETCH}"), "spec.rules[0].matches[0].method"),
    ]);
    let header = |text: &str| in_match(&format!("{{headers: [{text}]}}"));
    let query = |text: &str| in_match(&format!("{{queryParams: [{text}]}}"));
    refused([
        (header("{name: ':path', value: a}"), "spec.rules[0].matches[0].headers[0].name"),
        (header("{name: '', value: a}"), "spec.rules[0].matches[0].headers[0].name"),
        (header("{name: a, value: ''}"), "spec.rules[0].matches[0].headers[0].value"),
        (header("{name: a, value: \"b\\nc\"}"), "spec.rules[0].matches[0].headers[0].value"),
        (header("{name: a, value: caf\u{e9}}"), "spec.rules[0].matches[0].headers[0].value"),
        (header("{name: a}"), "spec.rules[0].matches[0].headers[0]"),
        (
            header("{name: a, value: b}, {name: a, value: c}"),
            "spec.rules[0].matches[0].headers[1].name",
        ),
        (
            header("{name: a, value: '(', type: RegularExpression}"),
            "spec.rules[0].matches[0].headers[0].value",
        ),
        (header("{name: a, value: b, type: Prefix}"), "spec.rules[0].matches[0].headers[0].type"),
        (query("{name: 'a b', value: b}"), "spec.rules[0].matches[0].queryParams[0].name"),
        (query("{name: a, value: ''}"), "spec.rules[0].matches[0].queryParams[0].value"),
        (
            query("{name: a, value: b}, {name: a, value: c}"),
            "spec.rules[0].matches[0].queryParams[1].name",
        ),
    ]);
}

#[test]
fn filters_that_contradict_one_another_or_themselves() {
    let redirect = "{type: RequestRedirect, requestRedirect: {}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a}}";
    let cors = "{type: CORS, cors: {}}";
    let modifier = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}";
    refused([
        (in_filters(&format!("{redirect}, {rewrite}")), "spec.rules[0].filters[1]"),
        (in_filters(&format!("{rewrite}, {redirect}")), "spec.rules[0].filters[1]"),
        (in_filters(&format!("{redirect}, {redirect}")), "spec.rules[0].filters[1]"),
        (in_filters(&format!("{cors}, {cors}")), "spec.rules[0].filters[1]"),
        (in_filters(&format!("{modifier}, {modifier}")), "spec.rules[0].filters[1]"),
        (in_filters("{type: CORS}"), "spec.rules[0].filters[0].type"),
        (
            in_filters("{type: CORS, cors: {}, urlRewrite: {}}"),
            "spec.rules[0].filters[0].urlRewrite",
        ),
        (in_filters("{type: Compress}"), "spec.rules[0].filters[0].type"),
        (in_filters("{cors: {}}"), "spec.rules[0].filters[0]"),
        (
            rules(&format!("[{{filters: [{redirect}], backendRefs: [{{name: cart, port: 80}}]}}]")),
            "spec.rules[0].backendRefs",
        ),
        (
            rules(&format!(
                "[{{backendRefs: [{{name: cart, port: 80, filters: [{redirect}, {rewrite}]}}]}}]"
            )),
            "spec.rules[0].backendRefs[0].filters[1]",
        ),
        (
            in_filters(
                "{type: RequestHeaderModifier, requestHeaderModifier:
                   {set: [{name: a, value: b}], remove: [A]}}",
            ),
            "spec.rules[0].filters[0].requestHeaderModifier",
        ),
        (
            in_filters(
                "{type: ResponseHeaderModifier, responseHeaderModifier:
                   {add: [{name: a, value: b}, {name: a, value: c}]}}",
            ),
            "spec.rules[0].filters[0].responseHeaderModifier.add[1].name",
        ),
    ]);
}

#[test]
fn prefixes_are_replaced_only_where_there_is_one() {
    for (kind, field) in [("URLRewrite", "urlRewrite"), ("RequestRedirect", "requestRedirect")] {
        let filter = format!(
            "{{type: {kind}, {field}: \
               {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /b}}}}}}"
        );
        for matches in [
            "[{path: {type: Exact, value: /a}}]",
            "[{path: {type: RegularExpression, value: /a}}]",
            "[{path: {value: /a}}, {path: {value: /b}}]",
        ] {
            let text = rules(&format!("[{{matches: {matches}, filters: [{filter}]}}]"));
            let (_, said) = read(&text);
            let place =
                format!("Error invalid-route: spec.rules[0].filters[0].{field}.path.type: ");
            assert!(said.len() == 1 && said[0].starts_with(&place), "{said:?}");
            let text = rules(&format!(
                "[{{matches: {matches}, backendRefs: [{{name: cart, port: 80, filters: [{filter}]}}]}}]"
            ));
            let place = "Error invalid-route: spec.rules[0].backendRefs[0].filters[0]";
            assert!(read(&text).1.iter().any(|one| one.starts_with(place)));
        }
        let (cluster, _) = read(&in_filters(&filter));
        assert_eq!(cluster.routes.len(), 1);
    }
}

#[test]
fn values_of_filters_that_are_out_of_range() {
    let redirect =
        |text: &str| in_filters(&format!("{{type: RequestRedirect, requestRedirect: {text}}}"));
    let mirror = |text: &str| {
        in_filters(&format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: v2, port: 80}}, {text}}}}}"
        ))
    };
    let cors = |text: &str| in_filters(&format!("{{type: CORS, cors: {text}}}"));
    refused([
        (redirect("{statusCode: 304}"), "spec.rules[0].filters[0].requestRedirect.statusCode"),
        (redirect("{scheme: ftp}"), "spec.rules[0].filters[0].requestRedirect.scheme"),
        (redirect("{port: 0}"), "spec.rules[0].filters[0].requestRedirect.port"),
        (redirect("{hostname: '*.a'}"), "spec.rules[0].filters[0].requestRedirect.hostname"),
        (redirect("{hostname: 10.0.0.1}"), "spec.rules[0].filters[0].requestRedirect.hostname"),
        (
            redirect("{path: {type: ReplaceFullPath, replacePrefixMatch: /}}"),
            "spec.rules[0].filters[0].requestRedirect.path.type",
        ),
        (
            redirect("{path: {type: ReplaceFullPath, replaceFullPath: /, replacePrefixMatch: /}}"),
            "spec.rules[0].filters[0].requestRedirect.path.replacePrefixMatch",
        ),
        (mirror("percent: 101"), "spec.rules[0].filters[0].requestMirror.percent"),
        (mirror("percent: -1"), "spec.rules[0].filters[0].requestMirror.percent"),
        (
            mirror("percent: 1, fraction: {numerator: 1}"),
            "spec.rules[0].filters[0].requestMirror.fraction",
        ),
        (mirror("fraction: {numerator: 101}"), "spec.rules[0].filters[0].requestMirror.fraction"),
        (
            mirror("fraction: {numerator: 0, denominator: 0}"),
            "spec.rules[0].filters[0].requestMirror.fraction",
        ),
        (cors("{allowOrigins: [a.example]}"), "spec.rules[0].filters[0].cors.allowOrigins[0]"),
        (cors("{allowOrigins: ['*', 'http://a']}"), "spec.rules[0].filters[0].cors.allowOrigins"),
        (cors("{allowMethods: [get]}"), "spec.rules[0].filters[0].cors.allowMethods[0]"),
        (cors("{allowMethods: [GET, GET]}"), "spec.rules[0].filters[0].cors.allowMethods"),
        (cors("{allowHeaders: ['a b']}"), "spec.rules[0].filters[0].cors.allowHeaders[0]"),
        (cors("{maxAge: 0}"), "spec.rules[0].filters[0].cors.maxAge"),
    ]);
}

#[test]
fn rules_backends_and_time_outs_that_are_out_of_range() {
    let backend = |text: &str| rules(&format!("[{{backendRefs: [{{{text}}}]}}]"));
    let repeated = |item: &str, count| vec![item; count].join(", ");
    refused([
        (rules("[]"), "spec.rules"),
        (rules(&format!("[{}]", repeated("{}", 17))), "spec.rules"),
        (rules(&format!("[{{matches: [{}]}}]", repeated("{}", 65))), "spec.rules[0].matches"),
        (
            rules(&format!("[{}]", repeated(&format!("{{matches: [{}]}}", repeated("{}", 43)), 3))),
            "spec.rules",
        ),
        (rules("[{name: a}, {name: a}]"), "spec.rules[1].name"),
        (rules("[{name: A}]"), "spec.rules[0].name"),
        (backend("name: cart"), "spec.rules[0].backendRefs[0].port"),
        (backend("name: cart, port: 0"), "spec.rules[0].backendRefs[0].port"),
        (backend("name: cart, port: 65536"), "spec.rules[0].backendRefs[0].port"),
        (backend("port: 80"), "spec.rules[0].backendRefs[0]"),
        (backend("name: cart, port: 80, weight: -1"), "spec.rules[0].backendRefs[0].weight"),
        (backend("name: cart, port: 80, weight: 1000001"), "spec.rules[0].backendRefs[0].weight"),
        (backend("name: cart, port: 80, namespace: A"), "spec.rules[0].backendRefs[0].namespace"),
        (
            rules(&format!("[{{backendRefs: [{}]}}]", repeated("{name: cart, port: 80}", 17))),
            "spec.rules[0].backendRefs",
        ),
        (rules("[{timeouts: {request: 5}}]"), "spec.rules[0].timeouts.request"),
        (rules("[{timeouts: {request: 1.5s}}]"), "spec.rules[0].timeouts.request"),
        (
            rules("[{timeouts: {request: 1s, backendRequest: 2s}}]"),
            "spec.rules[0].timeouts.backendRequest",
        ),
        (rules("[{retry: {codes: [399]}}]"), "spec.rules[0].retry.codes[0]"),
        (rules("[{retry: {codes: [600]}}]"), "spec.rules[0].retry.codes[0]"),
        (rules("[{retry: {codes: [500, 500]}}]"), "spec.rules[0].retry.codes"),
        (rules("[{retry: {attempts: 0}}]"), "spec.rules[0].retry.attempts"),
        (rules("[{retry: {backoff: fast}}]"), "spec.rules[0].retry.backoff"),
        (route("HTTPRoute", "  hostnames: ['a.*.b']\n"), "spec.hostnames[0]"),
        (route("HTTPRoute", "  hostnames: [10.0.0.1]\n"), "spec.hostnames[0]"),
    ]);
}

#[test]
fn parents_that_are_named_twice() {
    let own = "{group: '', kind: Service, name: cart";
    for parents in [
        format!("{own}}}, {own}}}"),
        format!("{own}, port: 80}}, {own}}}"),
        format!("{own}, port: 80}}, {own}, sectionName: raw}}"),
        format!("{own}, port: 80}}, {own}, port: 80}}"),
    ] {
        let text = rules("[{}]").replace(&format!("{own}}}"), &parents);
        refused([(text, "spec.parentRefs[1]")]);
    }
    let with = |text: &str| rules("[{}]").replace("name: cart", text);
    refused([
        (with("name: cart, port: 0"), "spec.parentRefs[0].port"),
        (with("name: cart, namespace: A_B"), "spec.parentRefs[0].namespace"),
        (with("name: cart, sectionName: A_B"), "spec.parentRefs[0].sectionName"),
        (with("port: 80"), "spec.parentRefs[0]"),
    ]);
}

#[test]
fn grpc_and_connection_routes_with_values_out_of_range() {
    let grpc = |text: &str| route("GRPCRoute", &format!("  rules: [{text}]\n"));
    let method = |text: &str| grpc(&format!("{{matches: [{{method: {text}}}]}}"));
    let tls = |text: &str| route("TLSRoute", text);
    let rules = "  rules: [{backendRefs: [{name: cart, port: 80}]}]\n";
    refused([
        (method("{}"), "spec.rules[0].matches[0].method"),
        (method("{service: '', method: ''}"), "spec.rules[0].matches[0].method"),
        (method("{service: a/b}"), "spec.rules[0].matches[0].method.service"),
        (method("{service: a..b}"), "spec.rules[0].matches[0].method.service"),
        (method("{method: a.b}"), "spec.rules[0].matches[0].method.method"),
        (method("{method: 1a}"), "spec.rules[0].matches[0].method.method"),
        (
            method("{type: RegularExpression, service: '('}"),
            "spec.rules[0].matches[0].method.service",
        ),
        (grpc("{filters: [{type: CORS, cors: {}}]}"), "spec.rules[0].filters[0].type"),
        (grpc("{filters: [{type: URLRewrite, urlRewrite: {}}]}"), "spec.rules[0].filters[0].type"),
        (route("TCPRoute", ""), "spec.rules"),
        (route("TCPRoute", "  rules: [{}]\n"), "spec.rules[0].backendRefs"),
        (tls(&format!("  hostnames: ['*']\n{rules}")), "spec.hostnames[0]"),
        (tls(&format!("  hostnames: [10.0.0.1]\n{rules}")), "spec.hostnames[0]"),
    ]);
}

#[test]
fn grants_without_ends() {
    let grant = |spec: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
             metadata: {{name: g, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let from = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}";
    refused([
        (grant("{from: [], to: [{group: '', kind: Service}]}"), "spec.from"),
        (grant(&format!("{{from: [{from}], to: []}}")), "spec.to"),
        (grant(&format!("{{from: [{from}]}}")), "spec"),
        (
            grant(
                "{from: [{group: '', kind: A, namespace: '*'}], to: [{group: '', kind: Service}]}",
            ),
            "spec.from[0].namespace",
        ),
    ]);
}

#[test]
fn errors_name_the_line_and_the_remedy() {
    let text = route(
        "HTTPRoute",
        "  rules:\n  - matches:\n    - path:\n        type: Exact\n        value: a\n",
    );
    let found = findings(&documents(&[&text, super::SERVICES]));
    let expected = "Error all.yaml:10: HTTPRoute shop/r: spec.rules[0].matches[0].path.value: \
                    does not begin with \"/\"";
    assert!(found.iter().any(|one| one.starts_with(expected)), "{found:#?}");
    assert!(found[0].contains("write the path as clients send it"), "{found:#?}");
}
