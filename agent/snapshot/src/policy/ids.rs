//! Numbers that stand for content in map keys.
//!
//! An id is a hash of what it stands for. So it stays the same while the meaning does, whichever
//! agent compiles it, and another meaning gets another id: entries of the old and of the new one
//! live side by side until nothing refers to the old one. Should two contents of one state have
//! the same hash (somebody may have chosen a name so that they do), the later one gets another id.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

/// Ids given out for one state.
pub(super) struct Ids<T> {
    taken: BTreeMap<u64, T>,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self { taken: BTreeMap::new() }
    }
}

impl<T: Hash + PartialEq> Ids<T> {
    /// The id of `content`, never 0, and whether it is the first time that it is asked for.
    pub(super) fn of(&mut self, content: T) -> (u64, bool) {
        let mut hasher = Fnv::default();
        content.hash(&mut hasher);
        self.place(hasher.finish(), content)
    }

    fn place(&mut self, wanted: u64, content: T) -> (u64, bool) {
        let mut id = wanted;
        loop {
            match self.taken.get(&id) {
                _ if id == 0 => {}
                None => {
                    self.taken.insert(id, content);
                    return (id, true);
                }
                Some(owner) if *owner == content => return (id, false),
                Some(_) => {}
            }
            id = id.wrapping_add(1);
        }
    }
}

/// FNV-1a with 64 bits: the standard library's own hashers promise nothing across versions.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_has_the_same_id_and_another_one_another() {
        let mut ids = Ids::default();
        let (id, first) = ids.of("cart");
        assert!(first && id != 0);
        assert_eq!(ids.of("cart"), (id, false));
        assert_ne!(ids.of("web").0, id);
        assert_eq!(Ids::default().of("cart").0, id, "an id depends on what else there is");
    }

    #[test]
    fn contents_that_collide_are_told_apart_and_zero_is_never_given() {
        let mut ids = Ids::default();
        assert_eq!(ids.place(u64::MAX, "a"), (u64::MAX, true));
        assert_eq!(ids.place(u64::MAX, "b"), (1, true));
        assert_eq!(ids.place(u64::MAX, "b"), (1, false));
    }
}
