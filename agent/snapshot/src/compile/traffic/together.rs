//! Puts what was compiled apart into one table: hosts that share an address, clients of one
//! namespace that rules tell apart.

use std::{cmp::Reverse, sync::Arc};

use undermesh_model::{ResourceRef, traffic::L4Match};

use super::{
    Part,
    destinations::specificity,
    http::{Alternatives, default_route},
    view::{Labels, View},
};
use crate::{
    OutboundPolicy,
    traffic::{
        AppProtocol, ClusterSpec, CompiledRoute, HeaderEdits, L4Route, PortTraffic, RequestMatch,
        RouteAction, RouteTable, Target, Weighted,
    },
};

/// The status of requests for hosts that nobody has registered, where only registered ones may be
/// dialled (Istio: `BlackHoleCluster`).
const UNREGISTERED: u16 = 502;

/// Where connections go that are for none of the hosts which a port is known for.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    cluster: Arc<ClusterSpec>,
}

impl Rest {
    /// To where they were dialled, or nowhere.
    pub(super) fn new(port: u16, policy: OutboundPolicy) -> Self {
        let cluster = match policy {
            OutboundPolicy::AllowAny => ClusterSpec::passthrough(port),
            OutboundPolicy::RegistryOnly => ClusterSpec::black_hole(port),
        };
        Self { cluster: Arc::new(cluster) }
    }

    fn request_route(&self) -> CompiledRoute {
        let route = default_route(&nobody(&self.cluster), &self.cluster);
        if !self.cluster.is_black_hole() {
            return route;
        }
        let target = Target::Unusable(UNREGISTERED);
        let only = Weighted { target, weight: 1, headers: HeaderEdits::default() };
        CompiledRoute { action: RouteAction::Forward(vec![only]), ..route }
    }
}

/// Hosts that share an address: the authority or the server name tells them apart, and what says
/// neither belongs to the most specific one, or, where there is a `rest`, to that.
pub(super) fn together(mut parts: Vec<Part>, rest: Option<&Rest>) -> Option<PortTraffic> {
    parts.sort_by_key(|part| Reverse(specificity(&part.host)));
    if let Some(rest) = rest {
        return by_name(parts, rest);
    }
    let first = parts.first()?;
    let mut traffic = PortTraffic {
        protocol: first.protocol,
        http: RouteTable::default(),
        l4: Vec::new(),
        default: Arc::clone(&first.default),
    };
    if parts.len() == 1 {
        let only = parts.pop()?;
        traffic.http = RouteTable::new(only.http);
        traffic.l4 = only.l4;
        return Some(traffic);
    }
    let (http, l4) = by_names(parts);
    traffic.http = RouteTable::new(http);
    traffic.l4 = l4;
    Some(traffic)
}

/// Hosts that share a port and nothing else. One whose protocol has no names takes what is for no
/// other.
fn by_name(mut parts: Vec<Part>, rest: &Rest) -> Option<PortTraffic> {
    let first = parts.first()?.protocol;
    let alike = parts.iter().all(|part| part.protocol == first);
    let protocol = if alike { first } else { AppProtocol::Auto };
    let nameless = parts.iter().position(|part| part.protocol == AppProtocol::Tcp);
    let nameless = nameless.map(|index| parts.remove(index));
    for part in &mut parts {
        part.l4.retain(|route| route.matches.iter().all(|one| !one.sni_hosts.is_empty()));
    }
    let (mut http, mut l4) = by_names(parts);
    http.push((RequestMatch::any(), Arc::new(rest.request_route())));
    let default = match nameless {
        Some(part) => {
            l4.extend(part.l4);
            part.default
        }
        None => Arc::clone(&rest.cluster),
    };
    Some(PortTraffic { protocol, http: RouteTable::new(http), l4, default })
}

/// Routes of hosts that names tell apart, the most specific one first.
fn by_names(parts: Vec<Part>) -> (Alternatives, Vec<L4Route>) {
    let (mut http, mut l4) = (Alternatives::new(), Vec::new());
    for part in parts {
        let only = vec![part.host.clone()];
        if part.http.is_empty() {
            let route = Arc::new(default_route(&part.origin, &part.default));
            http.push((RequestMatch::any().for_hosts(only.clone()), route));
        }
        let own = part.http.into_iter();
        http.extend(own.map(|(one, route)| (one.for_hosts(only.clone()), route)));
        l4.extend(part.l4);
        let name = L4Match { sni_hosts: vec![part.host.as_str().to_owned()], ..L4Match::default() };
        l4.push(connections(&part.origin, name, &part.default));
    }
    // Stable: TLS before TCP, whosever it is.
    l4.sort_by_key(|one: &L4Route| one.matches.iter().all(|one| one.sni_hosts.is_empty()));
    (http, l4)
}

/// Clients of one namespace that rules tell apart, each with what was compiled for them: those with
/// more labels first. What is for the last ones is for all that are left.
///
/// The alternatives of all views ask for the same and differ in what they lead to. So a request that
/// matches in one of them has matched in the first whose labels the client has.
pub(super) fn for_each_view(mut compiled: Vec<(&View, PortTraffic)>) -> Option<PortTraffic> {
    let (_, mut last) = compiled.pop()?;
    let mut http = Alternatives::new();
    let mut l4 = Vec::new();
    let bare = last.http.is_empty();
    let rest = (&Labels::new(), &last);
    let views = compiled.iter().map(|(view, traffic)| (&view.labels, traffic));
    for (labels, traffic) in views.chain([rest]) {
        let origin = traffic.default.rule.clone().unwrap_or_else(|| nobody(&traffic.default));
        if bare {
            let route = Arc::new(default_route(&origin, &traffic.default));
            http.extend(RequestMatch::any().for_clients(labels).map(|one| (one, route)));
        }
        let entries = traffic.http.entries();
        http.extend(entries.filter_map(|(one, route)| {
            Some((one.clone().for_clients(labels)?, Arc::clone(route)))
        }));
        l4.extend(traffic.l4.iter().filter_map(|route| of_clients(route, labels)));
        let theirs = L4Match { source_labels: labels.clone(), ..L4Match::default() };
        l4.push(connections(&origin, theirs, &traffic.default));
    }
    last.http = RouteTable::new(http);
    last.l4 = l4;
    Some(last)
}

fn nobody(cluster: &ClusterSpec) -> ResourceRef {
    ResourceRef::cluster_scoped("Host", cluster.key.host.clone())
}

fn of_clients(route: &L4Route, labels: &Labels) -> Option<L4Route> {
    let mut route = route.clone();
    route.matches.retain_mut(|one| {
        let agrees = labels
            .iter()
            .all(|(label, value)| one.source_labels.get(label).is_none_or(|own| own == value));
        one.source_labels.extend(labels.clone());
        agrees
    });
    (!route.matches.is_empty()).then_some(route)
}

fn connections(origin: &ResourceRef, only: L4Match, to: &Arc<ClusterSpec>) -> L4Route {
    let target = Target::Cluster(Arc::clone(to));
    L4Route {
        origin: origin.clone(),
        matches: vec![only],
        targets: vec![Weighted { target, weight: 1, headers: HeaderEdits::default() }],
    }
}
