//! How much of what pods are asked for is served: RateLimitPolicies of the node's pods, counted.
//!
//! Budgets are this node's own: those of a workload are shared by its pods here, and no other node knows of them.
//! They belong to what a rule says, not to a snapshot, so that a new configuration does not fill them up.

mod budget;
mod metrics;
mod table;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use undermesh_model::Rate;
use undermesh_snapshot::{CompiledLimit, Snapshot};

use budget::{Pace, Taken};
pub(crate) use metrics::LimitMetrics;
use metrics::Outcome;
use table::Table;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    Requests,
    Connections,
}

impl Counted {
    pub(crate) fn rate(self, limit: &CompiledLimit) -> Option<Rate> {
        match self {
            Self::Requests => limit.limits.requests,
            Self::Connections => limit.limits.connections,
        }
    }
}

/// The budgets of a node.
pub(crate) struct Limits {
    /// Time is counted from here.
    epoch: Instant,
    tables: RwLock<HashMap<u64, Arc<Table>>>,
    metrics: LimitMetrics,
}

/// How one limit stands after something was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) limit: &'a CompiledLimit,
    /// How many more may come at once.
    pub(crate) remaining: u64,
    /// Time until the budget is full again, or, where it was exceeded, until there is room for one.
    pub(crate) reset: Duration,
}

/// Whether something may pass.
#[derive(Debug)]
pub(crate) struct Verdict<'a> {
    /// The limit that makes it wait longest, where it may not pass.
    pub(crate) refused: Option<Standing<'a>>,
    /// The limit of which least is left, where it may pass.
    pub(crate) tightest: Option<Standing<'a>>,
}

impl Limits {
    pub(crate) fn new(metrics: LimitMetrics) -> Self {
        Self { epoch: Instant::now(), tables: RwLock::default(), metrics }
    }

    /// Takes one from the budget of each limit, or, where one of them is used up, from none. `key` names the
    /// budget of a limit.
    pub(crate) fn take<'a, K: std::hash::Hash>(
        &self,
        counted: Counted,
        limits: impl Iterator<Item = &'a CompiledLimit>,
        key: impl Fn(&'a CompiledLimit) -> K,
    ) -> Verdict<'a> {
        self.take_at(self.now(), counted, limits, key)
    }

    fn take_at<'a, K: std::hash::Hash>(
        &self,
        now: u64,
        counted: Counted,
        limits: impl Iterator<Item = &'a CompiledLimit>,
        key: impl Fn(&'a CompiledLimit) -> K,
    ) -> Verdict<'a> {
        let mut asked = Vec::new();
        for limit in limits {
            let Some(rate) = counted.rate(limit) else { continue };
            let (pace, table) = (Pace::new(rate), self.table(limit));
            let key = table.key(&(counted, key(limit)));
            let taken = table.take(key, pace, now);
            asked.push(Asked { limit, table, key, pace, taken });
        }
        let refused = asked.iter().filter(|one| one.is_refused());
        let refused = refused.map(Asked::standing).max_by_key(|one| one.reset);
        for one in &asked {
            one.settle(now, refused.is_some());
        }
        let passed = asked.iter().filter(|one| !one.limit.shadow);
        let tightest = passed.map(Asked::standing).min_by_key(|one| one.remaining);
        Verdict { tightest: tightest.filter(|_| refused.is_none()), refused }
    }

    /// How a limit stands, for who takes nothing; `None` where it has no budget of the kind.
    pub(crate) fn standing<'a>(
        &self,
        counted: Counted,
        limit: &'a CompiledLimit,
        key: &impl std::hash::Hash,
    ) -> Option<Standing<'a>> {
        let rate = counted.rate(limit)?;
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let left = tables
            .get(&limit.budgets)
            .map(|table| table.left(table.key(&(counted, key)), Pace::new(rate), self.now()));
        // Nothing was taken yet.
        let (remaining, reset) = left.unwrap_or((u64::from(rate.burst.get()), 0));
        Some(Standing { limit, remaining, reset: Duration::from_nanos(reset) })
    }

    /// Something was refused for its size.
    pub(crate) fn record_too_large(&self, limit: &CompiledLimit) {
        self.metrics.record(limit, Outcome::TooLarge);
    }

    /// Forgets the budgets of rules that no pod of this node has any more.
    pub(crate) fn retain(&self, snapshot: &Snapshot) {
        let limits = snapshot.policies.values().flat_map(|policy| &policy.limits);
        let known: HashSet<u64> = limits.map(|limit| limit.budgets).collect();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|id, _| known.contains(id));
    }

    fn table(&self, limit: &CompiledLimit) -> Arc<Table> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(&limit.budgets) {
            return Arc::clone(table);
        }
        drop(tables);
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let table = tables.entry(limit.budgets).or_insert_with(|| {
            Arc::new(Table::new(limit.limits.max_keys, self.metrics.counters(limit)))
        });
        Arc::clone(table)
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// One limit, asked.
struct Asked<'a> {
    limit: &'a CompiledLimit,
    table: Arc<Table>,
    key: u64,
    pace: Pace,
    taken: Taken,
}

impl<'a> Asked<'a> {
    fn is_refused(&self) -> bool {
        !self.limit.shadow && matches!(self.taken, Taken::No { .. })
    }

    fn standing(&self) -> Standing<'a> {
        let (remaining, reset) = match self.taken {
            Taken::Yes { remaining, full_in } => (remaining, full_in),
            Taken::No { wait } => (0, wait),
        };
        Standing { limit: self.limit, remaining, reset: Duration::from_nanos(reset) }
    }

    /// Counts what became of it, and gives back what was taken for something that did not pass.
    fn settle(&self, now: u64, refused: bool) {
        let counters = &self.table.counters;
        match self.taken {
            Taken::No { .. } if self.limit.shadow => counters.would_limit.inc(),
            Taken::No { .. } => counters.limited.inc(),
            Taken::Yes { .. } if refused => {
                self.table.give_back(self.key, self.pace, now);
                0
            }
            Taken::Yes { .. } => counters.passed.inc(),
        };
    }
}

#[cfg(test)]
mod tests;
