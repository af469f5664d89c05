//! Routes for requests: in which order their alternatives are read, and what they do.

mod action;
mod headers;
mod patterns;

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use undermesh_model::{
    Severity,
    traffic::{Dialect, HttpMatch, PathMatch, RouteSet},
};

use super::{
    clusters::Clusters,
    contest::age,
    findings::{Findings, Overridden},
    view::View,
};
use crate::traffic::{CompiledRoute, RequestMatch};

pub(super) use action::default_route;

/// The alternatives of a port's routes with what they lead to, in falling importance.
pub(super) type Alternatives = Vec<(RequestMatch, Arc<CompiledRoute>)>;

/// What rules are compiled for, and with what.
pub(super) struct Workshop<'w, 'a> {
    pub(super) clusters: &'w mut Clusters<'a>,
    pub(super) findings: &'w mut Findings,
    pub(super) view: &'w View,
    /// The host that was dialled.
    pub(super) host: &'w str,
    /// The port that was dialled.
    pub(super) port: u16,
}

/// An alternative on its way into the table.
struct Alternative<'a> {
    set: &'a RouteSet,
    from: HttpMatch,
    route: Arc<CompiledRoute>,
}

impl Workshop<'_, '_> {
    /// Compiles the routes of objects that hold together, in falling importance.
    pub(super) fn http(&mut self, sets: &[&RouteSet]) -> Alternatives {
        let mut alternatives = Vec::new();
        for set in sets {
            for (position, rule) in set.http.iter().enumerate() {
                let matches = self.matches_of(&rule.matches);
                if matches.is_empty() {
                    continue;
                }
                let route = Arc::new(self.route(set, rule, position));
                alternatives.extend(matches.into_iter().map(|from| Alternative {
                    set,
                    from,
                    route: Arc::clone(&route),
                }));
            }
        }
        if sets.first().is_some_and(|set| set.dialect == Dialect::Gateway) {
            // Stable: what is equal stays in the order of objects, rules and matches.
            alternatives.sort_by_cached_key(|one| (Reverse(one.set.precedence), rank(&one.from)));
        }
        if sets.len() > 1 {
            self.report_shadowed(&alternatives);
        }
        alternatives.into_iter().filter_map(|one| self.compiled(one)).collect()
    }

    /// The alternatives that are about this port; one for everything where a rule has none.
    fn matches_of(&self, matches: &[HttpMatch]) -> Vec<HttpMatch> {
        if matches.is_empty() {
            return vec![HttpMatch::default()];
        }
        let here = |one: &&HttpMatch| one.port.is_none_or(|port| port == self.port);
        matches.iter().filter(here).cloned().collect()
    }

    fn compiled(&mut self, one: Alternative<'_>) -> Option<(RequestMatch, Arc<CompiledRoute>)> {
        match RequestMatch::new(&one.from, one.set.dialect) {
            Ok(compiled) => Some((compiled, one.route)),
            Err(error) => {
                let message =
                    format!("a match of its route {:?} never matches: {error}", one.route.name);
                let remedy = "correct it; regular expressions are RE2";
                self.findings.tell(
                    Severity::Error,
                    &one.set.origin,
                    "unusable-match",
                    message,
                    remedy,
                );
                None
            }
        }
    }

    /// Alternatives that ask for the same as an earlier one of another object.
    fn report_shadowed(&mut self, alternatives: &[Alternative<'_>]) {
        let mut seen: HashMap<String, &RouteSet> = HashMap::new();
        for one in alternatives {
            let plain = HttpMatch { name: String::new(), port: None, ..one.from.clone() };
            let winner = *seen.entry(format!("{plain:?}")).or_insert(one.set);
            if winner.origin != one.set.origin {
                let lost = Overridden {
                    loser: one.set.origin.clone(),
                    winner: winner.origin.clone(),
                    what: "a match that both have",
                    host: self.host.to_owned(),
                    why: age(winner, one.set),
                };
                self.findings.lost(lost, self.port, &self.view.namespace);
            }
        }
    }
}

/// How specific the Gateway API takes a match to be; the lower comes first. Where regular expressions
/// stand is left to implementations: behind prefixes, as in Istio.
fn rank(from: &HttpMatch) -> impl Ord + use<> {
    let (kind, length) = match &from.path {
        Some(PathMatch::Exact(path)) => (0, path.chars().count()),
        Some(PathMatch::Prefix(path) | PathMatch::Elements(path)) => (1, path.chars().count()),
        Some(PathMatch::Regex(path)) => (2, path.chars().count()),
        None => (3, 0),
    };
    (
        kind,
        Reverse(length),
        from.method.is_none(),
        Reverse(from.headers.len()),
        Reverse(from.query.len()),
    )
}
