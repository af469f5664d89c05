//! Who waits, and who is next: the pod that has been served least (start-time fair queueing, Goyal, Vin and Cheng
//! 1996), and of its own and its peers' connections those that come next in turn.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Who asks a pod; its own application where it is nobody.
pub(super) type Source = Option<IpAddr>;

/// A line for every pod of which something waits.
pub(super) struct Lines<T> {
    lines: BTreeMap<u64, Line<T>>,
}

struct Line<T> {
    /// The pod's time of service.
    served: Arc<AtomicU64>,
    sources: BTreeMap<Source, VecDeque<(Instant, T)>>,
    /// Whose turn it was last.
    last: Source,
}

/// Who comes next.
pub(super) struct Next<T> {
    pub(super) task: T,
    /// Something of another pod has waited for longer.
    pub(super) overtakes: bool,
}

impl<T> Lines<T> {
    pub(super) const fn new() -> Self {
        Self { lines: BTreeMap::new() }
    }

    /// Puts something of a pod into its line.
    pub(super) fn push(
        &mut self,
        (pod, served): (u64, &Arc<AtomicU64>),
        source: Source,
        since: Instant,
        task: T,
    ) {
        let line = self.lines.entry(pod).or_insert_with(|| Line {
            served: Arc::clone(served),
            sources: BTreeMap::new(),
            last: None,
        });
        line.sources.entry(source).or_default().push_back((since, task));
    }

    /// Takes the next.
    pub(super) fn pop(&mut self) -> Option<Next<T>> {
        let least = |(_, line): &(&u64, &Line<T>)| line.served.load(Ordering::Relaxed);
        let pod = *self.lines.iter().min_by_key(least)?.0;
        let line = self.lines.get_mut(&pod)?;
        let (since, task) = line.pop()?;
        if line.sources.is_empty() {
            self.lines.remove(&pod);
        }
        let mut others = self.lines.iter().filter(|&(&other, _)| other != pod);
        let overtakes = others.any(|(_, line)| line.head().is_some_and(|head| head < since));
        Some(Next { task, overtakes })
    }

    /// Since when the one who has waited longest has.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.lines.values().filter_map(Line::oldest).min()
    }
}

impl<T> Line<T> {
    /// What waits of the source after the last, in a circle.
    fn next(&self) -> Option<(Source, &VecDeque<(Instant, T)>)> {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        let next = self.sources.range(after).next().or_else(|| self.sources.iter().next());
        next.map(|(source, waiting)| (*source, waiting))
    }

    /// Since when the one who comes next has waited.
    fn head(&self) -> Option<Instant> {
        Some(self.next()?.1.front()?.0)
    }

    fn pop(&mut self) -> Option<(Instant, T)> {
        self.last = self.next()?.0;
        let waiting = self.sources.get_mut(&self.last)?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.sources.remove(&self.last);
        }
        first
    }

    fn oldest(&self) -> Option<Instant> {
        self.sources.values().filter_map(|waiting| Some(waiting.front()?.0)).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Serves lines of so much work, each piece of which takes as long as it says, until one is empty; what each pod
    /// was given.
    fn serve(pods: &[Vec<u64>]) -> Vec<u64> {
        let mut lines = Lines::new();
        let served: Vec<_> = pods.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
        let now = Instant::now();
        for (pod, work) in pods.iter().enumerate() {
            for &piece in work {
                lines.push((pod as u64, &served[pod]), None, now, (pod, piece));
            }
        }
        while lines.lines.len() == pods.len() {
            let (pod, piece) = lines.pop().unwrap().task;
            served[pod].fetch_add(piece, Ordering::Relaxed);
        }
        served.iter().map(|served| served.load(Ordering::Relaxed)).collect()
    }

    proptest! {
        /// The theorem of fair queueing.
        #[test]
        fn pods_that_all_want_more_differ_by_no_more_than_a_piece(
            pods in prop::collection::vec(prop::collection::vec(1u64..1000, 1..50), 2..8),
        ) {
            let served = serve(&pods);
            let longest = *pods.iter().flatten().max().unwrap();
            let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
            prop_assert!(most - least <= longest, "{served:?}");
        }

        #[test]
        fn whatever_is_put_in_comes_out_and_in_order_of_its_source(
            tasks in prop::collection::vec((0u64..4, 0u8..4), 0..100),
        ) {
            let mut lines = Lines::new();
            let served = Arc::new(AtomicU64::new(0));
            let now = Instant::now();
            for (number, &(pod, source)) in tasks.iter().enumerate() {
                let address = (source > 0).then(|| IpAddr::from([10, 0, 0, source]));
                lines.push((pod, &served), address, now, (pod, source, number));
            }
            let mut out: Vec<_> = std::iter::from_fn(|| Some(lines.pop()?.task)).collect();
            prop_assert_eq!(out.len(), tasks.len());
            // Stable: within a source, numbers must rise already.
            out.sort_by_key(|&(pod, source, _)| (pod, source));
            prop_assert!(out.is_sorted());
            prop_assert!(lines.lines.is_empty());
        }
    }

    #[test]
    fn sources_take_turns() {
        let mut lines = Lines::new();
        let (served, now) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let sources = [None, Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2]))];
        for (source, count) in sources.into_iter().zip([1, 3, 1]) {
            for _ in 0..count {
                lines.push((1, &served), source, now, source);
            }
        }
        let order: Vec<_> = std::iter::from_fn(|| Some(lines.pop()?.task)).collect();
        let [own, one, other] = sources;
        assert_eq!(order, [one, other, own, one, one]);
    }

    #[test]
    fn overtaking_is_noticed_and_only_between_pods() {
        let mut lines = Lines::new();
        let [busy, idle] = [5, 0].map(|served| Arc::new(AtomicU64::new(served)));
        let now = Instant::now();
        let later = now + Duration::from_millis(1);
        lines.push((1, &busy), None, now, "first");
        lines.push((1, &busy), None, now, "second");
        lines.push((2, &idle), None, later, "third");
        assert_eq!(lines.oldest(), Some(now));
        let order: Vec<_> =
            std::iter::from_fn(|| lines.pop()).map(|next| (next.task, next.overtakes)).collect();
        assert_eq!(order, [("third", true), ("first", false), ("second", false)]);
        assert_eq!(lines.oldest(), None);
    }
}
