//! One rule out of two: the one that leads to another object, and one of that object.

use undermesh_model::traffic::{
    HeaderOps, HttpAction, HttpMatch, HttpRule, PathMatch, Rewrite, TextPattern,
};

/// The rule for what both match; `None` where Istio finds that they are about different requests.
pub(super) fn rule(root: &HttpRule, leaf: &HttpRule) -> Option<HttpRule> {
    let mut merged = leaf.clone();
    merged.matches = matches(&root.matches, &leaf.matches)?;
    merged.name = name(&root.name, &leaf.name);
    // The only end that a rule with a delegate can have; where there is a response, nothing is sent on.
    let answers = matches!(root.action, HttpAction::Direct(_));
    if answers && matches!(leaf.action, HttpAction::Forward(_)) {
        merged.action = root.action.clone();
    }
    if merged.rewrite == Rewrite::default() {
        merged.rewrite = root.rewrite.clone();
    }
    if merged.headers == HeaderOps::default() {
        merged.headers = root.headers.clone();
    }
    if merged.mirrors.is_empty() {
        merged.mirrors.clone_from(&root.mirrors);
    }
    merged.timeout = merged.timeout.or(root.timeout);
    merged.retries = merged.retries.or_else(|| root.retries.clone());
    merged.fault = merged.fault.or_else(|| root.fault.clone());
    merged.cors = merged.cors.or_else(|| root.cors.clone());
    Some(merged)
}

fn name(root: &str, leaf: &str) -> String {
    let both = [root, leaf];
    let both: Vec<&str> = both.into_iter().filter(|name| !name.is_empty()).collect();
    both.join("-")
}

/// Every match of the leaf has to be a part of one of the root's.
fn matches(roots: &[HttpMatch], leaves: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if roots.is_empty() {
        return Some(leaves.to_vec());
    }
    if leaves.is_empty() {
        return Some(roots.to_vec());
    }
    let mut merged = Vec::new();
    for leaf in leaves {
        let parts = roots.iter().filter(|root| !conflict(root, leaf)).map(|root| both(root, leaf));
        let before = merged.len();
        merged.extend(parts);
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn both(root: &HttpMatch, leaf: &HttpMatch) -> HttpMatch {
    let mut source_labels = root.source_labels.clone();
    source_labels.extend(leaf.source_labels.clone());
    HttpMatch {
        name: name(&root.name, &leaf.name),
        path: leaf.path.clone().or_else(|| root.path.clone()),
        ignore_path_case: leaf.ignore_path_case,
        scheme: leaf.scheme.clone().or_else(|| root.scheme.clone()),
        method: leaf.method.clone().or_else(|| root.method.clone()),
        authority: leaf.authority.clone().or_else(|| root.authority.clone()),
        headers: union(&root.headers, &leaf.headers),
        without_headers: union(&root.without_headers, &leaf.without_headers),
        query: union(&root.query, &leaf.query),
        port: leaf.port.or(root.port),
        source_labels,
        source_namespace: leaf.source_namespace.clone().or_else(|| root.source_namespace.clone()),
    }
}

type Patterns = [(String, TextPattern)];

/// The leaf's patterns, and those of the root for other names.
fn union(root: &Patterns, leaf: &Patterns) -> Vec<(String, TextPattern)> {
    let others = root.iter().filter(|(name, _)| find(leaf, name).is_none());
    others.chain(leaf).cloned().collect()
}

fn find<'a>(patterns: &'a Patterns, name: &str) -> Option<&'a TextPattern> {
    patterns.iter().find(|(known, _)| known == name).map(|(_, pattern)| pattern)
}

fn conflict(root: &HttpMatch, leaf: &HttpMatch) -> bool {
    let lists = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query, &leaf.query),
    ];
    let lists = lists.iter().any(|(root, leaf)| {
        leaf.iter().any(|(name, pattern)| differ(find(root, name), Some(pattern)))
    });
    let labels = leaf
        .source_labels
        .iter()
        .any(|(name, value)| root.source_labels.get(name).is_some_and(|known| known != value));
    paths_differ(root.path.as_ref(), leaf.path.as_ref())
        || differ(root.scheme.as_ref(), leaf.scheme.as_ref())
        || differ(root.method.as_ref(), leaf.method.as_ref())
        || differ(root.authority.as_ref(), leaf.authority.as_ref())
        || lists
        || labels
        || root.ignore_path_case != leaf.ignore_path_case
        || unequal(root.port, leaf.port)
        || unequal(root.source_namespace.as_deref(), leaf.source_namespace.as_deref())
}

fn unequal<T: PartialEq>(root: Option<T>, leaf: Option<T>) -> bool {
    root.is_some() && leaf.is_some() && root != leaf
}

fn paths_differ(root: Option<&PathMatch>, leaf: Option<&PathMatch>) -> bool {
    differ(root.map(as_text).as_ref(), leaf.map(as_text).as_ref())
}

fn as_text(path: &PathMatch) -> TextPattern {
    match path.clone() {
        PathMatch::Exact(path) => TextPattern::Exact(path),
        PathMatch::Prefix(path) | PathMatch::Elements(path) => TextPattern::Prefix(path),
        PathMatch::Regex(pattern) => TextPattern::Regex(pattern),
    }
}

/// Whether the leaf's pattern is for texts that the root's is not for, as far as Istio looks:
/// expressions are not compared, and neither can one stand on either side.
fn differ(root: Option<&TextPattern>, leaf: Option<&TextPattern>) -> bool {
    use TextPattern::{Exact, Prefix};
    match (root, leaf) {
        (None, _) | (_, None) => false,
        (Some(Exact(root)), Some(Exact(leaf))) => root != leaf,
        (Some(Prefix(root)), Some(Prefix(leaf) | Exact(leaf))) => !leaf.starts_with(root.as_str()),
        _ => true,
    }
}
