//! What matches, field by field.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use undermesh_model::traffic::{PathMatch, TextPattern};

use super::*;
use crate::traffic::matcher::re2::translate;

fn exact(text: &str) -> TextPattern {
    TextPattern::Exact(text.to_owned())
}

fn regex(text: &str) -> TextPattern {
    TextPattern::Regex(text.to_owned())
}

/// A request and its client, spelt out by what a test changes.
struct Asked {
    method: Method,
    authority: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    headers: HeaderMap,
    namespace: &'static str,
    labels: BTreeMap<String, String>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            method: Method::GET,
            authority: "cart",
            path: "/",
            query: None,
            headers: HeaderMap::new(),
            namespace: "shop",
            labels: BTreeMap::new(),
        }
    }
}

impl Asked {
    fn of(self, from: &HttpMatch, dialect: Dialect) -> bool {
        let request = RequestView {
            method: &self.method,
            scheme: "http",
            authority: self.authority,
            path: self.path,
            query: self.query,
            headers: &self.headers,
        };
        let client = Client { namespace: self.namespace, labels: &self.labels };
        RequestMatch::new(from, dialect).unwrap().matches(&client, &request)
    }
}

fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    all.iter().map(pair).collect()
}

fn path_matches(pattern: PathMatch, ignore_path_case: bool, path: &'static str) -> bool {
    let from = HttpMatch { path: Some(pattern), ignore_path_case, ..HttpMatch::default() };
    Asked { path, ..Asked::default() }.of(&from, Dialect::Istio)
}

#[test]
fn a_path_is_matched_whole_by_its_beginning_or_by_elements() {
    let exact = |text: &str| PathMatch::Exact(text.to_owned());
    let prefix = |text: &str| PathMatch::Prefix(text.to_owned());
    let elements = |text: &str| PathMatch::Elements(text.to_owned());
    for (pattern, folded, path, expected) in [
        (exact("/foo"), false, "/foo", true),
        (exact("/foo"), false, "/foo/", false),
        (exact("/foo"), false, "/FOO", false),
        (exact("/Foo"), true, "/fOO", true),
        (prefix("/foo"), false, "/foobar", true),
        (prefix("/foo/"), false, "/foo", false),
        (prefix("/Foo"), true, "/fOObar", true),
        (prefix("/Foo"), false, "/foobar", false),
        (elements("/foo"), false, "/foo", true),
        (elements("/foo"), false, "/foo/", true),
        (elements("/foo"), false, "/foo/bar", true),
        (elements("/foo"), false, "/foobar", false),
        (elements("/foo/"), false, "/foo", true),
        (elements("/"), false, "/anything", true),
        (PathMatch::Regex("/v[0-9]+".to_owned()), false, "/v12", true),
        (PathMatch::Regex("/v[0-9]+".to_owned()), false, "/v12/x", false),
        (PathMatch::Regex("/v[0-9]+".to_owned()), true, "/V12", false),
    ] {
        assert_eq!(path_matches(pattern.clone(), folded, path), expected, "{pattern:?} {path}");
    }
}

#[test]
fn several_values_of_a_header_are_one_for_istio_and_many_for_the_gateway_api() {
    let asks = |pattern: TextPattern| HttpMatch {
        headers: vec![("x-a".to_owned(), pattern)],
        ..HttpMatch::default()
    };
    let asked = || Asked { headers: headers(&[("x-a", "1"), ("x-a", "2")]), ..Asked::default() };
    assert!(asked().of(&asks(exact("1,2")), Dialect::Istio));
    assert!(!asked().of(&asks(exact("2")), Dialect::Istio));
    assert!(asked().of(&asks(TextPattern::Prefix("1".to_owned())), Dialect::Istio));
    assert!(asked().of(&asks(exact("2")), Dialect::Gateway));
    assert!(!asked().of(&asks(exact("1,2")), Dialect::Gateway));
    assert!(asked().of(&asks(regex("[0-9]")), Dialect::Gateway));
}

#[test]
fn a_header_is_there_even_when_it_is_empty_and_its_value_keeps_its_case() {
    let asks = |pattern: TextPattern| HttpMatch {
        headers: vec![("x-a".to_owned(), pattern)],
        ..HttpMatch::default()
    };
    let asked = |all| Asked { headers: headers(all), ..Asked::default() };
    for dialect in [Dialect::Istio, Dialect::Gateway] {
        assert!(asked(&[("x-a", "")]).of(&asks(TextPattern::Present), dialect));
        assert!(!asked(&[("x-b", "")]).of(&asks(TextPattern::Present), dialect));
        assert!(!asked(&[("x-a", "V")]).of(&asks(exact("v")), dialect));
        assert!(!asked(&[]).of(&asks(exact("")), dialect), "missing is not empty");
    }
}

