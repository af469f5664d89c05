//! Which objects' routes hold for a port and its clients, where several want to.
//!
//! Source: Istio, `pilot/pkg/networking/core/route/route.go` (one VirtualService for each host);
//! Gateway API, GEP-1294 "Route types", GEP-1426 (consumer routes), `HTTPRouteRule.matches`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use undermesh_model::{
    NamespacedName,
    traffic::{Dialect, L4Rule, Parent, RouteSet},
};

use super::{
    destinations::specificity,
    findings::{Findings, Overridden},
    hosts::{Host, HostPort},
};
use crate::traffic::{AppProtocol, HostPattern};

const ROUTES: &str = "its routes";

/// All objects that give routes, by what they are about.
pub(super) struct Contest<'a> {
    sets: &'a [RouteSet],
    by_host: HashMap<String, Vec<usize>>,
    wildcards: Vec<(HostPattern, usize)>,
    by_service: HashMap<&'a NamespacedName, Vec<(usize, Option<u16>)>>,
}

/// An object that is about a port.
#[derive(Clone, Copy, Debug)]
struct Entrant<'a> {
    index: usize,
    set: &'a RouteSet,
    /// How specific the host is by which it is about the port.
    specificity: (bool, usize),
    /// It is of the clients' namespace and about a service of another one.
    consumer: bool,
}

/// Who won a port, for clients of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Winners<'a> {
    /// Whose routes for requests hold, in falling importance.
    pub(super) http: Vec<&'a RouteSet>,
    /// Whose routes for connections hold, in falling importance.
    pub(super) l4: Vec<&'a RouteSet>,
    /// Numbers of all these.
    pub(super) indices: (Vec<usize>, Vec<usize>),
}

impl Winners<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.http.is_empty() && self.l4.is_empty()
    }

    /// What a port speaks because of who won it: a route of the Gateway API says so by its kind.
    pub(super) fn protocol(&self) -> Option<AppProtocol> {
        let first = self.l4.first().filter(|_| self.http.is_empty())?;
        match first.dialect {
            Dialect::Istio => None,
            Dialect::Gateway if first.tls.is_empty() => Some(AppProtocol::Tcp),
            Dialect::Gateway => Some(AppProtocol::Tls),
        }
    }
}

impl<'a> Contest<'a> {
    pub(super) fn new(sets: &'a [RouteSet]) -> Self {
        let mut contest = Self {
            sets,
            by_host: HashMap::new(),
            wildcards: Vec::new(),
            by_service: HashMap::new(),
        };
        for (index, set) in sets.iter().enumerate() {
            for parent in &set.parents {
                contest.add(index, parent);
            }
        }
        contest
    }

    fn add(&mut self, index: usize, parent: &'a Parent) {
        match parent {
            Parent::Service { service, port } => {
                self.by_service.entry(service).or_default().push((index, *port));
            }
            Parent::Host(host) => {
                let host = HostPattern::new(host);
                if host.is_wildcard() {
                    self.wildcards.push((host, index));
                } else {
                    self.by_host.entry(host.as_str().to_owned()).or_default().push(index);
                }
            }
        }
    }

    /// Who wins a port of a host, for clients of a namespace; the others are reported.
    pub(super) fn winners(
        &self,
        host: &Host<'_>,
        port: &HostPort<'_>,
        client: &str,
        findings: &mut Findings,
    ) -> Winners<'a> {
        let mut entrants = self.entrants(host, port, client);
        entrants.sort_by_cached_key(Entrant::rank);
        let Some(first) = entrants.first().copied() else { return Winners::default() };
        let (http, l4): (Vec<_>, Vec<_>) = match first.set.dialect {
            Dialect::Gateway => {
                let merged = entrants.iter().filter(|one| one.merges_with(&first)).copied();
                merged.partition(|one| has_http(one.set, port.number))
            }
            Dialect::Istio => {
                let own = || entrants.iter().filter(|one| one.set.dialect == Dialect::Istio);
                let http = own().find(|one| takes_requests(one.set, port)).copied();
                let l4 = own().filter(|one| takes_connections(one.set, port)).copied();
                (http.into_iter().collect(), l4.collect())
            }
        };
        for loser in &entrants {
            let winner = match (first.set.dialect, loser.set.dialect) {
                (Dialect::Gateway, _) => Some(&first).filter(|first| !loser.merges_with(first)),
                (Dialect::Istio, Dialect::Gateway) => Some(&first),
                // Routes for connections of several VirtualServices are all read.
                (Dialect::Istio, Dialect::Istio) => http
                    .first()
                    .filter(|won| won.index != loser.index && takes_requests(loser.set, port)),
            };
            if let Some(winner) = winner {
                findings.lost(winner.beats(loser, host), port.number, client);
            }
        }
        let sets = |all: &[Entrant<'a>]| all.iter().map(|one| one.set).collect();
        let indices = |all: &[Entrant<'a>]| all.iter().map(|one| one.index).collect();
        Winners { http: sets(&http), l4: sets(&l4), indices: (indices(&http), indices(&l4)) }
    }

    /// Objects that are about a port and have something to say there, each once.
    fn entrants(&self, host: &Host<'_>, port: &HostPort<'_>, client: &str) -> Vec<Entrant<'a>> {
        let name = &host.name;
        let exact = self.by_host.get(name).into_iter().flatten();
        let exact = exact.map(|index| (*index, (true, name.len())));
        let wildcards = self.wildcards.iter().filter(|(pattern, _)| pattern.matches(name));
        let wildcards = wildcards.map(|(pattern, index)| (*index, specificity(pattern)));
        let of_service = host.service().and_then(|service| self.by_service.get(service));
        let of_service = of_service
            .into_iter()
            .flatten()
            .filter(|(_, wanted)| wanted.is_none_or(|wanted| wanted == port.number))
            .map(|(index, _)| (*index, (true, name.len())));
        let mut found: BTreeMap<usize, Entrant<'a>> = BTreeMap::new();
        for (index, specificity) in exact.chain(wildcards).chain(of_service) {
            let set = &self.sets[index];
            let consumer =
                set.dialect == Dialect::Gateway && set.name.namespace != host.namespace();
            let sees = set.scope.includes(client) && (!consumer || set.name.namespace == client);
            if !sees || !is_about(set, port) {
                continue;
            }
            let entrant = Entrant { index, set, specificity, consumer };
            let known = found.entry(index).or_insert(entrant);
            known.specificity = known.specificity.max(specificity);
        }
        found.into_values().collect()
    }
}

