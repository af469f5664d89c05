//! Which requests a rule is about.

use std::collections::BTreeMap;

/// One alternative of a rule: everything that is set has to match.
///
/// Source: Istio `HTTPMatchRequest`; Gateway API `HTTPRouteMatch`, `GRPCRouteMatch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// Its name, for logs; may be empty.
    pub name: String,
    /// The path, without the query.
    pub path: Option<PathMatch>,
    /// `ignoreUriCase`: exact and prefix matches of the path disregard case.
    pub ignore_path_case: bool,
    /// `http` or `https`.
    pub scheme: Option<TextPattern>,
    /// The method.
    pub method: Option<TextPattern>,
    /// `Host` or `:authority`.
    pub authority: Option<TextPattern>,
    /// Headers by lower-case name; a header with several values matches by any of them for the
    /// Gateway API, joined by commas for Istio.
    pub headers: Vec<(String, TextPattern)>,
    /// Headers that must not match (`withoutHeaders`).
    pub without_headers: Vec<(String, TextPattern)>,
    /// Parameters of the query.
    pub query: Vec<(String, TextPattern)>,
    /// Port of the service that was dialled.
    pub port: Option<u16>,
    /// Labels that the client's pod has.
    pub source_labels: BTreeMap<String, String>,
    /// The client's namespace.
    pub source_namespace: Option<String>,
}

/// A pattern for text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextPattern {
    /// The whole text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// RE2, for the whole text.
    Regex(String),
    /// Any text, as long as there is one.
    Present,
}

/// A pattern for paths.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Istio's prefix: `/foo` matches `/foobar`.
    Prefix(String),
    /// The Gateway API's prefix of whole elements: `/foo` matches `/foo/bar`, not `/foobar`. Without a
    /// slash at its end, except for `/` itself.
    Elements(String),
    /// RE2, for the whole path.
    Regex(String),
}
