//! Routes for requests: which one is about a request.
//!
//! **Invariant**: the answer is that of reading all alternatives in order until one matches. What
//! is kept beside them only leaves out those whose path cannot match.

mod prefixes;

use std::{collections::HashMap, sync::Arc};

use self::prefixes::Prefixes;
use super::{Client, CompiledRoute, RequestMatch, RequestView, matcher::PathMatcher};

/// Routes for requests, in falling importance.
#[derive(Clone, Debug)]
pub struct RouteTable {
    entries: Vec<(RequestMatch, Arc<CompiledRoute>)>,
    /// By the whole path.
    exact: HashMap<Box<str>, Vec<usize>>,
    /// By the beginning of the path.
    prefixes: Prefixes,
    /// By the beginning of the path in lower case.
    folded: Prefixes,
    /// Those whose path says nothing about where they are to be looked for.
    rest: Vec<usize>,
}

/// A route that a request has matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched<'a> {
    /// The route.
    pub route: &'a Arc<CompiledRoute>,
    /// Which of the alternatives it is, in the order of [`RouteTable::entries`].
    pub index: usize,
    /// How many bytes of the path the match was about: what a rewrite of the prefix replaces. 0 for
    /// the Gateway API's prefix `/`, so that what is left always begins with a slash there.
    pub path_len: usize,
}

impl RouteTable {
    /// A table of alternatives; the first one that matches wins.
    pub fn new(entries: Vec<(RequestMatch, Arc<CompiledRoute>)>) -> Self {
        let mut exact: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let (mut prefixes, mut folded, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (alternative, _)) in entries.iter().enumerate() {
            match alternative.path() {
                PathMatcher::Exact(path) => {
                    exact.entry(path.as_str().into()).or_default().push(index);
                }
                PathMatcher::Prefix(path) | PathMatcher::Elements(path) => {
                    prefixes.push((path.as_str(), index));
                }
                PathMatcher::PrefixFolded(path) | PathMatcher::ExactFolded(path) => {
                    folded.push((path.as_str(), index));
                }
                PathMatcher::Regex(regex) if !regex.start().is_empty() => {
                    prefixes.push((regex.start(), index));
                }
                PathMatcher::Any { .. } | PathMatcher::Regex(_) => rest.push(index),
            }
        }
        let prefixes = Prefixes::new(prefixes, false);
        let folded = Prefixes::new(folded, true);
        Self { exact, prefixes, folded, rest, entries }
    }

    /// The route of a request. `None`: no route is about it, the answer is 404.
    pub fn find(&self, client: &Client<'_>, request: &RequestView<'_>) -> Option<Matched<'_>> {
        let mut search = Search { table: self, client, request, best: self.entries.len() };
        if let Some(list) = self.exact.get(request.path) {
            search.look_at(list);
        }
        for prefixes in [&self.prefixes, &self.folded] {
            for node in prefixes.of(request.path.as_bytes()) {
                if node.least >= search.best {
                    break;
                }
                search.look_at(&node.entries);
            }
        }
        search.look_at(&self.rest);
        let (alternative, route) = self.entries.get(search.best)?;
        let path_len = alternative.path().matched_len(request.path);
        Some(Matched { route, index: search.best, path_len })
    }

    /// Whether there is no route at all; everything then goes to [`super::PortTraffic::default`].
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The alternatives and their routes, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&RequestMatch, &Arc<CompiledRoute>)> {
        self.entries.iter().map(|(alternative, route)| (alternative, route))
    }
}

impl Default for RouteTable {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for RouteTable {}

/// The first alternative in order that matches, among the lists that were looked at.
struct Search<'a> {
    table: &'a RouteTable,
    client: &'a Client<'a>,
    request: &'a RequestView<'a>,
    best: usize,
}

impl Search<'_> {
    fn look_at(&mut self, list: &[usize]) {
        let before = list.iter().copied().take_while(|index| *index < self.best);
        let found = { before }
            .find(|index| self.table.entries[*index].0.matches(self.client, self.request));
        self.best = found.unwrap_or(self.best);
    }
}

#[cfg(test)]
mod tests;
