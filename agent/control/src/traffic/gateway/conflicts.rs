//! Routes of different types for one port of a Service: only the most specific type is used.
//!
//! Source: GEP-1294, "Route types".

use std::collections::BTreeMap;

use undermesh_model::{
    NamespacedName, Service,
    traffic::{Parent, RouteSet, Scope},
};

use crate::{objects::Placed, report::Report};

/// Routes for the same clients, and the port they are for.
type Place = (Option<String>, NamespacedName, u16);

/// Takes ports from routes that have to give way to those of another type.
pub(super) fn settle(
    sets: &mut [Placed<RouteSet>],
    services: &BTreeMap<NamespacedName, Service>,
    report: &mut Report,
) {
    let mut best: BTreeMap<Place, u8> = BTreeMap::new();
    for set in sets.iter() {
        for (_, place) in places(&set.value, services) {
            let rank = rank(set.origin.kind);
            best.entry(place).and_modify(|best| *best = rank.min(*best)).or_insert(rank);
        }
    }
    for set in sets {
        let all = places(&set.value, services);
        let own = rank(set.origin.kind);
        let (kept, lost): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, place)| best.get(place) == Some(&own));
        if lost.is_empty() {
            continue;
        }
        for (_, (_, service, port)) in &lost {
            let message =
                format!("port {port} of Service {service} has a route of a more specific type");
            let remedy = "use routes of one type for a port; this one has no effect there";
            report.warning(&set.subject(), &[], "conflicting-route", message, remedy);
        }
        set.value.parents = parents(&set.value.parents, kept, &lost);
    }
}

/// GRPCRoute goes before HTTPRoute, TLSRoute and TCPRoute.
fn rank(kind: &str) -> u8 {
    match kind {
        "GRPCRoute" => 0,
        "HTTPRoute" => 1,
        "TLSRoute" => 2,
        _ => 3,
    }
}

/// The ports that a set is for, each with the index of its parent.
fn places(set: &RouteSet, services: &BTreeMap<NamespacedName, Service>) -> Vec<(usize, Place)> {
    let clients = match &set.scope {
        Scope::Everywhere => None,
        Scope::Namespaces(namespaces) => namespaces.first().cloned(),
    };
    let mut places = Vec::new();
    for (index, parent) in set.parents.iter().enumerate() {
        let Parent::Service { service, port } = parent else { continue };
        let all = services.get(service).into_iter().flat_map(|service| &service.ports);
        let all = all.map(|one| one.port).filter(|one| port.is_none_or(|port| port == *one));
        places.extend(all.map(|port| (index, (clients.clone(), service.clone(), port))));
    }
    places
}

/// Parents that have lost nothing stay as they are; of the others the ports that are left.
fn parents(parents: &[Parent], kept: Vec<(usize, Place)>, lost: &[(usize, Place)]) -> Vec<Parent> {
    let whole = |index: usize| lost.iter().all(|(other, _)| *other != index);
    let mut left: Vec<Parent> = parents
        .iter()
        .enumerate()
        .filter(|(index, _)| whole(*index))
        .map(|(_, parent)| parent.clone())
        .collect();
    left.extend(
        kept.into_iter()
            .filter(|(index, _)| !whole(*index))
            .map(|(_, (_, service, port))| Parent::Service { service, port: Some(port) }),
    );
    left
}
