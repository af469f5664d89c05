//! Weighted round robin: the earliest deadline first.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Indices, each due again a time after it was taken that is shorter the higher its weight.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BinaryHeap<Reverse<Entry>>,
    now: f64,
    taken: u64,
}

#[derive(Debug)]
struct Entry {
    deadline: f64,
    /// Who was put back first is taken first where deadlines are the same.
    order: u64,
    index: usize,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.deadline.total_cmp(&other.deadline).then(self.order.cmp(&other.order))
    }
}

impl Schedule {
    /// A schedule of `0..count`, after so many turns that two of them do not run in step.
    pub(super) fn new(count: usize, turns: usize, mut weight: impl FnMut(usize) -> f64) -> Self {
        let mut schedule = Self::default();
        for index in 0..count {
            schedule.put(index, weight(index));
        }
        for _ in 0..turns {
            schedule.next(&mut weight);
        }
        schedule
    }

    /// Whose turn it is. The weight for its next turn is asked for now.
    pub(super) fn next(&mut self, mut weight: impl FnMut(usize) -> f64) -> Option<usize> {
        let Reverse(entry) = self.due.pop()?;
        self.now = entry.deadline;
        self.put(entry.index, weight(entry.index));
        Some(entry.index)
    }

    fn put(&mut self, index: usize, weight: f64) {
        // A weight of nothing would never come up again.
        let deadline = self.now + 1.0 / weight.max(1e-6);
        self.taken += 1;
        self.due.push(Reverse(Entry { deadline, order: self.taken, index }));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn turns_follow_weights_to_within_one_turn(
            weights in prop::collection::vec(1_u32..20, 1..8),
            skip in 0_usize..40,
        ) {
            let weight = |index: usize| f64::from(weights[index]);
            let total: u32 = weights.iter().sum();
            let mut schedule = Schedule::new(weights.len(), skip, weight);
            let rounds = 10;
            let mut turns = vec![0_u32; weights.len()];
            for _ in 0..total * rounds {
                turns[schedule.next(weight).unwrap()] += 1;
            }
            for (turns, weight) in turns.iter().zip(&weights) {
                let wanted = weight * rounds;
                prop_assert!(turns.abs_diff(wanted) <= 2, "{turns} of {wanted}");
            }
        }
    }

    #[test]
    fn equal_weights_take_turns() {
        let mut schedule = Schedule::new(3, 0, |_| 1.0);
        let turns: Vec<_> = (0..6).filter_map(|_| schedule.next(|_| 1.0)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn nobody_is_nobodys_turn() {
        assert_eq!(Schedule::new(0, 5, |_| 1.0).next(|_| 1.0), None);
    }
}
