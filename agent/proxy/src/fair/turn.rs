//! A task between its wake-up and the end of its turn: it is handed to the runtime once it has a place, and gives the
//! place on when it has been polled, has panicked, or is dropped.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use super::{CURRENT, Share};

/// Nothing to do.
const IDLE: u8 = 0;
/// It is to be polled, and has no place yet.
const WAITING: u8 = 1;
/// It has a place: the runtime will poll it.
const RELEASED: u8 = 2;
/// It has a place: it is being polled.
const POLLED: u8 = 3;
/// And has been woken meanwhile.
const AGAIN: u8 = 4;
/// It is gone.
const OVER: u8 = 5;

/// What wakes a task.
pub(super) struct Turn {
    pub(super) share: Share,
    state: AtomicU8,
    /// Wakes it in the runtime.
    task: Mutex<Option<Waker>>,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Written even where nothing changes: whoever polls next sees what came before.
        let woken = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some(match state {
                IDLE => WAITING,
                POLLED => AGAIN,
                other => other,
            })
        });
        if woken == Ok(IDLE) {
            let time = self.share.time();
            if time.places.take() {
                if !self.release() {
                    time.give_back();
                }
            } else {
                time.line_up(Arc::clone(self));
            }
        }
    }
}

impl Turn {
    /// Hands it to the runtime; a place for it has been taken. False if it is gone.
    pub(super) fn release(&self) -> bool {
        let released = self.change(WAITING, RELEASED);
        if released && let Some(task) = &*self.task() {
            task.wake_by_ref();
        }
        released
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that is polled by turns. It has to be spawned: while it has a place, it must be polled when it is woken.
pub(super) struct ByTurns<F> {
    turn: Arc<Turn>,
    waker: Waker,
    task: Option<Pin<Box<F>>>,
}

impl<F> ByTurns<F> {
    pub(super) fn new(share: Share, task: Pin<Box<F>>) -> Self {
        let (state, runtime) = (AtomicU8::new(IDLE), Mutex::default());
        let turn = Arc::new(Turn { share, state, task: runtime });
        Self { waker: Waker::from(Arc::clone(&turn)), turn, task: Some(task) }
    }
}

impl<F: Future> Future for ByTurns<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { turn, waker, task } = Pin::into_inner(self);
        let (Some(running), Some(polling)) = (task.as_mut(), Polling::begin(turn, cx)) else {
            return Poll::Pending;
        };
        let polled = running.as_mut().poll(&mut Context::from_waker(waker));
        if polled.is_ready() {
            // What it takes to end it is part of its turn.
            *task = None;
        }
        polling.end(polled.is_ready());
        polled
    }
}

impl<F> Drop for ByTurns<F> {
    fn drop(&mut self) {
        // What waits is thrown away when it is its turn.
        if self.turn.state.swap(OVER, Ordering::AcqRel) == RELEASED {
            self.turn.share.time().give_back();
        }
        let task = self.turn.task().take();
        drop(task);
    }
}

/// While a task is polled. Dropped before its end, it has panicked.
struct Polling<'a> {
    turn: &'a Arc<Turn>,
    began: Instant,
    over: bool,
}

impl<'a> Polling<'a> {
    /// Begins, if the task has a place or there is one.
    fn begin(turn: &'a Arc<Turn>, cx: &Context<'_>) -> Option<Self> {
        // Before the look at the state: whoever gives it a place afterwards wakes this one.
        let mut task = turn.task();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        drop(task);
        // Polled without having been woken by us: for the first time, for one.
        if turn.change(IDLE, WAITING) {
            let time = turn.share.time();
            if time.places.take() {
                turn.change(WAITING, RELEASED);
            } else {
                time.line_up(Arc::clone(turn));
            }
        }
        if !turn.change(RELEASED, POLLED) {
            return None;
        }
        turn.share.begin();
        CURRENT.set(Some(turn.share.clone()));
        Some(Self { turn, began: Instant::now(), over: true })
    }

    fn end(mut self, over: bool) {
        self.over = over;
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let Self { turn, began, over } = *self;
        CURRENT.set(None);
        let time = turn.share.time();
        let now = Instant::now();
        turn.share.charge(now.saturating_duration_since(began));
        if over {
            turn.state.store(OVER, Ordering::Release);
        } else if !turn.change(POLLED, IDLE) {
            // Woken meanwhile: among those who wait, before the place is given to one of them.
            turn.state.store(WAITING, Ordering::Release);
            time.line_up(Arc::clone(turn));
        }
        time.pass_on(now);
    }
}
