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
use crate::traffic::{
    ClusterSpec, HeaderEdits, L4Route, PortTraffic, RequestMatch, RouteTable, Target, Weighted,
};

/// Hosts that share an address: the authority or the server name tells them apart, and what says
/// neither belongs to the most specific one.
pub(super) fn together(mut parts: Vec<Part>) -> Option<PortTraffic> {
    parts.sort_by_key(|part| Reverse(specificity(&part.host)));
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
    let mut http = Alternatives::new();
    for part in parts {
        let only = vec![part.host.clone()];
        if part.http.is_empty() {
            let route = Arc::new(default_route(&part.origin, &part.default));
            http.push((RequestMatch::any().for_hosts(only.clone()), route));
        }
        let own = part.http.into_iter();
        http.extend(own.map(|(one, route)| (one.for_hosts(only.clone()), route)));
        traffic.l4.extend(part.l4);
        let name = L4Match { sni_hosts: vec![part.host.as_str().to_owned()], ..L4Match::default() };
        traffic.l4.push(connections(&part.origin, name, &part.default));
    }
    // Stable: TLS before TCP, whosever it is.
    traffic.l4.sort_by_key(|one| one.matches.iter().all(|one| one.sni_hosts.is_empty()));
    traffic.http = RouteTable::new(http);
    Some(traffic)
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
