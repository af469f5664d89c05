//! The HTTP connections of one client pod to one endpoint.
//!
//! A request takes an open connection, opens one, or waits: for a connection that somebody gives back,
//! for one that is being opened and has room for it, or for leave to open one.
//!
//! **Invariant**: the lock is held to look and to book, never across an await, and nothing that gives
//! something back to the pool when it is dropped is dropped under it.
//!
//! Source: Envoy, connection pooling.

mod http1;
mod http2;
mod opening;
mod reap;
mod rules;
mod send;
mod slot;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

use super::{
    SendError,
    limits::{CONNECTIONS, Held, Limits, PENDING},
    metrics::{ClusterMetrics, Pooled, Raised},
};
use crate::{error::Failure, follow::note};
use http1::{Http1, Idle};
use http2::{Multiplexed, Stream};
use opening::Opening;
use slot::Slot;
pub(super) use {opening::Via, rules::Rules, send::Sending};

/// What the pools of one cluster share.
pub(super) struct Terms {
    pub(super) limits: Limits,
    pub(super) metrics: Arc<ClusterMetrics>,
    /// Whoever closes idle connections is told of new ones.
    rules: watch::Sender<Rules>,
}

/// The version of HTTP that an endpoint is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// The connections to one endpoint.
pub(super) struct Pool {
    terms: Arc<Terms>,
    /// Streams that the peer allowed on its last HTTP/2 connection; a new one does not say at once.
    peer_streams: AtomicUsize,
    /// A connection is to be closed earlier than whoever looks after that has planned to look.
    earlier: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Connections without a request; the one used last is used next.
    idle: Vec<Idle>,
    multiplexed: Vec<Arc<Multiplexed>>,
    /// All that are open or being opened.
    http1: usize,
    http2: usize,
    /// Those of HTTP/2 that are being opened.
    opening: usize,
    waiting_http1: VecDeque<oneshot::Sender<Grant>>,
    waiting_http2: VecDeque<oneshot::Sender<Grant>>,
    /// The endpoint is none any more: nothing is kept.
    closed: bool,
    /// A task looks after what is idle, next at this time.
    reaping: Option<Instant>,
}

/// A connection, or a stream of one, for one request. Given back when it is dropped unused.
enum Lent {
    Http1(Http1),
    Http2(Stream),
}

/// What a request waited for.
enum Grant {
    Ready(Lent),
    Open(Opening),
    /// The connection that it waited for was not made.
    Failed(Failure),
}

/// What a look into the pool gives.
enum Found {
    Ready(Lent),
    Open(Opening, Pending),
    Wait(oneshot::Receiver<Grant>, Pending),
    Overflow,
}

