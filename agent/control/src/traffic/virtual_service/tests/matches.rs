//! Which requests a rule is about.

use undermesh_model::traffic::{HttpMatch, PathMatch, TextPattern};

use super::{object, read, rule, set};

fn exact(text: &str) -> Option<TextPattern> {
    Some(TextPattern::Exact(text.to_owned()))
}

fn pair(name: &str, pattern: TextPattern) -> (String, TextPattern) {
    (name.to_owned(), pattern)
}

#[test]
fn every_condition_of_a_match_is_read() {
    let one = |text: &str| {
        let mut read = rule(&format!("match: [{text}]"));
        assert_eq!(read.matches.len(), 1);
        read.matches.remove(0)
    };
    let path = |path| HttpMatch { path: Some(path), ..HttpMatch::default() };
    let any = HttpMatch::default();
    let text = |text: &str| text.to_owned();
    let prefix = |of: &str| TextPattern::Prefix(text(of));
    let regex = |of: &str| TextPattern::Regex(text(of));
    for (written, expected) in [
        ("{uri: {exact: /a}}", path(PathMatch::Exact(text("/a")))),
        ("{uri: {prefix: /a}}", path(PathMatch::Prefix(text("/a")))),
        ("{uri: {prefix: ''}}", path(PathMatch::Prefix(text("")))),
        ("{uri: {regex: '/a.*'}}", path(PathMatch::Regex(text("/a.*")))),
        ("{uri: {}}", any.clone()),
        ("{ignoreUriCase: true}", HttpMatch { ignore_path_case: true, ..any.clone() }),
        ("{name: own}", HttpMatch { name: text("own"), ..any.clone() }),
        ("{scheme: {exact: https}}", HttpMatch { scheme: exact("https"), ..any.clone() }),
        (
            "{method: {regex: 'GET|PUT'}}",
            HttpMatch { method: Some(regex("GET|PUT")), ..any.clone() },
        ),
        ("{authority: {prefix: a.}}", HttpMatch { authority: Some(prefix("a.")), ..any.clone() }),
        ("{port: 8080}", HttpMatch { port: Some(8080), ..any.clone() }),
        (
            "{sourceLabels: {app: web}}",
            HttpMatch { source_labels: [(text("app"), text("web"))].into(), ..any.clone() },
        ),
        (
            "{sourceNamespace: web}",
            HttpMatch { source_namespace: Some(text("web")), ..any.clone() },
        ),
        ("{gateways: [mesh, other/gw], statPrefix: s}", any.clone()),
    ] {
        assert_eq!(one(written), expected, "{written}");
    }
}

#[test]
fn headers_and_parameters_match_by_value_or_by_presence() {
    let read = rule(
        "match: [{headers: {X-A: {exact: v}, x-b: {}}, withoutHeaders: {x-c: {regex: '*'}, x-d: {prefix: p}, x-e: null},
                  queryParams: {Q: {regex: 'a+'}, r: {}}}]",
    );
    let read = &read.matches[0];
    let present = |name| pair(name, TextPattern::Present);
    // Names of headers disregard case; those of parameters do not.
    let expected = [pair("x-a", TextPattern::Exact("v".to_owned())), present("x-b")];
    assert_eq!(read.headers, expected);
    let d = pair("x-d", TextPattern::Prefix("p".to_owned()));
    assert_eq!(read.without_headers, [present("x-c"), d, present("x-e")]);
    assert_eq!(read.query, [pair("Q", TextPattern::Regex("a+".to_owned())), present("r")]);
}

#[test]
fn only_what_is_for_the_mesh_counts() {
    let route = "route: [{destination: {host: cart}}]";
    let read_set = set(&object(&format!(
        "gateways: [mesh, other/gw], http: [
           {{name: gone, {route}, match: [{{port: 1, gateways: [other/gw]}}]}},
           {{name: half, {route}, match: [{{gateways: [other/gw]}}, {{gateways: [mesh], port: 80}}]}},
           {{name: all, {route}}}],
         tcp: [{{{route}, match: [{{gateways: [other/gw]}}]}}, {{{route}}}],
         tls: [{{{route}, match: [{{sniHosts: [cart], gateways: [other/gw]}}]}}]"
    )));
    let names: Vec<&str> = read_set.http.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["half", "all"]);
    assert_eq!(read_set.http[0].matches, [HttpMatch { port: Some(80), ..HttpMatch::default() }]);
    assert_eq!((read_set.tcp.len(), read_set.tls.len()), (1, 0));
    let gateways = object(&format!("gateways: [other/gw], http: [{{{route}}}]"));
    let (sets, said) = read(&[&gateways]);
    assert!(sets.is_empty());
    assert!(said.len() == 1 && said[0].starts_with("Info not-for-mesh"), "{said:?}");
}

#[test]
fn rules_that_no_request_gets_to_are_reported() {
    let route = "route: [{destination: {host: cart}}]";
    for (rules, expected) in [
        (format!("{{{route}}}, {{{route}, match: [{{port: 80}}]}}"), "spec.http[1]: no request"),
        (
            format!(
                "{{{route}, match: [{{port: 80}}]}}, {{{route}, match: [{{name: own, port: 80}}]}}"
            ),
            "spec.http[1].match[0]: no request",
        ),
    ] {
        let (sets, said) = read(&[&object(&format!("http: [{rules}]"))]);
        assert_eq!(sets[0].http.len(), 2);
        let expected = format!("Warning unreachable-rule: {expected}");
        assert!(said.len() == 1 && said[0].starts_with(&expected), "{said:?}");
    }
}

#[test]
fn a_match_by_claims_is_left_out_and_said() {
    let route = "route: [{destination: {host: cart}}]";
    let (sets, said) = read(&[&object(&format!(
        "http: [{{match: [{{headers: {{'@request.auth.claims.group': {{exact: a}}}}}}, \
         {{uri: {{exact: /a}}}}], {route}}}, \
         {{match: [{{withoutHeaders: {{'@request.auth.claims[x][y]': {{exact: a}}}}}}], {route}}}]"
    ))]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.iter().all(|one| one.contains("not-supported")), "{said:?}");
    let rules = &sets[0].http;
    assert_eq!(rules.len(), 1, "a rule of which nothing is left does not hold for everything");
    assert_eq!(rules[0].matches.len(), 1);
}
