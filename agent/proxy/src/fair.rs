//! Pods share the threads that carry connections, and none of them gets more than its share while others want
//! theirs.
//!
//! A runtime is fair to tasks: a pod with ten times as many connections gets ten times as much. Here what is
//! shared is time, between pods. While there is enough of it, that costs two looks at a clock for each time that
//! a connection has something to do; once the threads are busy, a pod that has had its share waits for
//! the next slice, which is never far.
//!
//! [`Share::spend`] measures and holds back what a connection does; [`level`] says what a share is.

mod level;

use std::{
    cell::Cell,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::runtime::Handle;

use level::{Usage, level};

/// How long a slice of time is. Whoever has had its share waits this long at most.
const SLICE: Duration = Duration::from_millis(2);
/// The threads are busy where they have been so for this much of the time, in percent, and no longer where it is
/// less.
const BUSY: (u64, u64) = (80, 60);
/// How much a slice weighs in what a pod is known to use: one of so many.
const MEMORY: u64 = 8;

thread_local! {
    /// The pod that something is done for at this moment.
    static CURRENT: Cell<Option<Arc<Share>>> = const { Cell::new(None) };
}

/// Runs `task` as something of the pod that the caller does something for, if there is one.
pub(crate) fn inherit<F: Future>(task: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.take();
    CURRENT.set(current.clone());
    async move {
        match current {
            Some(share) => share.spend(task).await,
            None => task.await,
        }
    }
}

/// What fairness has done.
#[derive(Clone, Debug, Default)]
pub(crate) struct FairMetrics {
    held_back: Counter,
}

impl FairMetrics {
    /// Registers the metrics; their names are part of the product's interface.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "undermesh_fairness_held_back",
            "Times that something of a pod had to wait because others wanted their share of the proxy's time",
            metrics.held_back.clone(),
        );
        metrics
    }
}

/// The time of a node's threads.
pub(crate) struct Time {
    epoch: Instant,
    /// Nanoseconds of all threads in a slice.
    capacity: u64,
    enabled: bool,
    /// The slice that is being counted.
    slice: AtomicU64,
    /// What a pod may use of a slice.
    level: AtomicU64,
    /// A task turns the slices.
    turning: AtomicBool,
    state: Mutex<State>,
    held_back: Counter,
    runtime: Handle,
}

#[derive(Default)]
struct State {
    shares: Vec<Weak<Share>>,
    /// What all pods have used of late, of a slice.
    total: u64,
    /// What the threads were busy for of late, of a slice: that, and what it takes to find out what is to be done.
    busy: u64,
    /// What they were busy for in all, as of the last look.
    seen: u64,
}

/// What one pod has used.
pub(crate) struct Share {
    time: Arc<Time>,
    /// Of this slice.
    used: AtomicU64,
    /// Of slices of late.
    usual: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl Time {
    /// Time of so many threads.
    pub(crate) fn new(
        threads: usize,
        enabled: bool,
        runtime: &Handle,
        metrics: FairMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            epoch: Instant::now(),
            capacity: SLICE.as_nanos() as u64 * threads.max(1) as u64,
            enabled,
            slice: AtomicU64::new(0),
            level: AtomicU64::new(u64::MAX),
            turning: AtomicBool::new(false),
            state: Mutex::default(),
            held_back: metrics.held_back,
            runtime: runtime.clone(),
        })
    }

    /// A share for a new pod.
    pub(crate) fn share(self: &Arc<Self>) -> Arc<Share> {
        let share = Arc::new(Share {
            time: Arc::clone(self),
            used: AtomicU64::new(0),
            usual: AtomicU64::new(0),
            waiting: Mutex::default(),
        });
        let mut state = self.lock();
        state.shares.retain(|share| share.strong_count() > 0);
        state.shares.push(Arc::downgrade(&share));
        share
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds for which the threads were busy, since they are there.
    fn busy(&self) -> u64 {
        let metrics = self.runtime.metrics();
        let threads = (0..metrics.num_workers()).map(|one| metrics.worker_total_busy_duration(one));
        u64::try_from(threads.sum::<Duration>().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Begins the slice that `now` is in, if nobody has.
    fn turn(self: &Arc<Self>, now: u64) {
        let current = now / SLICE.as_nanos() as u64;
        let counted = self.slice.load(Ordering::Relaxed);
        let order = Ordering::Relaxed;
        if current <= counted
            || self.slice.compare_exchange(counted, current, order, order).is_err()
        {
            return;
        }
        // Slices in which nothing was done weigh as others do.
        let woken = self.lock().turn(self, current - counted);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Goes on turning while somebody may wait.
    fn keep_turning(self: &Arc<Self>) {
        if self.turning.swap(true, Ordering::SeqCst) {
            return;
        }
        let time = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(SLICE).await;
                let Some(time) = time.upgrade() else { return };
                time.turn(time.now());
                if time.has_calmed_down() {
                    return;
                }
            }
        });
    }

    /// Whether there is nothing to turn for. A level that another thread has set in the meantime is seen here, or
    /// that thread has seen that nobody turns.
    fn has_calmed_down(&self) -> bool {
        let unlimited = || self.level.load(Ordering::SeqCst) == u64::MAX;
        if !unlimited() {
            return false;
        }
        self.turning.store(false, Ordering::SeqCst);
        if !unlimited() && !self.turning.swap(true, Ordering::SeqCst) {
            return false;
        }
        // Nobody would wake whoever has come to wait in between.
        let woken: Vec<_> = self.lock().living().flat_map(|share| share.take()).collect();
        woken.into_iter().for_each(Waker::wake);
        true
    }
}

