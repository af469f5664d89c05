//! What is done with a request.

use undermesh_model::traffic::{
    DirectResponse, HeaderOps, HttpAction, PathRewrite, Redirect, RedirectPath, RedirectPort,
    Rewrite,
};

use super::{backend, forwarded, object, read, rule, set};

/// The action of the only rule.
fn action(written: &str) -> HttpAction {
    set(&object(&format!("http: [{{{written}}}]"))).http.remove(0).action
}

#[test]
fn destinations_have_full_names_subsets_ports_and_weights() {
    for (route, expected) in [
        // The only destination gets everything, whatever its weight.
        ("[{destination: {host: cart}}]", vec![backend("cart", None, None, 100)]),
        ("[{destination: {host: cart}, weight: 0}]", vec![backend("cart", None, None, 100)]),
        (
            "[{destination: {host: cart, subset: v1, port: {number: 80}}, weight: 75},
              {destination: {host: cart.shop.svc.cluster.local, subset: v2}, weight: 25},
              {destination: {host: old}}]",
            vec![
                backend("cart", Some(80), Some("v1"), 75),
                backend("cart", None, Some("v2"), 25),
                backend("old", None, None, 0),
            ],
        ),
    ] {
        let HttpAction::Forward(backends) = action(&format!("route: {route}")) else {
            panic!("{route} is not sent on");
        };
        assert_eq!(backends, expected, "{route}");
    }
}

#[test]
fn headers_are_changed_for_the_rule_and_for_a_destination() {
    let pairs = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let operations = "{request: {set: {X-Set: '1'}, add: {x-add: '50%%'}, remove: [X-Gone]},
        response: {set: {x-back: b}, add: {x-more: m}, remove: [server]}}";
    let expected = HeaderOps {
        request_remove: vec!["x-gone".to_owned()],
        request_set: pairs("x-set", "1"),
        request_add: pairs("x-add", "50%"),
        response_remove: vec!["server".to_owned()],
        response_set: pairs("x-back", "b"),
        response_add: pairs("x-more", "m"),
    };
    assert_eq!(rule(&format!("headers: {operations}")).headers, expected);
    let text =
        format!("http: [{{route: [{{destination: {{host: cart}}, headers: {operations}}}]}}]");
    let read_set = set(&object(&text));
    assert_eq!(forwarded(&read_set.http[0])[0].headers, expected);
    assert_eq!(read_set.http[0].headers, HeaderOps::default());
    for operation in ["set", "add"] {
        let host =
            rule(&format!("headers: {{request: {{{operation}: {{':authority': a.example}}}}}}"));
        assert_eq!(host.headers.request_set, pairs("host", "a.example"));
        assert!(host.headers.request_add.is_empty());
    }
}

#[test]
fn values_that_envoy_would_fill_in_are_left_out_and_said() {
    let text = "http: [{route: [{destination: {host: cart}}],
        headers: {request: {set: {x-a: '%REQ(:path)%', x-b: b}}}}]";
    let (sets, said) = read(&[&object(text)]);
    assert_eq!(sets[0].http[0].headers.request_set, [("x-b".to_owned(), "b".to_owned())]);
    assert!(said.len() == 1 && said[0].starts_with("Warning not-supported: "), "{said:?}");
}

#[test]
fn redirects_say_only_what_they_change() {
    let moved = Redirect { code: 301, ..Redirect::default() };
    let text = |text: &str| Some(text.to_owned());
    for (written, expected) in [
        (
            "{uri: '/new?a=b'}",
            Redirect { path: Some(RedirectPath::Full("/new?a=b".to_owned())), ..moved.clone() },
        ),
        (
            "{authority: a.example, redirectCode: 308}",
            Redirect { code: 308, authority: text("a.example"), ..moved.clone() },
        ),
        ("{scheme: https}", Redirect { scheme: text("https"), ..moved.clone() }),
        ("{port: 8443}", Redirect { port: Some(RedirectPort::Number(8443)), ..moved.clone() }),
        (
            "{derivePort: FROM_PROTOCOL_DEFAULT}",
            Redirect { port: Some(RedirectPort::OfScheme), ..moved.clone() },
        ),
        (
            "{derivePort: FROM_REQUEST_PORT}",
            Redirect { port: Some(RedirectPort::OfRequest), ..moved.clone() },
        ),
    ] {
        assert_eq!(action(&format!("redirect: {written}")), HttpAction::Redirect(expected));
    }
}

#[test]
fn direct_responses_have_a_status_and_a_body_of_text_or_bytes() {
    for (written, status, body) in [
        ("{status: 503}", 503, &b""[..]),
        ("{status: 200, body: {string: hello}}", 200, b"hello"),
        ("{status: 404, body: {bytes: AP8=}}", 404, &[0, 255]),
    ] {
        let expected = HttpAction::Direct(DirectResponse { status, body: body.to_vec() });
        assert_eq!(action(&format!("directResponse: {written}")), expected, "{written}");
    }
    let large = format!("{{status: 200, body: {{string: {}}}}}", "a".repeat(200 << 10));
    let (sets, said) = read(&[&object(&format!("http: [{{directResponse: {large}}}]"))]);
    assert_eq!(sets.len(), 1);
    assert!(said.len() == 1 && said[0].starts_with("Warning large-body: "), "{said:?}");
}

#[test]
fn rewrites_are_about_the_match_a_pattern_or_the_authority() {
    let path = |path| Rewrite { path: Some(path), authority: None };
    for (written, expected) in [
        ("{uri: /b}", path(PathRewrite::Matched("/b".to_owned()))),
        (
            r"{uriRegexRewrite: {match: '^/a/(\d+)', rewrite: '/b/\1\\'}}",
            path(PathRewrite::Regex {
                pattern: r"^/a/(\d+)".to_owned(),
                replacement: r"/b/\1\\".to_owned(),
            }),
        ),
        ("{authority: b.example}", Rewrite { path: None, authority: Some("b.example".to_owned()) }),
    ] {
        assert_eq!(rule(&format!("rewrite: {written}")).rewrite, expected, "{written}");
    }
}
