//! Which endpoints come first, by where they are.
//!
//! Source: Istio, `pilot/pkg/networking/core/loadbalancer/loadbalancer.go`.

use std::collections::{BTreeMap, BTreeSet};

use undermesh_model::traffic::{Locality, LocalityBalance};

use super::{inventory::Found, view::Labels};

/// What a rule about localities makes of endpoints.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arrangement {
    /// Tier of each endpoint; `None` for those that get nothing.
    pub(super) priorities: Vec<Option<u32>>,
    /// Shares of localities; empty for none.
    pub(super) shares: BTreeMap<Locality, u32>,
}

/// Where the client is.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    pub(super) locality: &'a Locality,
    pub(super) labels: &'a Labels,
}

/// Arranges endpoints. Without `failover`, which takes outlier detection to mean anything, tiers are
/// not made.
pub(super) fn arrange(
    endpoints: &[Found<'_>],
    from: From<'_>,
    balance: Option<&LocalityBalance>,
    failover: bool,
) -> Arrangement {
    let default = LocalityBalance::default();
    let balance = balance.unwrap_or(&default);
    let flat =
        || Arrangement { priorities: vec![Some(0); endpoints.len()], shares: BTreeMap::new() };
    if balance.enabled == Some(false) {
        return flat();
    }
    if !balance.distribute.is_empty() {
        let mine = balance.distribute.iter().find(|(place, _)| is_at(from.locality, place));
        return mine.map_or_else(flat, |(_, shares)| distribute(endpoints, shares));
    }
    if !failover {
        return flat();
    }
    let mut tiers = vec![0; endpoints.len()];
    if !balance.failover_priority.is_empty() {
        let tier = |one| label_tier(one, from, &balance.failover_priority);
        tiers = dense(endpoints.iter().map(tier).collect());
        if balance.failover.is_empty() {
            return tiered(tiers);
        }
    }
    // At most five tiers follow from places; what labels say goes before that.
    let places = endpoints.iter().map(|one| place_tier(one, from.locality, &balance.failover));
    tiered(dense(tiers.iter().zip(places).map(|(labels, place)| labels * 5 + place).collect()))
}

fn tiered(tiers: Vec<u32>) -> Arrangement {
    Arrangement { priorities: tiers.into_iter().map(Some).collect(), shares: BTreeMap::new() }
}

/// Renumbers tiers so that none is empty.
fn dense(tiers: Vec<u32>) -> Vec<u32> {
    let used: BTreeSet<u32> = tiers.iter().copied().collect();
    let ranks: BTreeMap<u32, u32> = used.into_iter().zip(0..).collect();
    tiers.iter().map(|tier| ranks[tier]).collect()
}

/// Whether a locality is meant by `region/zone/subzone`, where `*` and missing parts mean any.
fn is_at(locality: &Locality, place: &str) -> bool {
    let mut parts = place.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let (region, zone, subzone) = (part(), part(), part());
    let any = |wanted: &str, value: &str| matches!(wanted, "*" | "") || wanted == value;
    (region == "*" || region == locality.region)
        && any(zone, &locality.zone)
        && any(subzone, &locality.subzone)
}

/// Gives each place its share; within it, localities share by the weights of their endpoints. What is
/// at no such place gets nothing.
fn distribute(endpoints: &[Found<'_>], shares: &[(String, u32)]) -> Arrangement {
    let mut weights: BTreeMap<&Locality, u64> = BTreeMap::new();
    for one in endpoints {
        *weights.entry(&one.locality).or_default() += u64::from(one.weight);
    }
    let mut given: BTreeMap<Locality, u32> = BTreeMap::new();
    for (place, share) in shares {
        let here: Vec<_> = weights
            .iter()
            .filter(|(locality, _)| is_at(locality, place) && !given.contains_key(**locality))
            .map(|(locality, weight)| ((*locality).clone(), *weight))
            .collect();
        let total: u64 = here.iter().map(|(_, weight)| weight).sum();
        for (locality, weight) in here {
            let part = (weight * u64::from(*share)).div_ceil(total.max(1));
            given.insert(locality, u32::try_from(part).unwrap_or(u32::MAX));
        }
    }
    let gets = |one: &Found<'_>| given.get(&one.locality).filter(|share| **share > 0).map(|_| 0);
    Arrangement { priorities: endpoints.iter().map(gets).collect(), shares: given }
}

/// 0 where all labels agree; the earlier one that does not, the higher.
fn label_tier(endpoint: &Found<'_>, from: From<'_>, labels: &[String]) -> u32 {
    let differs = |wanted: &String| {
        let (label, value) = match wanted.split_once('=') {
            Some((label, value)) => (label, value),
            None => (wanted.as_str(), label_of(wanted, from.labels, from.locality, "")),
        };
        value != label_of(label, endpoint.labels, &endpoint.locality, endpoint.network)
    };
    let position = labels.iter().position(differs);
    position.map_or(0, |position| u32::try_from(labels.len() - position).unwrap_or(u32::MAX / 5))
}

/// A label of a pod, with those that follow from where it is.
fn label_of<'a>(
    name: &str,
    labels: &'a Labels,
    locality: &'a Locality,
    network: &'a str,
) -> &'a str {
    match name {
        "topology.kubernetes.io/region" => &locality.region,
        "topology.kubernetes.io/zone" => &locality.zone,
        "topology.istio.io/subzone" => &locality.subzone,
        "topology.istio.io/network" => network,
        other => labels.get(other).map(String::as_str).unwrap_or_default(),
    }
}

/// 0 for the client's own place, 1 for its zone, 2 for its region, 3 for any other; 4 for regions that
/// are not the one that takes over.
fn place_tier(endpoint: &Found<'_>, from: &Locality, failover: &[(String, String)]) -> u32 {
    let to = &endpoint.locality;
    let takes_over = failover.iter().find(|(region, _)| *region == from.region);
    match (to.region == from.region, to.zone == from.zone, to.subzone == from.subzone) {
        (true, true, true) => 0,
        (true, true, false) => 1,
        (true, false, _) => 2,
        (false, ..) if takes_over.is_some_and(|(_, region)| *region != to.region) => 4,
        (false, ..) => 3,
    }
}

#[cfg(test)]
mod tests;