impl State {
    fn living(&self) -> impl Iterator<Item = Arc<Share>> {
        self.shares.iter().filter_map(Weak::upgrade)
    }

    /// Counts what was used of the slices that are over; whoever has waited may go on.
    fn turn(&mut self, time: &Arc<Time>, slices: u64) -> Vec<Waker> {
        let mut woken = Vec::new();
        let mut usages = Vec::with_capacity(self.shares.len());
        let mut total = 0_u64;
        for share in self.living() {
            let used = share.used.swap(0, Ordering::Relaxed) / slices;
            let waited = share.take();
            total = total.saturating_add(used);
            let usual = averaged(share.usual.load(Ordering::Relaxed), used, slices);
            share.usual.store(usual, Ordering::Relaxed);
            usages.push(Usage { usual, wants_more: !waited.is_empty() });
            woken.extend(waited);
        }
        self.total = averaged(self.total, total, slices);
        let seen = time.busy();
        self.busy = averaged(self.busy, seen.saturating_sub(self.seen) / slices, slices);
        self.seen = seen;
        let limited = time.level.load(Ordering::Relaxed) != u64::MAX;
        let threshold = if limited { BUSY.1 } else { BUSY.0 };
        // Alone, nobody has to share.
        let several = usages.iter().filter(|usage| usage.usual > 0).count() > 1;
        let busy = several && self.busy >= time.capacity / 100 * threshold;
        // What of the threads' time gets to pods.
        let part = self.total as f64 / self.busy.max(1) as f64;
        let capacity = (time.capacity as f64 * part.min(1.0)) as u64;
        let level = if busy { level(&mut usages, capacity) } else { u64::MAX };
        time.level.store(level, Ordering::SeqCst);
        if busy {
            time.keep_turning();
        }
        woken
    }
}

/// A running average over slices.
fn averaged(before: u64, now: u64, slices: u64) -> u64 {
    let slices = slices.min(MEMORY);
    before - before * slices / MEMORY + now * slices / MEMORY
}

impl Share {
    /// Runs `task` as something of the pod: it waits where the pod has had its share.
    pub(crate) async fn spend<F: Future>(self: Arc<Self>, task: F) -> F::Output {
        if !self.time.enabled {
            return task.await;
        }
        let mut task = pin!(task);
        poll_fn(|cx| {
            let time = &self.time;
            let began = time.now();
            time.turn(began);
            if self.is_used_up() {
                time.held_back.inc();
                self.wait(cx.waker());
                // Between the look and now, everybody who waits may have been woken.
                if self.is_used_up() {
                    return Poll::Pending;
                }
            }
            let before = CURRENT.replace(Some(Arc::clone(&self)));
            let polled = task.as_mut().poll(cx);
            CURRENT.set(before);
            self.used.fetch_add(time.now().saturating_sub(began), Ordering::Relaxed);
            polled
        })
        .await
    }

    fn is_used_up(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.time.level.load(Ordering::Relaxed)
    }

    fn take(&self) -> Vec<Waker> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(waker.clone());
    }
}

#[cfg(test)]
mod tests;
