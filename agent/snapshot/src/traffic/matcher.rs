//! Which requests a route is about: one alternative of a rule, compiled.
//!
//! Source: Istio, `pilot/pkg/networking/core/route/route.go` for what its matches become; Envoy,
//! `source/common/router/config_impl.cc` for how those are read; Gateway API, `HTTPRouteMatch`.

mod conditions;
mod header;
mod host;
mod path;
mod query;
mod re2;
mod substitution;
mod text;

use std::{collections::BTreeMap, fmt};

use undermesh_model::traffic::{Dialect, HttpMatch};

pub use self::{
    conditions::Condition, host::HostPattern, substitution::Substitution, text::PatternError,
};
use self::{header::HeaderMatcher, text::TextMatcher};
pub(crate) use self::{host::host_matches, path::PathMatcher};
use super::{Client, RequestView};

/// What keeps an alternative from being about a request: the first part that does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet<'a> {
    /// It is for clients with other labels, or of another namespace.
    Client,
    /// It is for requests to other hosts.
    Host,
    /// The method.
    Method,
    /// The scheme.
    Scheme,
    /// The path.
    Path,
    /// The authority.
    Authority,
    /// The header of this name.
    Header(&'a str),
    /// The parameter of the query of this name.
    Query(&'a str),
}

impl fmt::Display for Unmet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("the client's labels or namespace"),
            Self::Host => f.write_str("the host"),
            Self::Method => f.write_str("the method"),
            Self::Scheme => f.write_str("the scheme"),
            Self::Path => f.write_str("the path"),
            Self::Authority => f.write_str("the authority"),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
        }
    }
}

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
        self.unmet(client, request).is_none()
    }

    /// What keeps a request of `client` from being meant; `None` where it is.
    #[inline]
    pub fn unmet(&self, client: &Client<'_>, request: &RequestView<'_>) -> Option<Unmet<'_>> {
        let text = |matcher: &Option<TextMatcher>, value: &str| {
            matcher.as_ref().is_none_or(|matcher| matcher.matches(value.as_bytes()))
        };
        // What is cheap first; patterns may be regular expressions.
        if !self.is_about(client) {
            return Some(Unmet::Client);
        }
        if !self.hosts_match(request.authority) {
            return Some(Unmet::Host);
        }
        if !text(&self.method, request.method.as_str()) {
            return Some(Unmet::Method);
        }
        if !text(&self.scheme, request.scheme) {
            return Some(Unmet::Scheme);
        }
        if !self.path.matches(request.path) {
            return Some(Unmet::Path);
        }
        if !text(&self.authority, request.authority) {
            return Some(Unmet::Authority);
        }
        let mut headers = self.headers.iter();
        if let Some(header) = headers.find(|header| !header.matches(request.headers)) {
            return Some(Unmet::Header(header.name()));
        }
        self.unmet_query(request.query).map(Unmet::Query)
    }

    fn hosts_match(&self, authority: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches_authority(authority))
    }

    fn is_about(&self, client: &Client<'_>) -> bool {
        self.source_namespace.as_ref().is_none_or(|wanted| wanted == client.namespace)
            && client.has(&self.source_labels)
    }

    fn unmet_query(&self, query: Option<&str>) -> Option<&str> {
        let is = |(name, matcher): &(String, TextMatcher)| {
            let value = query.and_then(|query| query::first(query, name));
            value.is_some_and(|value| matcher.matches(value.as_bytes()))
        };
        self.query.iter().find(|one| !is(one)).map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests;
