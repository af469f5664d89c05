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
        let minimum = if minimum == 0 { DEFAULT_POINTS } else { minimum.min(MAX_POINTS) };
        let total: f64 = endpoints.iter().map(|(_, weight)| weight).sum();
        let mut points = Vec::with_capacity(minimum as usize + endpoints.len());
        for ((name, weight), index) in endpoints.iter().zip(0..) {
            let count = (weight / total * minimum as f64).ceil().max(1.0) as u64;
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

    /// The next owners of a key, each named as often as it has points.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[(&str, f64)]) -> Vec<(String, f64)> {
        names.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    #[test]
    fn the_ring_has_at_least_its_minimum() {
        let three = named(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]);
        assert!((1024..=1026).contains(&Ring::new(&three, 1024).len()));
        assert!((1024..=1026).contains(&Ring::new(&three, 0).len()));
        assert_eq!(Ring::new(&three, 1).len(), 3);
        assert!(Ring::new(&three, u64::MAX).len() <= MAX_POINTS as usize + 3);
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