/// A request that waits for a connection, for as long as it lives.
struct Pending(#[expect(dead_code, reason = "counts while it lives")] (Held, Raised));

impl Terms {
    pub(super) fn new(rules: Rules, limits: Limits, metrics: Arc<ClusterMetrics>) -> Arc<Self> {
        Arc::new(Self { limits, metrics, rules: watch::Sender::new(rules) })
    }

    pub(super) fn rules(&self) -> Rules {
        *self.rules.borrow()
    }

    /// Takes the rules of a new snapshot over.
    pub(super) fn set_rules(&self, rules: Rules) {
        self.rules.send_if_modified(|known| std::mem::replace(known, rules) != rules);
    }

    fn pending(&self) -> Option<Pending> {
        Some(Pending((self.limits.pending.take()?, Raised::new(&self.metrics.pending))))
    }
}

impl Pool {
    pub(super) fn new(terms: Arc<Terms>) -> Arc<Self> {
        let peer_streams = AtomicUsize::new(http2::STREAMS_OF_UNKNOWN);
        let (earlier, state) = (Arc::default(), Mutex::default());
        Arc::new(Self { terms, peer_streams, earlier, state })
    }

    /// Connections that are open or being opened.
    pub(super) fn connections(&self) -> usize {
        let state = self.lock();
        state.http1 + state.http2
    }

    /// Keeps no connection any more; requests that are running end as they would have.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let kept = (std::mem::take(&mut state.idle), std::mem::take(&mut state.multiplexed));
        drop(state);
        drop(kept);
    }

    /// Forgets connections without a request: they are as dead as one that turned out to be, or not worth
    /// what they cost.
    pub(super) fn drop_idle(&self) {
        let idle = std::mem::take(&mut self.lock().idle);
        drop(idle);
    }

    /// Streams that a new HTTP/2 connection is expected to take.
    fn streams_of_new(&self, rules: &Rules) -> usize {
        let requests = usize::try_from(rules.max_requests).unwrap_or(usize::MAX);
        let streams = (rules.max_streams as usize).min(requests);
        streams.min(self.peer_streams.load(Ordering::Relaxed)).max(1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for one request, opened over `via` if need be.
    async fn acquire(self: &Arc<Self>, version: Version, via: Via<'_>) -> Result<Lent, SendError> {
        let metrics = &self.terms.metrics;
        let reused = || {
            let to = via.endpoint.address;
            note("reused", || format!("a connection for requests to {to} that was there"));
        };
        let (grant, _pending) = match self.look(version) {
            Found::Ready(lent) => {
                metrics.pooled(Pooled::Hit);
                reused();
                return Ok(lent);
            }
            Found::Open(opening, pending) => (Grant::Open(opening), pending),
            // The pool lives as long as whoever waits for it here.
            Found::Wait(grant, pending) => {
                (grant.await.map_err(|_| SendError::Overflow(PENDING))?, pending)
            }
            Found::Overflow => {
                metrics.overflow(PENDING);
                return Err(SendError::Overflow(PENDING));
            }
        };
        match grant {
            Grant::Ready(lent) => {
                metrics.pooled(Pooled::Waited);
                reused();
                Ok(lent)
            }
            Grant::Open(opening) => {
                metrics.pooled(Pooled::Miss);
                opening.open(self, via).await
            }
            Grant::Failed(failure) => Err(SendError::Connect(failure)),
        }
    }

    /// Books a connection, leave to open one, or a place in the queue.
    fn look(self: &Arc<Self>, version: Version) -> Found {
        let rules = self.terms.rules();
        let mut dead = Dead::default();
        let mut state = self.lock();
        if let Some(lent) = state.ready(self, version, &rules, &mut dead) {
            return Found::Ready(lent);
        }
        let Some(pending) = self.terms.pending() else { return Found::Overflow };
        if !state.may_join(version, self.streams_of_new(&rules)) {
            if let Some(opening) = self.book(&mut state, version) {
                return Found::Open(opening, pending);
            }
            self.terms.metrics.overflow(CONNECTIONS);
        }
        Found::Wait(state.wait(version), pending)
    }

    /// Leave to open a connection. An endpoint may always have one of each version, as in Envoy: what waits
    /// for it would otherwise wait for other endpoints' connections to end.
    fn book(self: &Arc<Self>, state: &mut State, version: Version) -> Option<Opening> {
        let limit = &self.terms.limits.connections;
        let open = state.open(version);
        let held = limit.take().or_else(|| (*open == 0).then(|| limit.take_anyway()))?;
        *open += 1;
        state.opening += usize::from(version == Version::Http2);
        Some(Opening::new(Slot::new(self, held, version)))
    }

    /// Hands out what there is to those who wait, after something was given back.
    fn serve(self: &Arc<Self>) {
        while let Some((waiter, grant)) = self.next_grant() {
            // Whoever has gone away gives it back by this.
            drop(waiter.send(grant));
        }
    }

    fn next_grant(self: &Arc<Self>) -> Option<(oneshot::Sender<Grant>, Grant)> {
        let rules = self.terms.rules();
        let streams = self.streams_of_new(&rules);
        let mut dead = Dead::default();
        let mut state = self.lock();
        for version in [Version::Http1, Version::Http2] {
            if !state.has_waiting(version) {
                continue;
            }
            let grant = match state.ready(self, version, &rules, &mut dead) {
                Some(lent) => Grant::Ready(lent),
                None if state.is_enough_opening(version, streams) => continue,
                None => match self.book(&mut state, version) {
                    Some(opening) => Grant::Open(opening),
                    None => continue,
                },
            };
            let waiter = state.queue(version).pop_front();
            return waiter.map(|waiter| (waiter, grant));
        }
        None
    }

    /// Tells all who wait that there is no getting through.
    fn fail_waiting(&self, failure: &Failure) {
        let mut state = self.lock();
        let http1 = std::mem::take(&mut state.waiting_http1);
        let http2 = std::mem::take(&mut state.waiting_http2);
        drop(state);
        for waiter in http1.into_iter().chain(http2) {
            drop(waiter.send(Grant::Failed(failure.clone())));
        }
    }
}

/// Connections that were found dead under the lock, to be dropped after it.
#[derive(Default)]
struct Dead {
    idle: Vec<Idle>,
    multiplexed: Vec<Arc<Multiplexed>>,
}

impl State {
    /// How many connections of a version are open or being opened.
    fn open(&mut self, version: Version) -> &mut usize {
        match version {
            Version::Http1 => &mut self.http1,
            Version::Http2 => &mut self.http2,
        }
    }

    fn queue(&mut self, version: Version) -> &mut VecDeque<oneshot::Sender<Grant>> {
        match version {
            Version::Http1 => &mut self.waiting_http1,
            Version::Http2 => &mut self.waiting_http2,
        }
    }

    /// A place in the queue.
    fn wait(&mut self, version: Version) -> oneshot::Receiver<Grant> {
        let (sender, receiver) = oneshot::channel();
        let queue = self.queue(version);
        if queue.len() == queue.capacity() {
            // Before it grows: some of those behind the first may have gone away.
            queue.retain(|waiter| !waiter.is_closed());
        }
        queue.push_back(sender);
        receiver
    }

    /// Whether the first in the queue waits still; those who do not are forgotten.
    fn has_waiting(&mut self, version: Version) -> bool {
        let queue = self.queue(version);
        while queue.front().is_some_and(oneshot::Sender::is_closed) {
            queue.pop_front();
        }
        !queue.is_empty()
    }

    /// An open connection that takes a request.
    fn ready(
        &mut self,
        pool: &Arc<Pool>,
        version: Version,
        rules: &Rules,
        dead: &mut Dead,
    ) -> Option<Lent> {
        let now = Instant::now();
        if version == Version::Http2 {
            let done = |one: &mut Arc<Multiplexed>| one.is_done(rules, now);
            dead.multiplexed.extend(self.multiplexed.extract_if(.., done));
            let stream = self.multiplexed.iter().find_map(|one| one.reserve(pool, rules))?;
            return Some(Lent::Http2(stream));
        }
        while let Some(idle) = self.idle.pop() {
            if idle.is_usable(rules, now) {
                return Some(Lent::Http1(idle.lend(pool)));
            }
            dead.idle.push(idle);
        }
        None
    }

    /// Whether connections that are being opened have room for one more than wait already.
    fn may_join(&self, version: Version, streams: usize) -> bool {
        version == Version::Http2 && self.room_opening(streams) > self.waiting_http2.len()
    }

    /// Whether all who wait fit on connections that are being opened.
    fn is_enough_opening(&self, version: Version, streams: usize) -> bool {
        version == Version::Http2 && self.room_opening(streams) >= self.waiting_http2.len()
    }

    /// Room beside the requests that connections are opened for.
    fn room_opening(&self, streams: usize) -> usize {
        self.opening.saturating_mul(streams.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests;
