//! HTTPRoute and GRPCRoute: what is read.

use std::time::Duration;

use undermesh_model::traffic::{
    BackendRef, Dialect, DirectResponse, HeaderOps, HttpAction, HttpMatch, Millionths, Mirror,
    Parent, PathMatch, PathRewrite, Redirect, RedirectPath, RedirectPort, Rewrite, Scope,
    TextPattern,
};

use super::{backend, host, quiet, read, route, rule, rules, says};
use crate::fixtures::name;

fn path(path: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

fn everything() -> HttpMatch {
    path(PathMatch::Elements("/".to_owned()))
}

#[test]
fn a_route_keeps_its_name_age_precedence_and_parent() {
    let text = rules("[{backendRefs: [{name: cart, port: 80}]}]").replace(
        "{name: r, namespace: shop}",
        "{name: r, namespace: shop, creationTimestamp: '2024-01-01T00:00:01Z',
          annotations: {undermesh.io/precedence: '7'}}",
    );
    for version in ["v1", "v1beta1"] {
        let set = quiet(&text.replace("k8s.io/v1", &format!("k8s.io/{version}")));
        assert_eq!(set.name, name("r"));
        assert_eq!(
            (set.dialect, set.created, set.precedence),
            (Dialect::Gateway, 1_704_067_201, 7)
        );
        assert_eq!(set.scope, Scope::Everywhere);
        assert_eq!(set.parents, [Parent::Service { service: name("cart"), port: None }]);
        assert_eq!((set.http.len(), set.tls.len(), set.tcp.len()), (1, 0, 0));
    }
}

#[test]
fn a_rule_that_says_nothing_matches_everything_and_leads_nowhere() {
    for text in [rules("[{}]"), route("HTTPRoute", ""), rules("[{matches: [{}]}]")] {
        let rule = rule(&text);
        assert_eq!(rule.matches, [everything()]);
        assert_eq!(rule.action, HttpAction::Forward(vec![]));
        assert_eq!((rule.timeout, rule.retries, rule.name.as_str()), (None, None, ""));
    }
}

#[test]
fn paths_are_matched_as_their_type_says() {
    let text = |text: &str| text.to_owned();
    for (written, expected) in [
        ("{value: /a}", PathMatch::Elements(text("/a"))),
        ("{type: PathPrefix, value: /a/b/}", PathMatch::Elements(text("/a/b"))),
        ("{type: PathPrefix, value: /}", PathMatch::Elements(text("/"))),
        ("{type: PathPrefix}", PathMatch::Elements(text("/"))),
        ("{type: Exact, value: /a/}", PathMatch::Exact(text("/a/"))),
        ("{type: Exact, value: '/a%20b'}", PathMatch::Exact(text("/a%20b"))),
        ("{type: RegularExpression, value: '/a//?'}", PathMatch::Regex(text("/a//?"))),
    ] {
        let rule = rule(&rules(&format!("[{{matches: [{{path: {written}}}]}}]")));
        assert_eq!(rule.matches, [path(expected)], "{written}");
    }
}

#[test]
fn methods_headers_and_parameters_are_matched() {
    let rule = rule(&rules(
        "[{name: one, matches: [{method: GET,
            headers: [{name: X-A, value: b}, {name: c, type: RegularExpression, value: d+}],
            queryParams: [{name: Q, value: r}, {name: q, type: RegularExpression, value: s}]},
          {path: {value: /b}}]}]",
    ));
    assert_eq!(rule.name, "one");
    let exact = |text: &str| TextPattern::Exact(text.to_owned());
    let regex = |text: &str| TextPattern::Regex(text.to_owned());
    let first = HttpMatch {
        method: Some(exact("GET")),
        headers: vec![("x-a".to_owned(), exact("b")), ("c".to_owned(), regex("d+"))],
        query: vec![("Q".to_owned(), exact("r")), ("q".to_owned(), regex("s"))],
        ..everything()
    };
    assert_eq!(rule.matches, [first, path(PathMatch::Elements("/b".to_owned()))]);
}

#[test]
fn equivalent_header_names_count_once() {
    let text = rules(
        "[{matches: [{headers: [{name: a, value: b}, {name: A, value: c}]}],
           backendRefs: [{name: cart, port: 80}]}]",
    );
    let cluster = says(&text, "Warning ignored-entry: spec.rules[0].matches[0].headers[1].name");
    let headers = &cluster.routes[0].http[0].matches[0].headers;
    assert_eq!(headers, &[("a".to_owned(), TextPattern::Exact("b".to_owned()))]);
}

