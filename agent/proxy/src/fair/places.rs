//! How many tasks may be on their way through the threads at a time, and how many wait for that: one word, so that
//! nobody waits for a place that nobody gives back.

use std::sync::atomic::{AtomicU64, Ordering};

/// One task that waits; those that have a place are counted below it.
const WAITING: u64 = 1 << 32;

/// Places, all free at first.
pub(super) struct Places {
    word: AtomicU64,
    limit: u64,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { word: AtomicU64::new(0), limit: limit as u64 }
    }

    fn has_room(&self, word: u64) -> bool {
        word % WAITING < self.limit
    }

    /// Takes a place, if there is one that nobody waits for.
    pub(super) fn take(&self) -> bool {
        self.update(|word| (word < WAITING && self.has_room(word)).then_some(word + 1))
    }

    /// Gives a place back. Somebody waits where it says so, and is to be [admitted](Self::admit).
    pub(super) fn give_back(&self) -> bool {
        self.word.fetch_sub(1, Ordering::AcqRel) >= WAITING
    }

    /// Waits. There is room where it says so, and somebody is to be admitted.
    pub(super) fn wait(&self) -> bool {
        self.has_room(self.word.fetch_add(WAITING, Ordering::AcqRel))
    }

    /// Gives a place to one of those that wait, if there are both.
    pub(super) fn admit(&self) -> bool {
        self.update(|word| (word >= WAITING && self.has_room(word)).then(|| word - WAITING + 1))
    }

    /// Whether somebody waits.
    pub(super) fn are_wanted(&self) -> bool {
        self.word.load(Ordering::Relaxed) >= WAITING
    }

    fn update(&self, change: impl FnMut(u64) -> Option<u64>) -> bool {
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).is_ok()
    }

    #[cfg(test)]
    pub(super) fn are_all_free(&self) -> bool {
        self.word.load(Ordering::Acquire) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_overtakes_who_waits() {
        let places = Places::new(2);
        assert!(places.take() && places.take());
        assert!(!places.take());
        assert!(!places.wait());
        assert!(!places.admit());
        assert!(places.give_back());
        assert!(!places.take(), "the place is for who waits");
        assert!(places.admit());
        assert!(!places.are_wanted());
        assert!(!places.give_back() && !places.give_back());
        assert!(places.are_all_free());
    }

    #[test]
    fn who_comes_to_wait_where_there_is_room_is_told_so() {
        let places = Places::new(1);
        assert!(places.wait());
        assert!(places.admit());
        assert!(!places.wait());
    }
}
