//! Pods share the threads that carry connections, and none of them gets more than its share while others want
//! theirs.
//!
//! A runtime is fair to tasks: a pod with ten times as many connections gets ten times as much, and whatever else is
//! to be done waits behind all of them. So only a few tasks at a time are in the runtime's hands; the others wait
//! here, where the one that comes next is of the pod that has been served least. While there are places enough,
//! nobody waits, and that costs a few atomic operations and two looks at a clock for each time that a task is
//! polled.
//!
//! [`places`] counts, [`lines`] says who is next, [`turn`] is a task's way through both.

mod lines;
mod places;
mod turn;

use std::{
    cell::Cell,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use hyper::rt::Executor;
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use undermesh_telemetry::Metric;

use lines::{Lines, Source};
use places::Places;
use turn::{ByTurns, Turn};

static HELD_BACK: Metric = Metric::counter(
    "undermesh_fairness_held_back",
    &[],
    "times that something of a pod had to let another pod's go first that had come later, \
     because that one [had been served less](limits-and-overload.md#fairness)",
);

/// How far ahead of others a pod may be served that has had less than they before. What wants little is served
/// at once, then, however much it has to do at a time; and others never wait longer for it than this.
const CREDIT: Duration = Duration::from_millis(1);
/// While somebody waits, the threads look this often at what has arrived: who has not been read cannot be served
/// first.
const LOOK: Duration = Duration::from_micros(50);

thread_local! {
    /// The pod that something is done for at this moment.
    static CURRENT: Cell<Option<Share>> = const { Cell::new(None) };
    /// When this thread last looked at what has arrived; nothing while it is about to.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whom something is done for at this moment, if it is for a pod.
fn current() -> Option<Share> {
    let current = CURRENT.take();
    CURRENT.set(current.clone());
    current
}

/// Runs `task`, which is to be spawned, as something of the pod that the caller does something for, if there is one.
pub(crate) fn inherit<F: Future>(task: F) -> impl Future<Output = F::Output> {
    let (current, task) = (current(), Box::pin(task));
    async move {
        match current {
            Some(share) => share.by_turns(task).await,
            None => task.await,
        }
    }
}

/// Spawns what hyper has to do for a connection.
#[derive(Clone, Copy)]
pub(crate) struct Inherited;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Inherited {
    fn execute(&self, task: F) {
        tokio::spawn(inherit(task));
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
        HELD_BACK.register(registry, metrics.held_back.clone());
        metrics
    }
}

/// The time of a node's threads.
pub(crate) struct Time {
    enabled: bool,
    places: Places,
    lines: Mutex<Lines<Arc<Turn>>>,
    /// How much the pods have been served that were served last, in nanoseconds: what a pod has that wants as
    /// much as it can get.
    level: AtomicU64,
    /// Places that are given back after a look at what has arrived.
    owed: AtomicUsize,
    pods: AtomicU64,
    held_back: Counter,
}

/// A pod's share of it, as somebody who asks the pod uses it.
#[derive(Clone)]
pub(crate) struct Share {
    account: Arc<Account>,
    source: Source,
}

/// What a pod has been served.
struct Account {
    time: Arc<Time>,
    pod: u64,
    /// Nanoseconds, in terms of [`Time::level`].
    served: Arc<AtomicU64>,
}

impl Time {
    /// Time of so many threads.
    pub(crate) fn new(threads: usize, enabled: bool, metrics: FairMetrics) -> Arc<Self> {
        // Threads take tasks from each other, and should find some; one alone has to find just the next.
        let places = if threads > 1 { threads * 2 } else { 1 };
        Arc::new(Self {
            enabled,
            places: Places::new(places),
            lines: Mutex::new(Lines::new()),
            level: AtomicU64::new(0),
            owed: AtomicUsize::new(0),
            pods: AtomicU64::new(0),
            held_back: metrics.held_back,
        })
    }

    /// A share for a new pod.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let pod = self.pods.fetch_add(1, Ordering::Relaxed);
        let account = Account { time: Arc::clone(self), pod, served: Arc::default() };
        Share { account: Arc::new(account), source: None }
    }

    /// How long the one who has waited longest has.
    pub(crate) fn delay(&self) -> Duration {
        self.lines().oldest().map(|since| since.elapsed()).unwrap_or_default()
    }

    fn lines(&self) -> MutexGuard<'_, Lines<Arc<Turn>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a task into its pod's line; it comes out with a place.
    fn line_up(self: &Arc<Self>, turn: Arc<Turn>) {
        let share = turn.share.clone();
        share.catch_up();
        let mut lines = self.lines();
        let account = (share.account.pod, &share.account.served);
        lines.push(account, share.source, Instant::now(), turn);
        let is_room = self.places.wait();
        drop(lines);
        if is_room {
            self.admit();
        }
    }

    /// Gives free places to those who come next.
    fn admit(&self) {
        loop {
            let mut lines = self.lines();
            if !self.places.admit() {
                return;
            }
            let next = lines.pop();
            drop(lines);
            let Some(next) = next else { return };
            if next.task.release() {
                self.held_back.inc_by(next.overtakes.into());
            } else {
                // It is gone, and the place is free again.
                self.places.give_back();
            }
        }
    }

    /// Gives a place back to whoever comes next.
    fn give_back(&self) {
        if self.places.give_back() {
            self.admit();
        }
    }

    /// Gives a place back at the end of a turn. Where that is due, it goes to whoever comes next after a look at
    /// what has arrived.
    fn pass_on(self: &Arc<Self>, now: Instant) {
        let due = |looked: Instant| now.saturating_duration_since(looked) >= LOOK;
        if !self.places.are_wanted() || !LOOKED.get().is_none_or(due) {
            return self.give_back();
        }
        self.owed.fetch_add(1, Ordering::AcqRel);
        // A thread looks when it has nothing else to do: until then, no place is given on that passes here.
        LOOKED.set(None);
        // The runtime wakes who has yielded when it has looked, and at once where there is no runtime.
        let waker = Waker::from(Arc::clone(self));
        let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
    }
}

/// The thread has looked at what has arrived.
impl Wake for Time {
    fn wake(self: Arc<Self>) {
        LOOKED.set(Some(Instant::now()));
        for _ in 0..self.owed.swap(0, Ordering::AcqRel) {
            self.give_back();
        }
    }
}

impl Share {
    /// The pod's share, as the peer at this address uses it.
    pub(crate) fn of(&self, source: IpAddr) -> Self {
        Self { source: Some(source), ..self.clone() }
    }

    /// As whoever uses it that something is done for at this moment.
    pub(crate) fn here(&self) -> Self {
        let of_the_pod = |current: &Self| Arc::ptr_eq(&current.account, &self.account);
        current().filter(of_the_pod).unwrap_or_else(|| self.clone())
    }

    /// Runs `task`, which is to be spawned, as something of the pod: it waits where the pod has had its share.
    pub(crate) fn spend<F: Future>(self, task: F) -> impl Future<Output = F::Output> {
        // Moved once and for all: a future has room for all that it is made of.
        self.by_turns(Box::pin(task))
    }

    async fn by_turns<F: Future>(self, task: Pin<Box<F>>) -> F::Output {
        if self.time().enabled { ByTurns::new(self, task).await } else { task.await }
    }

    fn time(&self) -> &Arc<Time> {
        &self.account.time
    }

    /// Nobody saves up more than a credit.
    fn catch_up(&self) {
        let least = self.time().level.load(Ordering::Relaxed).saturating_sub(nanoseconds(CREDIT));
        if self.served() < least {
            self.account.served.fetch_max(least, Ordering::Relaxed);
        }
    }

    /// Something of it is served.
    fn begin(&self) {
        self.catch_up();
        let (level, served) = (&self.time().level, self.served());
        if level.load(Ordering::Relaxed) < served {
            level.fetch_max(served, Ordering::Relaxed);
        }
    }

    fn served(&self) -> u64 {
        self.account.served.load(Ordering::Relaxed)
    }

    fn charge(&self, spent: Duration) {
        self.account.served.fetch_add(nanoseconds(spent), Ordering::Relaxed);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
