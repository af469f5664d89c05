//! The budgets of one limit by their keys: as many as are allowed, those that were used last.
//!
//! A key is a hash of what it stands for, made with a secret of this process: clients choose headers, and must not
//! be able to choose a budget.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    budget::{Budget, Pace, Taken},
    metrics::Counters,
};

/// Locks that one limit is spread over, at most.
const SHARDS: usize = 16;
/// Budgets for which a lock of its own is worth while.
const PER_SHARD: usize = 64;

/// The budgets of one limit.
pub(super) struct Table {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    pub(super) counters: Counters,
}

/// Some of the budgets. Those that were used since the last change of generations are young; when there
/// are enough of them, the old ones are forgotten, and they become old.
#[derive(Default)]
struct Shard {
    young: HashMap<u64, Budget>,
    old: HashMap<u64, Budget>,
    /// Budgets of one generation.
    most: usize,
}

impl Table {
    pub(super) fn new(max_keys: usize, counters: Counters) -> Self {
        let shards = (max_keys / PER_SHARD).clamp(1, SHARDS);
        let most = (max_keys / shards / 2).max(1);
        let shard = || Mutex::new(Shard { most, ..Shard::default() });
        let shards = std::iter::repeat_with(shard).take(shards).collect();
        Self { hasher: RandomState::new(), shards, counters }
    }

    pub(super) fn key(&self, of: &impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }

    pub(super) fn take(&self, key: u64, pace: Pace, now: u64) -> Taken {
        self.with(key, now, |budget| budget.take(pace, now))
    }

    pub(super) fn give_back(&self, key: u64, pace: Pace, now: u64) {
        self.with(key, now, |budget| budget.give_back(pace));
    }

    /// What is left of a budget, and the time that [`Budget::left`] names.
    pub(super) fn left(&self, key: u64, pace: Pace, now: u64) -> (u64, u64) {
        let shard = self.shard(key);
        let known = shard.young.get(&key).or_else(|| shard.old.get(&key));
        known.copied().unwrap_or_default().left(pace, now)
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        // The upper half, as maps use the lower.
        let shard = (key >> 32) as usize % self.shards.len();
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, key: u64, now: u64, change: impl FnOnce(&mut Budget) -> R) -> R {
        let mut shard = self.shard(key);
        let forgotten = shard.make_young(key, now);
        let changed = change(shard.young.entry(key).or_default());
        drop(shard);
        self.counters.evictions.inc_by(forgotten);
        changed
    }
}

impl Shard {
    /// Makes room for a key among the young; how many budgets were lost that were not full.
    fn make_young(&mut self, key: u64, now: u64) -> u64 {
        if self.young.contains_key(&key) {
            return 0;
        }
        let mut forgotten = 0;
        if self.young.len() >= self.most {
            let old = mem::replace(&mut self.old, mem::take(&mut self.young));
            let lost = old.iter().filter(|(known, budget)| **known != key && !budget.is_full(now));
            forgotten = lost.count() as u64;
            self.young.extend(old.get(&key).map(|budget| (key, *budget)));
        }
        self.young.extend(self.old.remove(&key).map(|budget| (key, budget)));
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use undermesh_model::Rate;

    use super::*;

    fn pace() -> Pace {
        let one = NonZeroU32::MIN;
        Pace::new(Rate { count: one, per: Duration::from_secs(1), burst: one })
    }

    fn len(table: &Table) -> usize {
        let lens = table.shards.iter().map(|shard| {
            let shard = shard.lock().unwrap();
            shard.young.len() + shard.old.len()
        });
        lens.sum()
    }

    #[test]
    fn keys_have_budgets_of_their_own() {
        let table = Table::new(100, Counters::default());
        for key in ["a", "b"] {
            let key = table.key(&key);
            assert!(matches!(table.take(key, pace(), 0), Taken::Yes { .. }));
            assert!(matches!(table.take(key, pace(), 0), Taken::No { .. }));
        }
    }

    #[test]
    fn no_more_budgets_are_kept_than_allowed_and_what_is_lost_is_counted() {
        for max in [2, 3, 10, 1000, 5000] {
            let table = Table::new(max, Counters::default());
            for number in 0..3 * max {
                table.take(table.key(&number), pace(), 0);
                assert!(len(&table) <= max, "{max}");
            }
            let evictions = table.counters.evictions.get();
            assert_eq!(evictions as usize + len(&table), 3 * max, "{max}");
        }
    }

    #[test]
    fn a_budget_that_is_used_is_not_forgotten() {
        let table = Table::new(10, Counters::default());
        let used = table.key(&"used");
        assert!(matches!(table.take(used, pace(), 0), Taken::Yes { .. }));
        for number in 0..1000 {
            table.take(table.key(&number), pace(), 0);
            assert!(matches!(table.take(used, pace(), 0), Taken::No { .. }), "after {number}");
        }
    }

    #[test]
    fn forgetting_a_full_budget_is_no_loss() {
        let table = Table::new(10, Counters::default());
        for number in 0..1000_u64 {
            table.take(table.key(&number), pace(), number * 1_000_000_000);
        }
        assert!(table.counters.evictions.get() <= 10);
    }
}
