//! `localityLbSetting`: endpoints by where they are.

use std::collections::BTreeSet;

use undermesh_model::traffic::LocalityBalance;

use super::shapes;
use crate::traffic::place::Place;

/// Labels that `failover` orders as well.
const TOPOLOGY: [&str; 3] =
    ["topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone"];

/// Reads the setting.
pub(super) fn locality(
    at: &Place<'_>,
    shape: &shapes::Locality,
    has_outlier: bool,
) -> LocalityBalance {
    let shapes::Locality { distribute, failover, failover_priority, enabled } = shape;
    if !distribute.is_empty() && !failover.is_empty() {
        at.refuse("has distribute and failover", "write one of them");
    }
    if !failover.is_empty() && failover_priority.iter().any(|one| TOPOLOGY.contains(&one.as_str()))
    {
        let what = "has failover, and a label of the topology in failoverPriority";
        at.refuse(what, "write one of them");
    }
    let has_failover = !failover.is_empty() || !failover_priority.is_empty();
    if has_failover && !has_outlier {
        let what = "without outlierDetection, nobody fails over";
        at.warn("failover-without-outlier-detection", what, "write outlierDetection");
    }
    check_localities(&at.field("distribute"), distribute.iter().map(|one| one.from.as_str()));
    let distribute = distribute.iter().enumerate();
    let distribute =
        distribute.map(|(index, one)| shares(&at.field("distribute").item(index), one)).collect();
    for (index, one) in failover.iter().enumerate() {
        check_failover(&at.field("failover").item(index), one);
    }
    LocalityBalance {
        enabled: *enabled,
        distribute,
        failover: failover.iter().map(|one| (one.from.clone(), one.to.clone())).collect(),
        failover_priority: failover_priority.clone(),
    }
}

fn shares(at: &Place<'_>, shape: &shapes::Distribute) -> (String, Vec<(String, u32)>) {
    let at = at.field("to");
    if shape.to.values().any(|weight| !(1..=100).contains(weight)) {
        at.refuse(
            "a share is not from 1 to 100",
            "write percentages, and leave out what gets none",
        );
    }
    let sum: u64 = shape.to.values().map(|weight| u64::from(*weight)).sum();
    if sum != 100 {
        at.refuse(format!("the sum of its shares is {sum}"), "write shares that are 100 together");
    }
    check_localities(&at, shape.to.keys().map(String::as_str));
    (shape.from.clone(), shape.to.iter().map(|(to, weight)| (to.clone(), *weight)).collect())
}

fn check_failover(at: &Place<'_>, shape: &shapes::Failover) {
    if shape.from == shape.to {
        at.refuse("leads from a region to itself", "name another region");
    }
    if [&shape.from, &shape.to].iter().any(|region| region.contains(['/', '*'])) {
        at.refuse("names what is no region", "write regions alone, without '/' and '*'");
    }
}

/// Localities of one list: region, zone and subzone, of which the last may be `*`; none of them is a
/// part of another.
fn check_localities<'a>(at: &Place<'_>, all: impl Iterator<Item = &'a str>) {
    let mut seen: BTreeSet<Vec<&str>> = BTreeSet::new();
    for locality in all {
        let parts: Vec<&str> = locality.splitn(3, '/').collect();
        if parts.contains(&"") {
            at.refuse(format!("{locality:?} has an empty part"), "write region/zone/subzone");
        }
        if locality.strip_suffix('*').unwrap_or(locality).contains('*') {
            let what = format!("{locality:?} has '*' before its end");
            at.refuse(what, "write '*' as the last part alone");
        }
        let parts: Vec<&str> = parts.into_iter().filter(|part| *part != "*").collect();
        // "*" after others is for whatever they leave.
        let holds = |other: &Vec<&str>| !parts.is_empty() && other.starts_with(&parts);
        if seen.iter().any(|other| holds(other) || parts.starts_with(other)) {
            at.refuse(format!("{locality:?} and another one overlap"), "write each place once");
        }
        seen.insert(parts);
    }
}
