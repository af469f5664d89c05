//! Ring hash: every endpoint has points on a ring, and a key belongs to the next one.
//!
//! Source: Envoy, ring hash (Ketama). Where endpoints come and go, only keys next to their points move.

use crate::upstream::hash::{bytes, mix};

/// More would take longer to build than a request may wait (Envoy: 8 M, built beforehand).
pub(super) const MAX_POINTS: u64 = 1 << 20;
/// Envoy's, where a rule does not say.
const DEFAULT_POINTS: u64 = 1024;

/// Points in their order, each with the index of its endpoint.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ring(Vec<(u64, u32)>);

impl Ring {
    /// A ring with at least `minimum` points for endpoints of these names and weights.
    pub(super) fn new(endpoints: &[(String, f64)], minimum: u64) -> Self {
        let counts = counts(endpoints, minimum);
        let mut points = Vec::with_capacity(counts.iter().sum::<u64>() as usize);
        for (((name, _), count), index) in endpoints.iter().zip(counts).zip(0..) {
            let start = bytes(name.as_bytes());
            // The points of an endpoint are the same on rings of any size.
            let point = |nth: u64| (mix(start.wrapping_add(mix(nth + 1))), index);
            points.extend((0..count).map(point));
        }
        points.sort_unstable();
        Self(points)
    }

    /// Whose a key is; for another attempt the owner of a point further on.
    pub(super) fn pick(&self, hash: u64, attempt: usize) -> Option<usize> {
        let next = self.0.partition_point(|(point, _)| *point < hash);
        let slot = next.wrapping_add(attempt).checked_rem(self.0.len())?;
        self.0.get(slot).map(|(_, index)| *index as usize)
    }
}

/// How many points each endpoint has. The lightest has a power of two: were it just what makes the minimum
/// (as in Envoy), all endpoints would get other points whenever one comes or goes.
fn counts(endpoints: &[(String, f64)], minimum: u64) -> Vec<u64> {
    let minimum = if minimum == 0 { DEFAULT_POINTS } else { minimum.min(MAX_POINTS) };
    let weights = || endpoints.iter().map(|(_, weight)| *weight);
    let (lightest, total) = (weights().fold(f64::MAX, f64::min), weights().sum::<f64>());
    let least = (minimum as f64 * lightest / total).ceil().max(1.0) as u64;
    let least = least.next_power_of_two() as f64;
    // Far apart weights would need more than may be.
    let scale = (least / lightest).min(2.0 * MAX_POINTS as f64 / total);
    weights().map(|weight| (weight * scale).round().max(1.0) as u64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[(&str, f64)]) -> Vec<(String, f64)> {
        names.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    #[test]
    fn the_ring_has_at_least_its_minimum_and_never_too_many_points() {
        let three = named(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]);
        let size = |endpoints: &[(String, f64)], minimum| Ring::new(endpoints, minimum).0.len();
        assert_eq!(size(&three, 1024), 3 * 512);
        assert_eq!(size(&three, 0), 3 * 512);
        assert_eq!(size(&three, 1), 3);
        let most = 2 * MAX_POINTS as usize + 3;
        assert!(size(&three, u64::MAX) <= most);
        assert!(size(&named(&[("a", 1.0), ("b", 4e9)]), 1024) <= most);
    }

    #[test]
    fn points_follow_weights() {
        let names = named(&[("a", 0.2), ("b", 0.6)]);
        assert_eq!(counts(&names, 64), [16, 48]);
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        assert_eq!(Ring::new(&[], 1024).pick(7, 0), None);
    }

    #[test]
    fn every_key_has_an_owner_at_both_ends_of_the_ring() {
        let ring = Ring::new(&named(&[("a", 1.0), ("b", 1.0)]), 16);
        assert_eq!(ring.pick(u64::MAX, 0), ring.pick(0, 0));
        assert!(ring.pick(0, usize::MAX).is_some());
    }
}
