//! Rules and requests out of few words, so that they often mean each other.

use std::collections::BTreeMap;

use undermesh_model::traffic::{Dialect, HttpMatch, PathMatch, TextPattern};

use crate::source::Source;

/// Pieces of paths.
pub(super) const PATHS: &[&str] =
    &["/", "a", "b", "A", "/a", "/b", "ab", "B", ".", "%2f", "é", "É", "ß", "/a/", "?x=1"];
/// Pieces of expressions, the same in RE2 and in the library that the naive reader uses.
pub(super) const PATTERNS: &[&str] = &[
    "/", "a", "b", "/a", ".", ".*", "[^/]+", "[a-z]*", "(a|b)", "?", "+", "*", "|", "(", ")",
    "{1,2}", "^", "$", "A", "(?i)", "[0-9]", "/b", "(?:a)", "\\.", "é", "-", "=",
];
/// Pieces of replacements.
pub(super) const REPLACEMENTS: &[&str] =
    &["/", "x", "\\1", "\\0", "$1", "$", "\\\\", "\\2", "${0}", "\\", "?y=2"];
const VALUES: &[&str] = &["1", "2", "a", "b", "ab", "", "A", ","];
const HEADERS: &[&str] = &["x-a", "x-b", "host"];
const NAMES: &[&str] = &["q", "r", "", "Q"];
const AUTHORITIES: &[&str] = &[
    "cart",
    "cart.shop",
    "CART",
    "cart:80",
    "a.cart.shop",
    "[fd00::1]:80",
    "cart.",
    "x",
    ":",
    "cart:",
];
const HOSTS: &[&str] =
    &["cart", "*", "*.shop", "Cart.Shop", "cart.", "*.cart.shop", "fd00::1", "[fd00::1]"];
const METHODS: &[&str] = &["GET", "POST", "get", "G"];
const SCHEMES: &[&str] = &["http", "https", "h"];
const NAMESPACES: &[&str] = &["shop", "other"];

/// Rules of one table: each with the hosts that it is for.
pub(super) struct Rules {
    pub(super) dialect: Dialect,
    pub(super) matches: Vec<(HttpMatch, Vec<String>)>,
}

impl Rules {
    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let dialect = source.pick(&[Dialect::Istio, Dialect::Gateway]);
        let count = source.below(24);
        let matches = (0..count).map(|_| (http_match(source), hosts(source))).collect();
        Self { dialect, matches }
    }
}

fn hosts(source: &mut Source<'_>) -> Vec<String> {
    if source.below(4) > 0 {
        return Vec::new();
    }
    (0..1 + source.below(2)).map(|_| source.pick(HOSTS).to_owned()).collect()
}

fn http_match(source: &mut Source<'_>) -> HttpMatch {
    let path = path(source);
    let mut one = HttpMatch { ignore_path_case: source.flag(), path, ..HttpMatch::default() };
    // Most rules are about one or two other things at most.
    let others = source.byte();
    if others & 1 > 0 {
        one.headers.push((source.pick(HEADERS).to_owned(), text(source, VALUES)));
    }
    if others & 2 > 0 {
        one.without_headers.push((source.pick(HEADERS).to_owned(), text(source, VALUES)));
    }
    if others & 4 > 0 {
        one.query.push((source.pick(NAMES).to_owned(), text(source, VALUES)));
    }
    match others >> 3 & 7 {
        1 => one.method = Some(text(source, METHODS)),
        2 => one.scheme = Some(text(source, SCHEMES)),
        3 => one.authority = Some(text(source, AUTHORITIES)),
        4 => one.source_namespace = Some(source.pick(NAMESPACES).to_owned()),
        5 => one.source_labels = labels(source),
        _ => {}
    }
    one
}

fn path(source: &mut Source<'_>) -> Option<PathMatch> {
    // Expressions take long to compile, so that there are few.
    let kind = source.below(11);
    Some(match kind {
        0 => return None,
        1..4 => PathMatch::Exact(source.words(PATHS, 4)),
        4..7 => PathMatch::Prefix(source.words(PATHS, 4)),
        7..10 => PathMatch::Elements(source.words(PATHS, 4)),
        _ => PathMatch::Regex(source.words(PATTERNS, 8)),
    })
}

fn text(source: &mut Source<'_>, words: &[&str]) -> TextPattern {
    match source.below(8) {
        0..3 => TextPattern::Exact(source.pick(words).to_owned()),
        3..5 => TextPattern::Prefix(source.pick(words).to_owned()),
        5..7 => TextPattern::Present,
        _ => TextPattern::Regex(source.words(PATTERNS, 4)),
    }
}

fn labels(source: &mut Source<'_>) -> BTreeMap<String, String> {
    (0..source.below(3))
        .map(|_| (source.pick(NAMES).to_owned(), source.pick(VALUES).to_owned()))
        .collect()
}

/// A request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: &'static str,
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) namespace: &'static str,
    pub(super) labels: BTreeMap<String, String>,
}

impl Asked {
    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let path = source.words(PATHS, 6).replace(['?', '#'], "");
        let parameter = |source: &mut Source<'_>| {
            source.pick(NAMES).to_owned() + source.pick(&["=", ""]) + source.pick(VALUES)
        };
        let query = source.flag().then(|| {
            let count = source.below(3);
            (0..count).map(|_| parameter(source)).collect::<Vec<_>>().join("&")
        });
        let count = source.below(4);
        let headers =
            (0..count).map(|_| (source.pick(HEADERS), source.pick(VALUES).to_owned())).collect();
        Self {
            method: source.pick(METHODS),
            scheme: source.pick(SCHEMES),
            authority: source.pick(AUTHORITIES).to_owned(),
            path,
            query,
            headers,
            namespace: source.pick(NAMESPACES),
            labels: labels(source),
        }
    }
}
