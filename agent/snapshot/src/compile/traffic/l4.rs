//! Routes for connections: one for each alternative, in the order in which they are asked.
//!
//! Source: Istio, `pilot/pkg/networking/core/tls.go`, which leaves the choice to Envoy's filter chains:
//! the longest block of addresses first, then the most specific server name.

use std::cmp::Reverse;

use undermesh_model::traffic::{Dialect, L4Match, L4Rule, RouteSet};

use super::http::Workshop;
use crate::traffic::{HostPattern, L4Route};

impl Workshop<'_, '_> {
    /// Compiles the routes of objects that hold together, in falling importance. TLS comes before TCP.
    pub(super) fn l4(&mut self, sets: &[&RouteSet]) -> Vec<L4Route> {
        let mut tls: Vec<_> =
            sets.iter().flat_map(|set| self.l4_rules(set, &set.tls, true)).collect();
        let mut tcp: Vec<_> =
            sets.iter().flat_map(|set| self.l4_rules(set, &set.tcp, false)).collect();
        for routes in [&mut tls, &mut tcp] {
            // Stable: what is equally specific stays in order.
            routes.sort_by_cached_key(|route| {
                route.matches.first().map_or((Reverse(0), Reverse(None)), specificity)
            });
        }
        tls.append(&mut tcp);
        tls
    }

    fn l4_rules(&mut self, set: &RouteSet, rules: &[L4Rule], tls: bool) -> Vec<L4Route> {
        let mut routes = Vec::new();
        for rule in rules {
            let alternatives = self.alternatives(&rule.matches, tls);
            if alternatives.is_empty() {
                continue;
            }
            let targets = self.weighted(set, &rule.backends);
            routes.extend(alternatives.into_iter().map(|one| L4Route {
                origin: set.origin.clone(),
                matches: vec![one],
                targets: targets.clone(),
            }));
        }
        if set.dialect == Dialect::Gateway && !tls {
            // A TCPRoute has no matches: only its first rule can be meant.
            routes.truncate(1);
        }
        routes
    }

    /// The alternatives that are about this port, one for each server name and block of addresses.
    fn alternatives(&self, matches: &[L4Match], tls: bool) -> Vec<L4Match> {
        let any = [L4Match::default()];
        let matches = if matches.is_empty() { &any[..] } else { matches };
        let here = matches.iter().filter(|one| one.port.is_none_or(|port| port == self.port));
        let mut all = Vec::new();
        for one in here {
            // A rule for TLS without names is for all that is TLS, not for anything else.
            let none = if tls { vec![vec!["*".to_owned()]] } else { vec![Vec::new()] };
            let names = one.sni_hosts.iter().map(|name| vec![name.clone()]).collect::<Vec<_>>();
            let names = if names.is_empty() { none } else { names };
            let blocks = one.destinations.iter().map(|block| vec![*block]).collect::<Vec<_>>();
            let blocks = if blocks.is_empty() { vec![Vec::new()] } else { blocks };
            for name in &names {
                all.extend(blocks.iter().map(|block| L4Match {
                    sni_hosts: name.clone(),
                    destinations: block.clone(),
                    ..one.clone()
                }));
            }
        }
        all
    }
}

type Specificity = (Reverse<u16>, Reverse<Option<(bool, usize)>>);

fn specificity(one: &L4Match) -> Specificity {
    let block = one.destinations.first();
    // Of both families alike; any block is more than none.
    let length =
        block.map_or(0, |block| 1 + 128 - u16::from(block.max_prefix_len() - block.prefix_len()));
    let name = one.sni_hosts.first().map(|name| HostPattern::new(name));
    (Reverse(length), Reverse(name.map(|name| super::destinations::specificity(&name))))
}
