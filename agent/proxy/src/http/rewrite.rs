//! Paths and authorities as routes rewrite them.

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use undermesh_model::traffic::PathRewrite;
use undermesh_snapshot::traffic::CompiledRoute;

use super::{edits, head::Head, patterns};

/// The path as the client wrote it, where it was rewritten.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// Rewrites a request. `path_len` bytes of its path are what the route's match was about.
pub(crate) fn rewrite(route: &CompiledRoute, path_len: usize, head: &mut Head) {
    if let Some(authority) = &route.authority {
        edits::set_authority(&mut head.parts.uri, authority);
    }
    let Some(rewrite) = &route.path else { return };
    let before = head.parts.uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    let after = new_path(rewrite, head.parts.uri.path(), path_len);
    if set_path(&mut head.parts.uri, after)
        && let Ok(before) = HeaderValue::try_from(before)
    {
        head.parts.headers.insert(ORIGINAL_PATH, before);
    }
}

/// The path that takes the place of `path`.
pub(crate) fn new_path(rewrite: &PathRewrite, path: &str, path_len: usize) -> String {
    match rewrite {
        PathRewrite::Full(path) => path.clone(),
        PathRewrite::Matched(replacement) => replace_matched(replacement, path, path_len),
        PathRewrite::Regex { pattern, replacement } => {
            patterns::substitute(pattern, replacement, path)
        }
    }
}

/// `replacement` in place of the first `path_len` bytes of `path`.
pub(crate) fn replace_matched(replacement: &str, path: &str, path_len: usize) -> String {
    let rest = path.get(path_len..).unwrap_or_default();
    format!("{replacement}{rest}")
}

/// Sets the path of a target and leaves its query, unless the path has one. False where it would be no
/// path; the target then stays what it was.
pub(super) fn set_path(uri: &mut Uri, path: String) -> bool {
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    let text = match uri.query() {
        Some(query) if !path.contains('?') => format!("{path}?{query}"),
        _ => path,
    };
    let Ok(new) = PathAndQuery::try_from(text) else { return false };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(new);
    match Uri::from_parts(parts) {
        Ok(new) => {
            *uri = new;
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(rewrite: &PathRewrite, target: &'static str, path_len: usize) -> String {
        let mut uri = Uri::from_static(target);
        let path = new_path(rewrite, uri.path(), path_len);
        assert!(set_path(&mut uri, path));
        uri.to_string()
    }

    #[test]
    fn prefixes_are_replaced_and_queries_stay() {
        let to = |path: &str| PathRewrite::Matched(path.to_owned());
        let target = "http://cart/api/v1/items?a=b";
        assert_eq!(rewritten(&to("/v2"), target, 7), "http://cart/v2/items?a=b");
        assert_eq!(rewritten(&to(""), target, 7), "http://cart/items?a=b");
        assert_eq!(rewritten(&to(""), "http://cart/api", 4), "http://cart/");
        assert_eq!(rewritten(&to("/"), "http://cart/api/items", 5), "http://cart/items");
    }

    #[test]
    fn a_whole_path_may_bring_a_query() {
        let full = PathRewrite::Full("/x?new=1".to_owned());
        assert_eq!(rewritten(&full, "http://cart/a?old=1", 0), "http://cart/x?new=1");
        let full = PathRewrite::Full("/x".to_owned());
        assert_eq!(rewritten(&full, "http://cart/a?old=1", 0), "http://cart/x?old=1");
    }

    #[test]
    fn groups_of_an_expression_are_put_in() {
        let rewrite = PathRewrite::Regex {
            pattern: "^/service/([^/]+)(/.*)$".to_owned(),
            replacement: r"\2/instance/\1".to_owned(),
        };
        let target = "http://cart/service/foo/v1/api";
        assert_eq!(rewritten(&rewrite, target, 0), "http://cart/v1/api/instance/foo");
    }
}