#[test]
fn what_must_not_be_there_takes_a_missing_header_for_an_empty_one() {
    let asks = |pattern: TextPattern| HttpMatch {
        without_headers: vec![("x-a".to_owned(), pattern)],
        ..HttpMatch::default()
    };
    let asked = |all| Asked { headers: headers(all), ..Asked::default() };
    assert!(asked(&[]).of(&asks(exact("v")), Dialect::Istio));
    assert!(asked(&[("x-a", "w")]).of(&asks(exact("v")), Dialect::Istio));
    assert!(!asked(&[("x-a", "v")]).of(&asks(exact("v")), Dialect::Istio));
    assert!(!asked(&[]).of(&asks(regex(".*")), Dialect::Istio), "empty matches it");
    assert!(asked(&[]).of(&asks(TextPattern::Present), Dialect::Istio));
    assert!(!asked(&[("x-a", "")]).of(&asks(TextPattern::Present), Dialect::Istio));
}

#[test]
fn the_first_parameter_of_a_name_counts_and_nothing_is_decoded() {
    let asks = |name: &str, pattern: TextPattern| HttpMatch {
        query: vec![(name.to_owned(), pattern)],
        ..HttpMatch::default()
    };
    for (query, name, pattern, expected) in [
        (Some("a=1&b=2"), "b", exact("2"), true),
        (Some("a=1&a=2"), "a", exact("2"), false),
        (Some("a=%31"), "a", exact("1"), false),
        (Some("a=%31"), "a", exact("%31"), true),
        (Some("a"), "a", exact(""), true),
        (Some("a=b=c"), "a", exact("b=c"), true),
        (Some("ab=1"), "a", TextPattern::Present, false),
        (Some("&&a=1"), "a", TextPattern::Present, true),
        (None, "a", TextPattern::Present, false),
        (Some("A=1"), "a", TextPattern::Present, false),
    ] {
        let asked = Asked { query, ..Asked::default() };
        let from = asks(name, pattern);
        assert_eq!(asked.of(&from, Dialect::Gateway), expected, "{query:?} {from:?}");
    }
}

#[test]
fn the_authority_is_compared_as_it_was_sent() {
    for (authority, pattern, expected) in [
        ("cart:8080", exact("cart"), false),
        ("cart:8080", exact("cart:8080"), true),
        ("Cart", exact("cart"), false),
        ("cart:8080", TextPattern::Prefix("cart".to_owned()), true),
        ("cart:8080", regex("cart(:[0-9]+)?"), true),
    ] {
        let from = HttpMatch { authority: Some(pattern.clone()), ..HttpMatch::default() };
        let asked = Asked { authority, ..Asked::default() };
        assert_eq!(asked.of(&from, Dialect::Istio), expected, "{authority} {pattern:?}");
    }
}

#[test]
fn method_scheme_and_client_have_to_match_all_together() {
    let from = HttpMatch {
        method: Some(exact("GET")),
        scheme: Some(exact("http")),
        source_labels: [("app".to_owned(), "web".to_owned())].into(),
        source_namespace: Some("shop".to_owned()),
        ..HttpMatch::default()
    };
    let labels = || BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    assert!(Asked { labels: labels(), ..Asked::default() }.of(&from, Dialect::Istio));
    assert!(!Asked::default().of(&from, Dialect::Istio));
    let other = Asked { labels: labels(), namespace: "other", ..Asked::default() };
    assert!(!other.of(&from, Dialect::Istio));
    let post = Asked { labels: labels(), method: Method::POST, ..Asked::default() };
    assert!(!post.of(&from, Dialect::Istio));
    let tls = HttpMatch { scheme: Some(exact("https")), ..HttpMatch::default() };
    assert!(!Asked::default().of(&tls, Dialect::Istio));
}

#[test]
fn hosts_are_told_apart_without_port_and_case() {
    let pattern = HostPattern::new("*.Example.com");
    for (authority, expected) in [
        ("a.example.com", true),
        ("A.b.EXAMPLE.com:443", true),
        ("a.example.com.", true),
        ("example.com", false),
        (".example.com", false),
        ("aexample.com", false),
    ] {
        assert_eq!(pattern.matches_authority(authority), expected, "{authority}");
    }
    assert!(HostPattern::new("*").matches_authority("[fd00::1]:80"));
    assert!(HostPattern::new("[fd00::1]").matches_authority("[fd00::1]:80"));
    assert!(!HostPattern::new("a").matches_authority("a:b"));
}

#[test]
fn clients_that_would_need_two_values_of_a_label_do_not_exist() {
    let from = HttpMatch {
        source_labels: [("app".to_owned(), "web".to_owned())].into(),
        ..HttpMatch::default()
    };
    let one = RequestMatch::new(&from, Dialect::Istio).unwrap();
    assert!(one.clone().for_clients(&[("app".to_owned(), "web".to_owned())].into()).is_some());
    assert!(one.for_clients(&[("app".to_owned(), "api".to_owned())].into()).is_none());
}

fn whole(pattern: &str, text: &str) -> bool {
    TextMatcher::new(&regex(pattern)).unwrap().matches(text.as_bytes())
}