impl<'a> Entrant<'a> {
    /// The lower wins.
    fn rank(&self) -> impl Ord + use<> {
        (
            Reverse(self.set.precedence),
            self.set.dialect == Dialect::Istio,
            !self.consumer,
            self.kind(),
            Reverse(self.specificity),
            self.set.created,
            self.tie_break(),
        )
    }

    /// Where everything else is equal: alphabetical order, as each of the APIs has it.
    fn tie_break(&self) -> String {
        let NamespacedName { namespace, name } = &self.set.name;
        match self.set.dialect {
            Dialect::Gateway => format!("{namespace}/{name}"),
            Dialect::Istio => format!("{name}.{namespace}"),
        }
    }

    /// Only one kind of route holds for a port: the more specific one.
    fn kind(&self) -> u8 {
        match (self.set.dialect, self.set.origin.kind) {
            (Dialect::Istio, _) | (_, "GRPCRoute") => 0,
            (_, "HTTPRoute") => 1,
            (_, "TLSRoute") => 2,
            _ => 3,
        }
    }

    fn merges_with(&self, first: &Self) -> bool {
        self.set.dialect == first.set.dialect
            && self.consumer == first.consumer
            && self.kind() == first.kind()
    }

    fn beats(&self, loser: &Self, host: &Host<'_>) -> Overridden {
        Overridden {
            loser: loser.set.origin.clone(),
            winner: self.set.origin.clone(),
            what: ROUTES,
            host: host.name.clone(),
            why: self.why(loser),
        }
    }

    fn why(&self, loser: &Self) -> &'static str {
        if self.set.precedence != loser.set.precedence {
            "its precedence is higher"
        } else if self.set.dialect != loser.set.dialect {
            "routes of the Gateway API come before VirtualServices"
        } else if self.consumer != loser.consumer {
            "routes of the clients' own namespace come first"
        } else if self.kind() != loser.kind() {
            "only the most specific kind of route holds for a port"
        } else if self.specificity != loser.specificity {
            "its host is more specific"
        } else {
            age(self.set, loser.set)
        }
    }
}

/// Why one of two objects wins that are equal but for age and name.
pub(super) fn age(winner: &RouteSet, loser: &RouteSet) -> &'static str {
    if winner.precedence != loser.precedence {
        "its precedence is higher"
    } else if winner.created != loser.created {
        "it is older"
    } else {
        "it comes first by name"
    }
}

/// Whether an object has something to say about a port.
pub(super) fn is_about(set: &RouteSet, port: &HostPort<'_>) -> bool {
    takes_requests(set, port) || takes_connections(set, port)
}

/// Whether an object has routes for requests of a port.
fn takes_requests(set: &RouteSet, port: &HostPort<'_>) -> bool {
    takes_http(port.protocol) && has_http(set, port.number)
}

/// Whether a port of this protocol may carry requests that the proxy can read.
pub(super) fn takes_http(protocol: AppProtocol) -> bool {
    !matches!(protocol, AppProtocol::Tcp | AppProtocol::Tls)
}

/// Whether an object has routes for connections of a port. A port that is said to be HTTP has none of
/// Istio's; the Gateway API's route makes the port what it is.
fn takes_connections(set: &RouteSet, port: &HostPort<'_>) -> bool {
    let about = |rule: &L4Rule| about_port(rule.matches.iter().map(|one| one.port), port.number);
    takes_l4(set.dialect, port.protocol) && set.tls.iter().chain(&set.tcp).any(about)
}

/// Whether a port of this protocol takes routes for connections.
pub(super) fn takes_l4(dialect: Dialect, protocol: AppProtocol) -> bool {
    let http = matches!(protocol, AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc);
    !(http && dialect == Dialect::Istio)
}

fn has_http(set: &RouteSet, port: u16) -> bool {
    set.http.iter().any(|rule| about_port(rule.matches.iter().map(|one| one.port), port))
}

/// Whether a rule with alternatives for these ports is about a port; without any it is about all.
pub(super) fn about_port(
    mut wanted: impl ExactSizeIterator<Item = Option<u16>>,
    port: u16,
) -> bool {
    wanted.len() == 0 || wanted.any(|wanted| wanted.is_none_or(|wanted| wanted == port))
}
