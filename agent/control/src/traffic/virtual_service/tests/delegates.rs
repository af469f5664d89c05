//! Rules that end in another object.

use std::time::Duration;

use undermesh_model::traffic::{HttpAction, HttpMatch, PathMatch};

use super::{backend, forwarded, named, object, read};
use crate::fixtures::{documents, findings};

/// An object that others delegate to.
fn delegate(http: &str) -> String {
    named("rest", &format!("{{http: [{http}]}}"))
}

/// The rules of a root with one rule that delegates, and what is said.
fn merged(root: &str, leaf: &str) -> (Vec<undermesh_model::traffic::HttpRule>, Vec<String>) {
    let root = object(&format!("http: [{{delegate: {{name: rest}}, {root}}}]"));
    let (mut sets, said) = read(&[&root, &delegate(leaf)]);
    assert!(sets.len() < 2, "the delegate is a set of its own");
    (sets.pop().map(|set| set.http).unwrap_or_default(), said)
}

#[test]
fn rules_of_the_delegate_take_the_place_of_the_one_that_names_it() {
    let route = |host: &str| format!("route: [{{destination: {{host: {host}}}}}]");
    let root = object(&format!(
        "http: [{{name: first, match: [{{port: 1}}], {}}}, {{delegate: {{name: rest, namespace: shop}}}}, {{name: last, match: [{{port: 2}}], {}}}]",
        route("a"),
        route("d")
    ));
    let rest = delegate(&format!(
        "{{name: b, match: [{{port: 3}}], {}}}, {{name: c, {}}}",
        route("b"),
        route("c")
    ));
    let (sets, _) = read(&[&root, &rest]);
    assert_eq!(sets.len(), 1);
    let hosts: Vec<_> = sets[0].http.iter().map(|rule| forwarded(rule)[0].clone()).collect();
    assert_eq!(hosts, ["a", "b", "c", "d"].map(|host| backend(host, None, None, 100)));
}

#[test]
fn the_delegates_settings_win_and_the_roots_fill_the_gaps() {
    let root = "name: root, timeout: 1s, retries: {attempts: 1}, rewrite: {authority: r},
        headers: {request: {set: {x: root}}}, mirror: {host: m}, corsPolicy: {allowMethods: [GET]},
        fault: {abort: {httpStatus: 500, percentage: {value: 1}}}";
    let route = "route: [{destination: {host: cart}}]";
    let (rules, said) = merged(root, &format!("{{name: leaf, {route}}}"));
    assert_eq!(said, Vec::<String>::new());
    let filled = &rules[0];
    assert_eq!(filled.name, "root-leaf");
    assert_eq!(filled.timeout, Some(Duration::from_secs(1)));
    assert_eq!(filled.retries.as_ref().map(|retries| retries.attempts), Some(1));
    assert_eq!(filled.rewrite.authority.as_deref(), Some("r"));
    assert_eq!(filled.headers.request_set, [("x".to_owned(), "root".to_owned())]);
    assert_eq!(
        (filled.mirrors.len(), filled.cors.is_some(), filled.fault.is_some()),
        (1, true, true)
    );
    let leaf = format!(
        "{{{route}, timeout: 2s, retries: {{attempts: 2}}, rewrite: {{authority: l}},
          headers: {{request: {{set: {{x: leaf}}}}}}}}"
    );
    let own = &merged(root, &leaf).0[0];
    assert_eq!((own.name.as_str(), own.timeout), ("root", Some(Duration::from_secs(2))));
    assert_eq!(own.retries.as_ref().map(|retries| retries.attempts), Some(2));
    assert_eq!(own.rewrite.authority.as_deref(), Some("l"));
    assert_eq!(own.headers.request_set, [("x".to_owned(), "leaf".to_owned())]);
}

#[test]
fn a_response_of_the_root_is_given_before_anything_is_sent_on() {
    for (leaf, answered) in
        [("route: [{destination: {host: a}}]", true), ("redirect: {uri: /}", false)]
    {
        let (rules, said) = merged("directResponse: {status: 503}", &format!("{{{leaf}}}"));
        assert_eq!(said, Vec::<String>::new());
        assert_eq!(matches!(rules[0].action, HttpAction::Direct(_)), answered, "{leaf}");
    }
}

#[test]
fn a_merged_rule_is_for_what_both_match() {
    let path = |path: PathMatch| HttpMatch { path: Some(path), ..HttpMatch::default() };
    let text = |text: &str| text.to_owned();
    for (root, leaf, expected) in [
        ("[]", "[{port: 1}]", vec![HttpMatch { port: Some(1), ..HttpMatch::default() }]),
        ("[{port: 1}]", "[]", vec![HttpMatch { port: Some(1), ..HttpMatch::default() }]),
        (
            "[{name: r, uri: {prefix: /a}, sourceLabels: {a: b}}]",
            "[{name: l, uri: {exact: /a/b}, port: 1, sourceNamespace: web}]",
            vec![HttpMatch {
                name: text("r-l"),
                port: Some(1),
                source_labels: [(text("a"), text("b"))].into(),
                source_namespace: Some(text("web")),
                ..path(PathMatch::Exact(text("/a/b")))
            }],
        ),
        (
            "[{uri: {prefix: /a}}, {uri: {prefix: /b}}]",
            "[{uri: {prefix: /b/c}}, {uri: {prefix: /a/d}}]",
            vec![path(PathMatch::Prefix(text("/b/c"))), path(PathMatch::Prefix(text("/a/d")))],
        ),
        (
            "[{uri: {prefix: /a}}, {uri: {prefix: /b}}]",
            "[{port: 1}]",
            vec![
                HttpMatch { port: Some(1), ..path(PathMatch::Prefix(text("/a"))) },
                HttpMatch { port: Some(1), ..path(PathMatch::Prefix(text("/b"))) },
            ],
        ),
        (
            "[{uri: {regex: 'a+'}}]",
            "[{port: 1}]",
            vec![HttpMatch { port: Some(1), ..path(PathMatch::Regex(text("a+"))) }],
        ),
    ] {
        let leaf = format!("{{match: {leaf}, route: [{{destination: {{host: cart}}}}]}}");
        let (rules, said) = merged(&format!("match: {root}"), &leaf);
        assert_eq!(said, Vec::<String>::new());
        assert_eq!(rules[0].matches, expected, "{root} {leaf}");
    }
    let leaf =
        "{match: [{headers: {a: {exact: bc}, d: {}}}], route: [{destination: {host: cart}}]}";
    let (rules, _) = merged("match: [{headers: {a: {prefix: b}, e: {}}}]", leaf);
    let names: Vec<_> = rules[0].matches[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["e", "a", "d"]);
}

