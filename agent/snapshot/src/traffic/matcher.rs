//! Which requests a route is about: one alternative of a rule, compiled.
//!
//! Source: Istio, `pilot/pkg/networking/core/route/route.go` for what its matches become; Envoy,
//! `source/common/router/config_impl.cc` for how those are read; Gateway API, `HTTPRouteMatch`.

mod header;
mod host;
mod path;
mod query;
mod re2;
mod substitution;
mod text;

use std::collections::BTreeMap;

use undermesh_model::traffic::{Dialect, HttpMatch};

use self::{header::HeaderMatcher, text::TextMatcher};
pub use self::{host::HostPattern, substitution::Substitution, text::PatternError};
pub(crate) use self::{host::host_matches, path::PathMatcher};
use super::{Client, RequestView};

/// One alternative of a rule: everything that is set has to match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestMatch {
    path: PathMatcher,
    scheme: Option<TextMatcher>,
    method: Option<TextMatcher>,
    authority: Option<TextMatcher>,
    headers: Vec<HeaderMatcher>,
    query: Vec<(String, TextMatcher)>,
    source_labels: BTreeMap<String, String>,
    source_namespace: Option<String>,
    hosts: Vec<HostPattern>,
}

impl RequestMatch {
    /// Compiles an alternative. The port is not looked at here: who is about another port is left
    /// out of a port's table.
    pub fn new(from: &HttpMatch, dialect: Dialect) -> Result<Self, PatternError> {
        let text = |pattern: &Option<_>| pattern.as_ref().map(TextMatcher::new).transpose();
        let mut headers = Vec::new();
        for (name, pattern) in &from.headers {
            headers.push(HeaderMatcher::new(name, pattern, dialect)?);
        }
        for (name, pattern) in &from.without_headers {
            headers.push(HeaderMatcher::new(name, pattern, dialect)?.inverted());
        }
        let query = from.query.iter().map(|(name, pattern)| {
            TextMatcher::new(pattern).map(|matcher| (name.clone(), matcher))
        });
        Ok(Self {
            path: PathMatcher::new(from.path.as_ref(), from.ignore_path_case, dialect)?,
            scheme: text(&from.scheme)?,
            method: text(&from.method)?,
            authority: text(&from.authority)?,
            headers,
            query: query.collect::<Result<_, _>>()?,
            source_labels: from.source_labels.clone(),
            source_namespace: from.source_namespace.clone(),
            hosts: Vec::new(),
        })
    }

    /// For requests to one of these hosts only. Where hosts share an address, the authority tells
    /// them apart.
    #[must_use]
    pub fn for_hosts(mut self, hosts: Vec<HostPattern>) -> Self {
        self.hosts = hosts;
        self
    }

    /// For every request.
    pub fn any() -> Self {
        Self {
            path: PathMatcher::Any { replaces: 0 },
            scheme: None,
            method: None,
            authority: None,
            headers: Vec::new(),
            query: Vec::new(),
            source_labels: BTreeMap::new(),
            source_namespace: None,
            hosts: Vec::new(),
        }
    }

    /// For clients with these labels only; `None` where no client can have them, because it would
    /// have to have another value for one of them.
    pub fn for_clients(mut self, labels: &BTreeMap<String, String>) -> Option<Self> {
        for (label, value) in labels {
            let known = self.source_labels.insert(label.clone(), value.clone());
            if known.is_some_and(|known| known != *value) {
                return None;
            }
        }
        Some(self)
    }

    pub(crate) fn path(&self) -> &PathMatcher {
        &self.path
    }

    /// Whether a request of `client` is meant.
    pub fn matches(&self, client: &Client<'_>, request: &RequestView<'_>) -> bool {
        let text = |matcher: &Option<TextMatcher>, value: &str| {
            matcher.as_ref().is_none_or(|matcher| matcher.matches(value.as_bytes()))
        };
        // What is cheap first; patterns may be regular expressions.
        self.is_about(client)
            && self.hosts_match(request.authority)
            && text(&self.method, request.method.as_str())
            && text(&self.scheme, request.scheme)
            && self.path.matches(request.path)
            && text(&self.authority, request.authority)
            && self.headers.iter().all(|header| header.matches(request.headers))
            && self.query_matches(request.query)
    }

    fn hosts_match(&self, authority: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches_authority(authority))
    }

    fn is_about(&self, client: &Client<'_>) -> bool {
        self.source_namespace.as_ref().is_none_or(|wanted| wanted == client.namespace)
            && client.has(&self.source_labels)
    }

    fn query_matches(&self, query: Option<&str>) -> bool {
        self.query.iter().all(|(name, matcher)| {
            let value = query.and_then(|query| query::first(query, name));
            value.is_some_and(|value| matcher.matches(value.as_bytes()))
        })
    }
}

#[cfg(test)]
mod tests;
