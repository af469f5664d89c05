//! Tables answer as reading them in order would.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::{collection::vec, option, prelude::*, sample::select};
use undermesh_model::{
    ResourceRef,
    traffic::{Dialect, DirectResponse, HttpMatch, PathMatch, TextPattern},
};

use super::*;
use crate::traffic::{HeaderEdits, RouteAction};

fn route(number: usize) -> Arc<CompiledRoute> {
    Arc::new(CompiledRoute {
        origin: ResourceRef::namespaced("VirtualService", "shop", "cart").into(),
        name: number.to_string().into(),
        action: RouteAction::Direct(DirectResponse { status: 200, body: Vec::new() }),
        path: None,
        authority: None,
        headers: HeaderEdits::default(),
        timeout: None,
        retries: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
    })
}

fn table(matches: &[HttpMatch], dialect: Dialect) -> RouteTable {
    let entries = matches.iter().enumerate();
    RouteTable::new(
        entries
            .map(|(index, from)| (RequestMatch::new(from, dialect).unwrap(), route(index)))
            .collect(),
    )
}

fn of_path(path: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

/// Asks a table for a path, and a header where there is one.
fn ask(table: &RouteTable, path: &str, header: Option<&str>) -> Option<(usize, usize)> {
    let mut headers = HeaderMap::new();
    if let Some(value) = header {
        headers.insert(HeaderName::from_static("x-a"), HeaderValue::from_str(value).unwrap());
    }
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    let request = RequestView {
        method: &Method::GET,
        scheme: "http",
        authority: "cart",
        path,
        query: None,
        headers: &headers,
    };
    let matched = table.find(&client, &request)?;
    Some((matched.route.name.parse().unwrap(), matched.path_len))
}

#[test]
fn an_empty_table_has_no_route() {
    let table = RouteTable::default();
    assert!(table.is_empty());
    assert_eq!(ask(&table, "/", None), None);
}

#[test]
fn the_first_in_order_wins_however_it_is_looked_up() {
    let table = table(
        &[
            of_path(PathMatch::Prefix("/a/b".to_owned())),
            of_path(PathMatch::Exact("/a/b/c".to_owned())),
            of_path(PathMatch::Regex("/z.*".to_owned())),
            of_path(PathMatch::Exact("/z".to_owned())),
            of_path(PathMatch::Prefix("/a".to_owned())),
            HttpMatch::default(),
            of_path(PathMatch::Exact("/never".to_owned())),
        ],
        Dialect::Istio,
    );
    let found = |path| ask(&table, path, None).unwrap().0;
    assert_eq!(found("/a/b/c"), 0);
    assert_eq!(found("/a/x"), 4);
    assert_eq!(found("/z"), 2);
    assert_eq!(found("/never"), 5);
}

#[test]
fn a_rewrite_replaces_what_was_matched() {
    let lengths = |path: Option<PathMatch>, dialect, asked| {
        ask(&table(&[HttpMatch { path, ..HttpMatch::default() }], dialect), asked, None).unwrap().1
    };
    let prefix = |text: &str| Some(PathMatch::Prefix(text.to_owned()));
    let elements = |text: &str| Some(PathMatch::Elements(text.to_owned()));
    assert_eq!(lengths(prefix("/foo"), Dialect::Istio, "/foobar"), 4);
    assert_eq!(lengths(elements("/foo"), Dialect::Gateway, "/foo/bar"), 4);
    assert_eq!(lengths(elements("/"), Dialect::Gateway, "/foo"), 0);
    assert_eq!(lengths(None, Dialect::Istio, "/foo"), 1, "Istio's prefix is then the slash");
    assert_eq!(lengths(None, Dialect::Istio, "*"), 0);
    assert_eq!(lengths(None, Dialect::Gateway, "/foo"), 0);
    assert_eq!(lengths(Some(PathMatch::Exact("/foo".to_owned())), Dialect::Istio, "/foo"), 4);
    assert_eq!(lengths(Some(PathMatch::Regex("/.*".to_owned())), Dialect::Istio, "/foo"), 4);
}

/// Few letters, so that paths are prefixes of each other.
fn path() -> impl Strategy<Value = String> {
    vec(select(vec!["/", "a", "b", "A"]), 0..7).prop_map(|parts| format!("/{}", parts.concat()))
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = (0..7, path()).prop_map(|(kind, path)| match kind {
        0 => Some(PathMatch::Exact(path)),
        1 => Some(PathMatch::Prefix(path)),
        2 => Some(PathMatch::Elements(path)),
        3 => Some(PathMatch::Regex(format!("{path}.*"))),
        4 => Some(PathMatch::Regex(format!("{path}?.*"))),
        5 => Some(PathMatch::Regex(format!("{path}|/b"))),
        _ => None,
    });
    let header = option::of(select(vec!["1", "2"]));
    (path, any::<bool>(), header).prop_map(|(path, folded, header)| HttpMatch {
        ignore_path_case: folded && !matches!(path, Some(PathMatch::Elements(_))),
        path,
        headers: header
            .map(|value| ("x-a".to_owned(), TextPattern::Exact(value.to_owned())))
            .into_iter()
            .collect(),
        ..HttpMatch::default()
    })
}

/// The definition, read word by word.
fn naive(matches: &[HttpMatch], path: &str, header: Option<&str>) -> Option<usize> {
    matches.iter().position(|one| {
        let lower = |text: &str| {
            if one.ignore_path_case { text.to_ascii_lowercase() } else { text.to_owned() }
        };
        let path_matches = match &one.path {
            None => true,
            Some(PathMatch::Exact(wanted)) => lower(path) == lower(wanted),
            Some(PathMatch::Prefix(prefix)) => lower(path).starts_with(&lower(prefix)),
            Some(PathMatch::Elements(prefix)) => {
                let prefix = prefix.trim_end_matches('/');
                path == prefix || path.starts_with(&format!("{prefix}/"))
            }
            // Of the three forms that are made above.
            Some(PathMatch::Regex(pattern)) => match (pattern.strip_suffix("?.*"), pattern) {
                (Some(start), _) => path.starts_with(&start[..start.len() - 1]),
                (None, pattern) => match pattern.strip_suffix("|/b") {
                    Some(one) => path == one || path == "/b",
                    None => path.starts_with(pattern.trim_end_matches(".*")),
                },
            },
        };
        let header_matches = one.headers.iter().all(|(_, wanted)| match wanted {
            TextPattern::Exact(wanted) => header == Some(wanted.as_str()),
            _ => false,
        });
        path_matches && header_matches
    })
}

proptest! {
    #[test]
    fn a_table_answers_as_reading_it_in_order_would(
        matches in vec(http_match(), 0..40),
        asked in vec((path(), option::of(select(vec!["1", "2"]))), 1..20),
    ) {
        let table = table(&matches, Dialect::Istio);
        for (path, header) in asked {
            let found = ask(&table, &path, header).map(|(index, _)| index);
            prop_assert_eq!(found, naive(&matches, &path, header), "{} {:?}", path, header);
        }
    }
}
