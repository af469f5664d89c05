//! Requests against route tables: which route, how much of the path it was about, and what rewrites
//! make of it.

mod model;
mod naive;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use undermesh_model::{
    ResourceRef,
    traffic::{DirectResponse, HttpMatch, PathRewrite},
};
use undermesh_proxy::fuzzing::http::rewritten;
use undermesh_snapshot::traffic::{
    Client, CompiledRoute, HeaderEdits, HostPattern, RequestMatch, RequestView, RouteAction,
    RouteTable, Substitution,
};

use self::model::{Asked, Rules};
use crate::source::Source;

/// Numbers that choose words; the words themselves are in `route_match/model.rs`.
pub(super) const DICTIONARY: &[&[u8]] = &[&[0, 0], &[1, 1], &[3, 1, 2, 3], &[255, 0], b"/a", b"a+"];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let rules = Rules::read(&mut source);
    let mut entries = Vec::new();
    let mut meant = Vec::new();
    for (one, hosts) in &rules.matches {
        // Whoever wrote a pattern that is none was told so; there is no route then.
        let compiled = RequestMatch::new(one, rules.dialect);
        assert_eq!(compiled.is_ok(), naive::compiles(one), "{one:?}");
        let Ok(compiled) = compiled else { continue };
        let patterns = hosts.iter().map(|host| HostPattern::new(host)).collect();
        entries.push((compiled.for_hosts(patterns), route(meant.len())));
        meant.push((one.clone(), hosts.clone()));
    }
    let table = RouteTable::new(entries);
    while !source.is_empty() {
        let asked = Asked::read(&mut source);
        look_up(&rules, &table, &meant, &asked);
        rewrite(&mut source, &asked);
    }
}

fn look_up(rules: &Rules, table: &RouteTable, meant: &[(HttpMatch, Vec<String>)], asked: &Asked) {
    let headers = headers(&asked.headers);
    let client = Client { namespace: asked.namespace, labels: &asked.labels };
    let method = Method::from_bytes(asked.method.as_bytes()).unwrap_or_default();
    let request = RequestView {
        method: &method,
        scheme: asked.scheme,
        authority: &asked.authority,
        path: &asked.path,
        query: asked.query.as_deref(),
        headers: &headers,
    };
    let found = table.find(&client, &request);
    let number = found.as_ref().and_then(|found| found.route.name.parse::<usize>().ok());
    let in_order = table.entries().position(|(one, _)| one.matches(&client, &request));
    assert_eq!(number, in_order, "read in order: {asked:?}");
    let naive =
        meant.iter().position(|(one, hosts)| naive::matches(one, hosts, rules.dialect, asked));
    assert_eq!(number, naive, "read by name: {asked:?} {meant:?}");
    if let Some(found) = found {
        // Rewrites cut there.
        assert!(found.path_len <= asked.path.len(), "{} of {:?}", found.path_len, asked.path);
        assert!(asked.path.is_char_boundary(found.path_len), "cut inside of a character");
    }
}

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

fn headers(list: &[(&str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

/// A rewrite keeps the authority, and leaves a path.
fn rewrite(source: &mut Source<'_>, asked: &Asked) {
    let query = asked.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(target) = Uri::try_from(format!("http://cart{}{query}", asked.path)) else { return };
    let text = source.words(model::PATHS, 4);
    let pattern = source.words(model::PATTERNS, 6);
    let rewrite = match source.below(3) {
        0 => PathRewrite::Full(text.clone()),
        1 => PathRewrite::Matched(text.clone()),
        _ => {
            let replacement = source.words(model::REPLACEMENTS, 4);
            substitute(&pattern, &replacement, &asked.path);
            PathRewrite::Regex { pattern, replacement }
        }
    };
    let matched = source.below(asked.path.len() + 2);
    let after = rewritten(&rewrite, target.clone(), matched);
    assert_eq!(after.authority(), target.authority());
    assert!(after.path().starts_with('/'), "{rewrite:?}: {after}");
    if !text.contains('?') && !matches!(rewrite, PathRewrite::Regex { .. }) {
        assert_eq!(after.query(), target.query(), "{rewrite:?}: {after}");
    }
}

fn substitute(pattern: &str, replacement: &str, text: &str) {
    let substitution = Substitution::new(pattern, replacement);
    let naive = naive::substituted(pattern, replacement, text);
    assert_eq!(substitution.is_ok(), naive.is_some(), "{pattern:?} {replacement:?}");
    if let (Ok(substitution), Some(naive)) = (substitution, naive) {
        assert_eq!(substitution.apply(text), naive, "{pattern:?} {replacement:?} {text:?}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..12_u8)
        .map(|kind| {
            let rules =
                (0..40).map(|at: u8| at.wrapping_mul(7).wrapping_add(kind.wrapping_mul(31)));
            let asked = (0..60).map(|at: u8| at.wrapping_mul(5).wrapping_add(kind) % 23);
            [1 + kind].into_iter().chain(rules).chain(asked).collect()
        })
        .collect();
    seeds.push((0..=255).collect());
    seeds.push((0..=255).rev().collect());
    seeds
}
