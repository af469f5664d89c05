//! Step *balance*: which endpoints of a service to try, and in which order.
//!
//! The kernel sends a service's local share straight to the pods of this node and gives the proxy
//! what is left. The proxy therefore spreads it over the endpoints of other nodes, by weight, and comes
//! back to local ones only when there is no other.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use undermesh_snapshot::EndpointTarget;

use crate::plan::Target;

/// Up to `attempts` different endpoints in the order in which to try them: `first`, the one that
/// affinity demands, before all others. With `all_here`, the kernel has kept nothing for itself: rules
/// are about the service, though perhaps not for this client.
pub(crate) fn order(
    endpoints: &[EndpointTarget],
    all_here: bool,
    first: Option<usize>,
    attempts: usize,
    mut pick: impl FnMut(usize) -> usize,
) -> Vec<Target> {
    let first = first.and_then(|index| endpoints.get(index));
    let is_local = |endpoint: &&EndpointTarget| {
        !all_here && endpoint.workload.as_ref().is_some_and(|workload| workload.direct)
    };
    let (mut local, mut remote): (Vec<_>, Vec<_>) = endpoints.iter().partition(is_local);
    let mut targets = Vec::with_capacity(attempts.min(endpoints.len()));
    if let Some(first) = first.filter(|_| attempts > 0) {
        targets.push(target(first));
        for others in [&mut local, &mut remote] {
            others.retain(|endpoint| endpoint.address != first.address);
        }
    }
    while targets.len() < attempts {
        let from = if remote.is_empty() { &mut local } else { &mut remote };
        if from.is_empty() {
            break;
        }
        let index = weighted(from, &mut pick);
        targets.push(target(from.swap_remove(index)));
    }
    targets
}

/// The index of one of these, each with a chance in proportion to its weight.
fn weighted(from: &[&EndpointTarget], pick: &mut impl FnMut(usize) -> usize) -> usize {
    let weight = |endpoint: &&EndpointTarget| endpoint.weight.max(1) as usize;
    let total: usize = from.iter().map(weight).sum();
    let mut slot = pick(total) % total.max(1);
    let found = from.iter().position(|endpoint| {
        let found = slot < weight(endpoint);
        slot = slot.saturating_sub(weight(endpoint));
        found
    });
    found.unwrap_or_default()
}

fn target(endpoint: &EndpointTarget) -> Target {
    Target::new(endpoint.address, endpoint.workload.as_ref())
}

/// A number below `n`; even enough to spread load, no secret. Zero for an empty range.
pub(crate) fn random(n: usize) -> usize {
    thread_local! {
        // The standard library seeds a RandomState from the operating system.
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    // SplitMix64 (Steele, Lea, Flood 2014).
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // The high half of a 128-bit product maps evenly onto the range.
    ((u128::from(z) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing;

    fn endpoints() -> Vec<EndpointTarget> {
        let mut here = testing::workload("here", &["10.0.0.1"]);
        here.direct = true;
        let here = Arc::new(here);
        let there = Arc::new(testing::workload("there", &["10.0.1.1"]));
        vec![
            testing::endpoint("10.0.0.1:80", Some(&here)),
            testing::endpoint("10.0.1.1:80", Some(&there)),
            testing::endpoint("192.0.2.1:80", None),
        ]
    }

    fn ports(targets: &[Target]) -> Vec<String> {
        targets.iter().map(|t| t.address.to_string()).collect()
    }

    #[test]
    fn other_nodes_come_first_and_no_endpoint_twice() {
        for choice in 0..4 {
            let targets = ports(&order(&endpoints(), false, None, 3, |_| choice));
            assert_eq!(targets.last().unwrap(), "10.0.0.1:80");
            assert_eq!(targets.len(), 3);
            assert_ne!(targets[0], targets[1]);
        }
    }

    #[test]
    fn where_the_kernel_takes_none_every_endpoint_gets_its_share() {
        let mut local = 0_u32;
        for _ in 0..3000 {
            let targets = ports(&order(&endpoints(), true, None, 1, random));
            local += u32::from(targets[0] == "10.0.0.1:80");
        }
        assert!((850..=1150).contains(&local), "{local} of 3000");
    }

    #[test]
    fn affinity_comes_first_and_is_not_tried_twice() {
        for first in 0..3 {
            let targets = ports(&order(&endpoints(), false, Some(first), 3, random));
            assert_eq!(targets[0], endpoints()[first].address.to_string());
            assert_eq!(targets.len(), 3);
            assert!(!targets[1..].contains(&targets[0]));
        }
    }

    #[test]
    fn attempts_are_bounded() {
        assert_eq!(order(&endpoints(), false, None, 1, |_| 0).len(), 1);
        assert_eq!(order(&endpoints(), false, None, 9, |_| 0).len(), 3);
        assert_eq!(order(&[], false, None, 3, |_| 0), []);
    }

    #[test]
    fn every_remote_endpoint_gets_its_share() {
        let mut first = [0_u32; 2];
        for _ in 0..4000 {
            match ports(&order(&endpoints(), false, None, 1, random))[0].as_str() {
                "10.0.1.1:80" => first[0] += 1,
                "192.0.2.1:80" => first[1] += 1,
                other => panic!("{other} is local"),
            }
        }
        assert!(first.iter().all(|n| *n > 1600), "{first:?}");
    }

    #[test]
    fn shares_follow_weights_and_the_light_are_not_left_out() {
        let mut endpoints = endpoints();
        endpoints[1].weight = 3;
        let mut heavy = 0_u32;
        for _ in 0..4000 {
            let targets = ports(&order(&endpoints, false, None, 2, random));
            assert_ne!(targets[0], targets[1]);
            heavy += u32::from(targets[0] == "10.0.1.1:80");
        }
        assert!((2850..=3150).contains(&heavy), "{heavy} of 4000");
    }

    #[test]
    fn random_numbers_stay_in_their_range() {
        assert_eq!(random(0), 0);
        assert!((0..1000).all(|_| random(3) < 3));
    }
}
