//! Maglev: a table in which every endpoint has its share of places; a key belongs to its place.
//!
//! Source: Eisenbud and others, "Maglev", NSDI 2016, section 3.4; weights as in Envoy.

use crate::upstream::hash::{bytes, mix};

/// Envoy's, where a rule does not say.
const DEFAULT_SIZE: u64 = 65_537;
/// Envoy's largest.
const MAX_SIZE: u64 = 5_000_011;
const FREE: u32 = u32::MAX;

/// The endpoint, by its index, of every place.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Maglev(Vec<u32>);

/// One endpoint while the table is filled.
struct Filling {
    offset: u64,
    skip: u64,
    next: u64,
    weight: f64,
    /// How much of its turns it has had, in units of the greatest weight.
    target: f64,
}

impl Maglev {
    /// A table of `size` places, which has to be prime, for endpoints of these names and weights.
    pub(super) fn new(endpoints: &[(String, f64)], size: u64) -> Self {
        let size = if size == 0 { DEFAULT_SIZE } else { prime_from(size.min(MAX_SIZE)) };
        let greatest = endpoints.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let mut filling: Vec<_> = endpoints.iter().map(|one| Filling::new(one, size)).collect();
        let mut places = vec![FREE; if endpoints.is_empty() { 0 } else { size as usize }];
        let mut left = places.len();
        let mut round = 1.0;
        while left > 0 {
            for (one, index) in filling.iter_mut().zip(0..) {
                // Lighter ones sit rounds out.
                if left == 0 || round * one.weight < one.target {
                    continue;
                }
                one.target += greatest;
                one.take_free(&mut places, index, size);
                left -= 1;
            }
            round += 1.0;
        }
        Self(places)
    }

    /// Whose a key is; for another attempt the owner of another place.
    pub(super) fn pick(&self, hash: u64, attempt: usize) -> Option<usize> {
        let hash = if attempt == 0 { hash } else { mix(hash ^ attempt as u64) };
        let slot = (hash as usize).checked_rem(self.0.len())?;
        self.0.get(slot).map(|index| *index as usize)
    }
}

impl Filling {
    fn new((name, weight): &(String, f64), size: u64) -> Self {
        let hash = bytes(name.as_bytes());
        let skip = mix(hash) % (size - 1) + 1;
        Self { offset: hash % size, skip, next: 0, weight: *weight, target: 0.0 }
    }

    /// The first place of its permutation that is free. There is one: the size is prime, so that the
    /// permutation visits all.
    fn take_free(&mut self, places: &mut [u32], index: u32, size: u64) {
        for _ in 0..size {
            let place = ((self.offset + self.skip * self.next) % size) as usize;
            self.next += 1;
            if let Some(free) = places.get_mut(place).filter(|owner| **owner == FREE) {
                *free = index;
                return;
            }
        }
    }
}

/// The least prime from `size` on, at least 2. A rule's size should be one already.
fn prime_from(size: u64) -> u64 {
    let is_prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (size.max(2)..).find(|n| is_prime(*n)).unwrap_or(DEFAULT_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_weights() {
        let endpoints = [("a".to_owned(), 1.0), ("b".to_owned(), 3.0)];
        let table = Maglev::new(&endpoints, 1009);
        let of_b = table.0.iter().filter(|index| **index == 1).count();
        assert!((750..=765).contains(&of_b), "{of_b} of 1009");
    }

    #[test]
    fn a_size_that_is_not_prime_is_made_so() {
        assert_eq!(Maglev::new(&[("a".to_owned(), 1.0)], 100).0.len(), 101);
        assert_eq!(Maglev::new(&[("a".to_owned(), 1.0)], 1).0.len(), 2);
        assert_eq!(prime_from(65_537), 65_537);
        assert_eq!(prime_from(MAX_SIZE), MAX_SIZE);
    }

    #[test]
    fn an_empty_table_owns_nothing() {
        assert_eq!(Maglev::new(&[], 101).pick(7, 0), None);
    }
}