#[test]
fn backends_have_weights_and_headers() {
    let rule = rule(&rules(
        "[{backendRefs: [{name: cart, port: 90},
           {name: v2, namespace: shop, group: '', kind: Service, port: 80, weight: 0, filters: [
             {type: RequestHeaderModifier, requestHeaderModifier: {remove: [A]}},
             {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: B, value: C}]}}]}]}]",
    ));
    let HttpAction::Forward(backends) = rule.action else { panic!("{:?}", rule.action) };
    let mut second = backend(host("v2", "shop", 80), 0);
    second.headers.request_remove = vec!["a".to_owned()];
    second.headers.response_set = vec![("b".to_owned(), "C".to_owned())];
    assert_eq!(backends, [backend(host("cart", "shop", 90), 1), second]);
}

#[test]
fn header_modifiers_set_add_and_remove() {
    let rule = rule(&rules(
        "[{filters: [
           {type: RequestHeaderModifier, requestHeaderModifier:
             {set: [{name: A, value: b}], add: [{name: c, value: 'd, e'}], remove: [F]}},
           {type: ResponseHeaderModifier, responseHeaderModifier:
             {set: [{name: g, value: h}], add: [{name: i, value: j}], remove: [k]}}]}]",
    ));
    let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let expected = HeaderOps {
        request_set: pair("a", "b"),
        request_add: pair("c", "d, e"),
        request_remove: vec!["f".to_owned()],
        response_set: pair("g", "h"),
        response_add: pair("i", "j"),
        response_remove: vec!["k".to_owned()],
    };
    assert_eq!(rule.headers, expected);
}

#[test]
fn mirrors_have_shares_and_may_be_several() {
    for (share, expected) in [
        ("", Millionths::ALL),
        (", percent: 0", Millionths(0)),
        (", percent: 42", Millionths(420_000)),
        (", fraction: {numerator: 5}", Millionths(50_000)),
        (", fraction: {numerator: 1, denominator: 1000}", Millionths(1_000)),
        (", fraction: {numerator: 1, denominator: 3}", Millionths(333_333)),
    ] {
        let rule = rule(&rules(&format!(
            "[{{filters: [{{type: RequestMirror, requestMirror: \
               {{backendRef: {{name: v2, port: 80}}{share}}}}},
              {{type: RequestMirror, requestMirror: {{backendRef: {{name: cart, port: 90}}}}}}]}}]"
        )));
        let second = Mirror { to: host("cart", "shop", 90), share: Millionths::ALL };
        let first = Mirror { to: host("v2", "shop", 80), share: expected };
        assert_eq!(rule.mirrors, [first, second], "{share}");
    }
}

#[test]
fn redirects_have_the_defaults_of_the_specification() {
    let of_request =
        Redirect { code: 302, port: Some(RedirectPort::OfRequest), ..Redirect::default() };
    let https = Redirect {
        scheme: Some("https".to_owned()),
        port: Some(RedirectPort::OfScheme),
        ..of_request.clone()
    };
    for (written, expected) in [
        ("{}", of_request.clone()),
        ("{scheme: https}", https.clone()),
        (
            "{scheme: https, port: 8443, statusCode: 308}",
            Redirect { code: 308, port: Some(RedirectPort::Number(8443)), ..https },
        ),
        (
            "{hostname: a.example, path: {type: ReplaceFullPath, replaceFullPath: /b}}",
            Redirect {
                authority: Some("a.example".to_owned()),
                path: Some(RedirectPath::Full("/b".to_owned())),
                ..of_request.clone()
            },
        ),
        (
            "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /b/}}",
            Redirect { path: Some(RedirectPath::Matched("/b".to_owned())), ..of_request },
        ),
    ] {
        let text =
            format!("[{{filters: [{{type: RequestRedirect, requestRedirect: {written}}}]}}]");
        assert_eq!(rule(&rules(&text)).action, HttpAction::Redirect(expected), "{written}");
    }
}

/// What the data path does with a prefix: it takes its place, and nothing at all becomes `/`.
fn replaced(path: &str, prefix: &str, with: &str) -> String {
    let replaced = format!("{with}{}", path.strip_prefix(prefix).unwrap());
    if replaced.is_empty() { "/".to_owned() } else { replaced }
}

#[test]
fn prefixes_are_replaced_as_the_table_of_the_specification_says() {
    for (request, prefix, with, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
    ] {
        let rule = rule(&rules(&format!(
            "[{{matches: [{{path: {{value: {prefix}}}}}], filters: [{{type: URLRewrite, urlRewrite: \
               {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{with}'}}}}}}]}}]"
        )));
        let Some(PathMatch::Elements(matched)) = &rule.matches[0].path else { panic!("{rule:?}") };
        let Some(PathRewrite::Matched(with)) = &rule.rewrite.path else { panic!("{rule:?}") };
        assert_eq!(replaced(request, matched, with), expected, "{request} {prefix} {with}");
    }
}

