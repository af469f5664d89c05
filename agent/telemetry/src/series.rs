//! Which label sets Istio's metrics keep apart: a bounded number of them, each for as long as
//! somebody counts in it and the workloads that it names exist.

use std::{
    collections::HashMap,
    fmt::{self, Debug},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder},
    metrics::counter::Counter,
};

use crate::labels::EndLabels;

/// The labels that a metric has besides those of [`EndLabels`].
pub(crate) trait OwnLabels:
    Clone + Debug + PartialEq + Eq + Hash + EncodeLabelSet + Send + Sync + 'static
{
    /// What of them stays beyond the bound: those that have few values.
    #[must_use]
    fn overflow(&self) -> Self;
}

/// A label set. Both ends are stored once for all series that share them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Series<L> {
    pub(crate) ends: Arc<EndLabels>,
    pub(crate) own: L,
}

impl<L: OwnLabels> EncodeLabelSet for Series<L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.ends.encode(encoder)?;
        self.own.encode(encoder)
    }
}

/// A label set in use. It is not evicted as long as this lives.
#[derive(Debug)]
pub(crate) struct Held<L, C> {
    pub(crate) series: Series<L>,
    /// What its users share.
    pub(crate) counters: Arc<C>,
}

/// Every label set, each with what its users share: counters, which need not be looked for again.
#[derive(Debug)]
pub(crate) struct SeriesTable<L, C> {
    known: Mutex<Known<L, C>>,
    most: usize,
    overflow: Counter,
}

/// Label sets, and what their users share.
type Sets<L, C> = HashMap<Series<L>, Arc<C>>;

#[derive(Debug)]
struct Known<L, C> {
    sets: Sets<L, C>,
    /// Those of what does not fit: as many as there are values of what stays of labels.
    overflow: Sets<L, C>,
}

impl<L, C> Default for Known<L, C> {
    fn default() -> Self {
        Self { sets: HashMap::new(), overflow: HashMap::new() }
    }
}

impl<L: OwnLabels, C: Default> SeriesTable<L, C> {
    /// At most `most` label sets; `overflow` counts what did not fit.
    pub(crate) fn new(most: usize, overflow: &Counter) -> Self {
        Self { known: Mutex::default(), most, overflow: overflow.clone() }
    }

    /// Holds a label set, or beyond the bound the overflow's.
    pub(crate) fn hold(&self, ends: &Arc<EndLabels>, own: L) -> Held<L, C> {
        let mut known = self.lock();
        let series = Series { ends: Arc::clone(ends), own };
        if let Some((series, counters)) = known.sets.get_key_value(&series) {
            return Held { series: series.clone(), counters: Arc::clone(counters) };
        }
        if known.sets.len() < self.most {
            let counters = known.sets.entry(series.clone()).or_default();
            return Held { series, counters: Arc::clone(counters) };
        }
        self.overflow.inc();
        let ends = Arc::new(series.ends.overflow());
        let series = Series { ends, own: series.own.overflow() };
        let counters = Arc::clone(known.overflow.entry(series.clone()).or_default());
        Held { series, counters }
    }

    /// Every label set, the overflow's included.
    pub(crate) fn all(&self) -> Vec<(Series<L>, Arc<C>)> {
        let known = self.lock();
        let all = known.sets.iter().chain(&known.overflow);
        all.map(|(series, counters)| (series.clone(), Arc::clone(counters))).collect()
    }

    /// Drops the series of workloads that `keep` disowns and that nobody holds, and says how many
    /// those were. `remove` is told of each.
    pub(crate) fn retain(
        &self,
        keep: impl Fn(&str, &str) -> bool,
        mut remove: impl FnMut(&Series<L>),
    ) -> usize {
        let mut known = self.lock();
        let before = known.sets.len();
        known.sets.retain(|series, counters| {
            // New holders come only through `hold`, which needs the lock.
            let stays = Arc::strong_count(counters) > 1 || !series.ends.is_gone(&keep);
            if !stays {
                remove(series);
            }
            stays
        });
        before - known.sets.len()
    }

    fn lock(&self) -> MutexGuard<'_, Known<L, C>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
