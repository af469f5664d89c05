//! Bounds on what all pods of the node ask at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Questions that may be under way. It also ends authorizers that are judged by one another.
const MAX_QUESTIONS: usize = 1024;
/// Bytes of bodies that may be held back.
const MAX_HELD: usize = 64 << 20;

static QUESTIONS: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);

/// One of the questions that may be under way.
pub(super) struct Place;

impl Place {
    pub(super) fn take() -> Option<Self> {
        take(&QUESTIONS, 1, MAX_QUESTIONS).then_some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        QUESTIONS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for bytes of bodies.
#[derive(Default)]
pub(super) struct Room(usize);

impl Room {
    /// Room for more of the same body; false where there is none.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let taken = take(&HELD, bytes, MAX_HELD);
        self.0 += if taken { bytes } else { 0 };
        taken
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

fn take(counter: &AtomicUsize, count: usize, most: usize) -> bool {
    let grown = |taken: usize| taken.checked_add(count).filter(|taken| *taken <= most);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_beyond_the_limit() {
        let counter = AtomicUsize::new(0);
        assert!(take(&counter, 3, 4) && !take(&counter, 2, 4) && take(&counter, 1, 4));
        assert!(!take(&counter, usize::MAX, usize::MAX));
    }
}