#[test]
fn hosts_and_full_paths_are_rewritten() {
    let rule = rule(&rules(
        "[{filters: [{type: URLRewrite, urlRewrite: {hostname: a.example,
           path: {type: ReplaceFullPath, replaceFullPath: /b}}}]}]",
    ));
    let path = Some(PathRewrite::Full("/b".to_owned()));
    assert_eq!(rule.rewrite, Rewrite { path, authority: Some("a.example".to_owned()) });
}

#[test]
fn cors_has_the_defaults_of_the_specification() {
    let text = |cors: &str| rules(&format!("[{{filters: [{{type: CORS, cors: {cors}}}]}}]"));
    let cors = rule(&text("{}")).cors.unwrap();
    assert_eq!((cors.max_age, cors.credentials), (Some(Duration::from_secs(5)), false));
    assert!(!cors.forward_unmatched && cors.origins.0.is_empty());
    let cors = rule(&text(
        "{allowOrigins: ['https://a.example'], allowCredentials: true, allowMethods: [GET, PUT],
          allowHeaders: [X-A], exposeHeaders: ['*'], maxAge: 60}",
    ));
    let cors = cors.cors.unwrap();
    assert_eq!(cors.origins.0, [TextPattern::Exact("https://a.example".to_owned())]);
    assert_eq!(cors.methods, ["GET", "PUT"]);
    assert_eq!((cors.headers, cors.expose), (vec!["x-a".to_owned()], vec!["*".to_owned()]));
    assert_eq!((cors.max_age, cors.credentials), (Some(Duration::from_secs(60)), true));
}

#[test]
fn filters_that_are_not_supported_are_answered_with_an_error() {
    let extension = "{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}";
    let auth =
        "{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: a}, grpc: {}}}";
    for (kind, filter) in [("HTTPRoute", extension), ("HTTPRoute", auth), ("GRPCRoute", extension)]
    {
        let backends = "backendRefs: [{name: cart, port: 80}]";
        let text = format!("  rules: [{{filters: [{filter}], {backends}}}]\n");
        let expected = "Warning unsupported-filter: spec.rules[0].filters[0].type";
        let cluster = says(&route(kind, &text), expected);
        let answer = DirectResponse { status: 500, body: vec![] };
        assert_eq!(cluster.routes[0].http[0].action, HttpAction::Direct(answer));
    }
}

#[test]
fn filters_that_a_backend_cannot_have_spoil_its_share_alone() {
    for filter in [
        "{type: ExtensionRef, extensionRef: {group: a.example, kind: B, name: c}}",
        "{type: CORS, cors: {}}",
        "{type: RequestRedirect, requestRedirect: {}}",
        "{type: URLRewrite, urlRewrite: {hostname: a}}",
        "{type: RequestMirror, requestMirror: {backendRef: {name: cart, port: 80}}}",
    ] {
        let text = rules(&format!(
            "[{{backendRefs: [{{name: cart, port: 80, filters: [{filter}]}}, {{name: v2, port: 80}}]}}]"
        ));
        let expected = "Warning unsupported-filter: spec.rules[0].backendRefs[0].filters[0].type";
        let cluster = says(&text, expected);
        let HttpAction::Forward(backends) = &cluster.routes[0].http[0].action else { panic!() };
        assert!(matches!(backends[0].to, BackendRef::Invalid(_)));
        assert_eq!(backends[1].to, host("v2", "shop", 80));
    }
}

#[test]
fn time_outs_are_for_the_request_and_for_every_attempt() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (written, request, attempt) in [
        ("{request: 10s, backendRequest: 2s}", seconds(10), Some(seconds(2))),
        ("{request: 0s, backendRequest: 2s}", None, Some(seconds(2))),
        ("{request: 1m, backendRequest: 0s}", seconds(60), None),
        ("{}", None, None),
    ] {
        let rule = rule(&rules(&format!("[{{timeouts: {written}}}]")));
        assert_eq!(rule.timeout, request, "{written}");
        let retries = rule.retries.map(|retries| {
            assert_eq!(retries.attempts, 0);
            retries.per_try_timeout
        });
        assert_eq!(retries, attempt, "{written}");
    }
}