#[test]
fn regular_expressions_are_those_of_re2() {
    for (pattern, text, expected) in [
        ("a|bc", "bc", true),
        ("a|bc", "abc", false),
        (r"\d+", "12", true),
        (r"\d+", "\u{0661}", false),
        (r"\w", "\u{e9}", false),
        (r"[\d.]+", "1.2", true),
        (r"[^\w]", "-", true),
        (r"[[]", "[", true),
        (r"[]a]+", "]a", true),
        (r"[a&&b]+", "a&b", true),
        (r"[a-c-]+", "b-", true),
        (r"[+--]+", "+,-", true),
        (r"[--a]", "a", true),
        (r"[[:alpha:]_]+", "a_b", true),
        ("/{id}", "/{id}", true),
        ("a{2}", "aa", true),
        ("a{,2}", "a{,2}", true),
        (r"\Qa.b\E+", "a.bb", true),
        (r"\Qa.b", "a.b", true),
        (r"a\<b", "a<b", true),
        (r".", "\u{e9}", true),
        ("(?i)ABC", "abc", true),
        ("a.c", "a\nc", false),
        ("^a$", "a", true),
    ] {
        assert_eq!(whole(pattern, text), expected, "{pattern} {text}");
    }
}

#[test]
fn what_is_no_regular_expression_is_refused_with_its_reason() {
    for (pattern, why) in [
        ("a)|(b", "closed that is not open"),
        ("(a", "not closed"),
        ("[a", "bracket"),
        (r"a\", "backslash"),
        ("*", "repetition"),
        (r"(a)\1", "backreference"),
        ("(?=a)", "look-around"),
        ("((a{1000}){1000}){1000}", "more than"),
    ] {
        let error = TextMatcher::new(&regex(pattern)).unwrap_err().to_string();
        assert!(error.contains(why), "{pattern}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_header_that_is_none_is_refused() {
    let from = HttpMatch {
        headers: vec![("x a".to_owned(), TextPattern::Present)],
        ..HttpMatch::default()
    };
    let error = RequestMatch::new(&from, Dialect::Istio).unwrap_err();
    assert_eq!(error, PatternError::HeaderName("x a".to_owned()));
}

proptest::proptest! {
    #[test]
    fn no_pattern_makes_the_translation_panic(pattern in r"[\\\[\](){}^$.|?*+\-&~:QEdwsDWSbBpPx0-9a-c]{0,24}") {
        // The result may be an error; that it is one or an expression is all that is asked.
        if translate(&pattern).is_ok() {
            let _ = TextMatcher::new(&regex(&pattern));
        }
    }

    #[test]
    fn literal_text_in_quotes_matches_itself_alone(text in "[ -~]{0,16}", other in "[ -~]{0,16}") {
        proptest::prop_assume!(!text.contains('\\'));
        let pattern = format!(r"\Q{text}\E");
        proptest::prop_assert!(whole(&pattern, &text));
        proptest::prop_assert_eq!(whole(&pattern, &other), text == other);
    }
}

#[test]
fn what_has_to_hold_is_told_in_words() {
    let from = HttpMatch {
        path: Some(PathMatch::Elements("/items".to_owned())),
        method: Some(exact("GET")),
        headers: vec![("version".to_owned(), exact("v2"))],
        without_headers: vec![("x-old".to_owned(), TextPattern::Present)],
        query: vec![("lang".to_owned(), regex("d.*"))],
        source_labels: [("app".to_owned(), "web".to_owned())].into(),
        source_namespace: Some("shop".to_owned()),
        ..HttpMatch::default()
    };
    let compiled = RequestMatch::new(&from, Dialect::Gateway).unwrap();
    let compiled = compiled.for_hosts(vec![HostPattern::new("a.example"), HostPattern::new("b")]);
    let words: Vec<String> = compiled.conditions().iter().map(ToString::to_string).collect();
    assert_eq!(
        words,
        [
            "host is a.example or b",
            "method is GET",
            "path is /items or below it",
            "header version is v2",
            "header x-old is not there",
            "query parameter lang matches d.*",
            "the client's label app is web",
            "the client's namespace is shop",
        ]
    );
    for (path, ignore_path_case, told) in [
        (PathMatch::Exact("/A".to_owned()), true, "path is /a in any case"),
        (PathMatch::Prefix("/A".to_owned()), false, "path begins with /A"),
        (PathMatch::Prefix("/A".to_owned()), true, "path begins with /a in any case"),
        (PathMatch::Regex("/.*x".to_owned()), false, "path matches /.*x"),
    ] {
        let from = HttpMatch { path: Some(path), ignore_path_case, ..HttpMatch::default() };
        let compiled = RequestMatch::new(&from, Dialect::Istio).unwrap();
        assert_eq!(compiled.conditions()[0].to_string(), told);
    }
    assert!(RequestMatch::any().conditions().is_empty());
    let all = PathMatch::Elements("/".to_owned());
    let from = HttpMatch { path: Some(all), ..HttpMatch::default() };
    assert!(RequestMatch::new(&from, Dialect::Gateway).unwrap().conditions().is_empty());
}