#[test]
fn rules_that_are_outside_of_the_root_are_left_out_and_said() {
    for (root, leaf) in [
        ("{uri: {prefix: /a}}", "{uri: {prefix: /b}}"),
        ("{uri: {prefix: /a/b}}", "{uri: {exact: /a}}"),
        ("{uri: {exact: /a}}", "{uri: {prefix: /a}}"),
        ("{uri: {exact: /a}}", "{uri: {exact: /b}}"),
        ("{uri: {regex: a}}", "{uri: {exact: a}}"),
        ("{uri: {prefix: a}}", "{uri: {regex: a}}"),
        ("{method: {exact: GET}}", "{method: {exact: PUT}}"),
        ("{headers: {a: {exact: b}}}", "{headers: {a: {exact: c}}}"),
        ("{withoutHeaders: {a: {exact: b}}}", "{withoutHeaders: {a: {exact: c}}}"),
        ("{queryParams: {a: {exact: b}}}", "{queryParams: {a: {exact: c}}}"),
        ("{ignoreUriCase: true}", "{port: 1}"),
        ("{port: 1}", "{port: 2}"),
        ("{sourceLabels: {a: b}}", "{sourceLabels: {a: c}}"),
        ("{sourceNamespace: a}", "{sourceNamespace: b}"),
    ] {
        let leaf = format!(
            "{{match: [{leaf}], route: [{{destination: {{host: a}}}}]}}, {{route: [{{destination: {{host: b}}}}]}}"
        );
        let (rules, said) = merged(&format!("match: [{root}]"), &leaf);
        assert_eq!(rules.len(), 1, "{root} {leaf}");
        assert_eq!(forwarded(&rules[0]), [backend("b", None, None, 100)]);
        let expected =
            "Warning conflicting-delegate: delegates to VirtualService shop/rest, rule 0";
        assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    }
}

#[test]
fn delegates_that_cannot_be_used_reject_the_state() {
    let root = object("http: [{delegate: {name: rest}}]");
    let routes = "http: [{route: [{destination: {host: cart}}]}]";
    for (rest, expected) in [
        (named("other", &format!("{{hosts: [b], {routes}}}")), "which does not exist"),
        (named("rest", &format!("{{hosts: [b], {routes}}}")), "which has hosts"),
        (named("rest", &format!("{{exportTo: [web], {routes}}}")), "which is not exported to here"),
        (named("rest", "{http: [{delegate: {name: routes}}]}"), "delegates on"),
        (named("rest", "{http: [{delegate: {name: rest}}]}"), "delegates on"),
    ] {
        let (sets, said) = read(&[&root, &rest]);
        assert!(sets.is_empty());
        let error = |one: &String| one.starts_with("Error ") && one.ends_with(expected);
        assert!(said.iter().any(error), "{expected} is not in {said:?}");
    }
    let (_, said) = read(&[&object("http: [{delegate: {}}]")]);
    assert!(said[0].contains("spec.http[0].delegate: has no name"), "{said:?}");
}

#[test]
fn findings_about_delegates_name_the_line_that_names_them() {
    let text = named("routes", "").replace("spec: \n", "spec:\n");
    let text = format!(
        "{text}  hosts: [cart]\n  http:\n  - timeout: 1s\n    delegate:\n      name: rest\n"
    );
    let expected = "Error all.yaml:9: VirtualService shop/routes: delegates to VirtualService \
                    shop/rest, which does not exist";
    assert!(findings(&text)[0].starts_with(expected), "{:?}", findings(&text));
}

#[test]
fn a_delegate_that_nobody_names_is_reported() {
    let rest = delegate("{route: [{destination: {host: cart}}]}");
    let (sets, said) = read(&[&documents(&[&rest])]);
    assert!(sets.is_empty());
    assert!(said.len() == 1 && said[0].starts_with("Warning unused-delegate: "), "{said:?}");
}

#[test]
fn what_delegates_expand_to_is_bounded() {
    let root = "{delegate: {name: rest}}, ".repeat(500);
    let rest = "{redirect: {uri: /}, match: [{port: 1}]}, ".repeat(500);
    let root = object(&format!("http: [{{match: [{{port: 1}}], redirect: {{uri: /}}}}, {root}]"));
    let (sets, said) = read(&[&root, &delegate(&rest)]);
    assert!(sets.is_empty());
    let errors: Vec<_> = said.iter().filter(|one| one.starts_with("Error ")).collect();
    assert!(errors.len() == 1 && errors[0].starts_with("Error too-many-matches: "), "{errors:?}");
}