#[test]
fn retries_are_for_the_codes_and_for_broken_connections() {
    let rule = rule(&rules(
        "[{timeouts: {backendRequest: 1s}, retry: {codes: [500, 503], attempts: 3, backoff: 50ms}},
          {retry: {}}]",
    )
    .replace("{retry: {}}", ""));
    let retries = rule.retries.unwrap();
    assert_eq!((retries.attempts, retries.backoff), (3, Duration::from_millis(50)));
    assert_eq!(retries.per_try_timeout, Some(Duration::from_secs(1)));
    assert_eq!(retries.on.codes, [500, 503]);
    assert!(retries.on.reset && retries.on.connect_failure && retries.on.refused_stream);
    assert!(!retries.on.server_errors && !retries.on.gateway_errors);
    let standard = super::rule(&rules("[{retry: {}}]")).retries.unwrap();
    assert_eq!((standard.attempts, standard.backoff), (2, Duration::from_millis(25)));
}

#[test]
fn sessions_and_host_names_have_no_effect_and_that_is_said() {
    let backends = "backendRefs: [{name: cart, port: 80}]";
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let text = route(kind, &format!("  rules: [{{sessionPersistence: {{}}, {backends}}}]\n"));
        says(&text, "Warning not-enforced: spec.rules[0].sessionPersistence");
        let text = route(kind, &format!("  hostnames: [a.example]\n  rules: [{{{backends}}}]\n"));
        let cluster = says(&text, "Warning ignored-hostnames: spec.hostnames");
        assert!(cluster.routes[0].http[0].matches.iter().all(|one| one.authority.is_none()));
    }
}

#[test]
fn grpc_services_and_methods_are_paths() {
    let text = |text: &str| text.to_owned();
    for (written, expected) in [
        ("{service: a.B, method: C}", Some(PathMatch::Exact(text("/a.B/C")))),
        ("{service: a.B}", Some(PathMatch::Elements(text("/a.B")))),
        ("{service: a.B, method: ''}", Some(PathMatch::Elements(text("/a.B")))),
        ("{method: C}", Some(PathMatch::Regex(text("/[^/]+/C")))),
        (
            "{type: RegularExpression, service: 'a|b'}",
            Some(PathMatch::Regex(text("/(?:a|b)/[^/]+"))),
        ),
        (
            "{type: RegularExpression, service: a, method: b+}",
            Some(PathMatch::Regex(text("/(?:a)/(?:b+)"))),
        ),
        ("null", None),
    ] {
        let text = format!("  rules: [{{matches: [{{method: {written}}}]}}]\n");
        assert_eq!(rule(&route("GRPCRoute", &text)).matches[0].path, expected, "{written}");
    }
    let text = "  rules: [{matches: [{headers: [{name: A, value: b}]}]}]\n";
    let headers = &rule(&route("GRPCRoute", text)).matches[0].headers;
    assert_eq!(headers, &[("a".to_owned(), TextPattern::Exact("b".to_owned()))]);
    assert_eq!(rule(&route("GRPCRoute", "  rules: [{}]\n")).matches, []);
    let cluster = says(&route("GRPCRoute", ""), "Warning route-without-rules: spec: ");
    assert!(cluster.routes[0].http.is_empty());
}

#[test]
fn grpc_rules_have_filters_and_backends() {
    let rule = rule(&route(
        "GRPCRoute",
        "  rules:\n  - filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: a, value: b}]}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}}}
    backendRefs: [{name: cart, port: 80, weight: 3}]\n",
    ));
    assert_eq!(rule.action, HttpAction::Forward(vec![backend(host("cart", "shop", 80), 3)]));
    assert_eq!(rule.headers.request_add, [("a".to_owned(), "b".to_owned())]);
    assert_eq!(rule.mirrors.len(), 1);
}

#[test]
fn fields_that_nobody_knows_are_warnings() {
    for (written, unknown) in [
        ("[{match: []}]", "\"match\" of spec.rules.[]"),
        ("[{matches: [{header: []}]}]", "\"header\" of spec.rules.[].matches.[]"),
        ("[{timeouts: {idle: 5s}}]", "\"idle\" of spec.rules.[].timeouts"),
        (
            "[{filters: [{type: CORS, cors: {allowOrigin: []}}]}]",
            "\"allowOrigin\" of spec.rules.[].filters.[].cors",
        ),
        (
            "[{backendRefs: [{name: cart, port: 80, wieght: 5}]}]",
            "\"wieght\" of spec.rules.[].backendRefs.[]",
        ),
    ] {
        let (cluster, said) = read(&rules(written));
        assert_eq!(cluster.routes.len(), 1);
        assert!(said.len() == 1 && said[0].contains(unknown), "{unknown}: {said:?}");
    }
}
