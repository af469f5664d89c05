//! Connections of HTTP/2: many requests at a time.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::Request;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    Pool, Rules,
    send::{Sent, Serving},
    slot::{Counted, Slot},
};
use crate::{
    fair::{self, Inherited},
    upstream::{Body, ByteStream},
};

/// What a peer is expected to allow that has not said it (RFC 9113 recommends no less).
pub(super) const STREAMS_OF_UNKNOWN: usize = 100;

/// Bytes of answers in flight on one stream, and on all of a connection: what clients may have in flight
/// the other way. h2 also derives from it how many small pieces may wait to be read.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// One connection.
pub(super) struct Multiplexed {
    sender: http2::SendRequest<Body>,
    opened: Instant,
    /// What the peer allows at a time.
    allowed: Arc<AtomicUsize>,
    usage: Mutex<Usage>,
}

struct Usage {
    streams: usize,
    /// Since the first.
    requests: u64,
    idle_since: Instant,
}

/// The right to a stream, for as long as it lives.
pub(in crate::upstream) struct Stream {
    pool: Weak<Pool>,
    connection: Arc<Multiplexed>,
}

/// Speaks HTTP/2 over a stream. The connection is there for others as well at once.
pub(super) async fn connect(
    pool: &Arc<Pool>,
    stream: Box<dyn ByteStream>,
    slot: Slot,
) -> hyper::Result<Stream> {
    let io = TokioIo::new(Counted::new(stream, slot));
    let mut builder = http2::Builder::new(Inherited);
    builder
        .initial_max_send_streams(pool.peer_streams.load(Ordering::Relaxed))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, driver) = builder.handshake(io).await?;
    let allowed = Arc::new(AtomicUsize::new(driver.current_max_send_streams()));
    let now = Instant::now();
    let usage = Mutex::new(Usage { streams: 0, requests: 0, idle_since: now });
    let connection = Multiplexed { sender, opened: now, allowed: Arc::clone(&allowed), usage };
    let connection = Arc::new(connection);
    tokio::spawn(fair::inherit(drive(driver, allowed)));
    let stream = connection.take_stream(pool);
    let mut state = pool.lock();
    if !state.closed {
        state.multiplexed.push(connection);
    }
    drop(state);
    Ok(stream)
}

type Driver = http2::Connection<TokioIo<Counted>, Body, Inherited>;

/// Runs a connection to its end, and notes what the peer allows.
async fn drive(driver: Driver, allowed: Arc<AtomicUsize>) {
    let mut driver = pin!(driver);
    let ended = std::future::poll_fn(|cx| {
        let poll = driver.as_mut().poll(cx);
        allowed.store(driver.current_max_send_streams(), Ordering::Relaxed);
        poll
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "upstream connection ended");
    }
}

impl Multiplexed {
    fn usage(&self) -> std::sync::MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes no more requests: it is gone (GOAWAY included), has had its number, or its time.
    pub(super) fn is_done(&self, rules: &Rules, now: Instant) -> bool {
        self.sender.is_closed()
            || self.usage().requests >= rules.max_requests
            || self.ends(rules).is_some_and(|end| end <= now)
    }

    /// When it is to be closed.
    pub(super) fn ends(&self, rules: &Rules) -> Option<Instant> {
        let usage = self.usage();
        let idle = rules.idle.filter(|_| usage.streams == 0);
        let idle = idle.and_then(|idle| usage.idle_since.checked_add(idle));
        let age = rules.max_age.and_then(|age| self.opened.checked_add(age));
        idle.into_iter().chain(age).min()
    }

    /// A stream, if there is room for one.
    pub(super) fn reserve(self: &Arc<Self>, pool: &Arc<Pool>, rules: &Rules) -> Option<Stream> {
        let allowed = self.allowed.load(Ordering::Relaxed).min(rules.max_streams as usize);
        // A peer that allows none at the moment would never be asked again.
        let has_room = self.usage().streams < allowed.max(1);
        has_room.then(|| self.take_stream(pool))
    }

    fn take_stream(self: &Arc<Self>, pool: &Arc<Pool>) -> Stream {
        let mut usage = self.usage();
        usage.streams += 1;
        usage.requests += 1;
        drop(usage);
        Stream { pool: Arc::downgrade(pool), connection: Arc::clone(self) }
    }
}

impl Stream {
    /// Whether the connection has served others before, and may have been closed since.
    pub(super) fn is_reused(&self) -> bool {
        self.connection.usage().requests > 1
    }

    /// What the peer allows holds for its next connection as well, most likely.
    fn note_allowed(&self) {
        if let Some(pool) = self.pool.upgrade() {
            let allowed = self.connection.allowed.load(Ordering::Relaxed).max(1);
            pool.peer_streams.store(allowed, Ordering::Relaxed);
        }
    }

    /// Sends the one request. The stream is taken until the answer's part in it is dropped.
    pub(super) async fn send(self, request: Request<Body>) -> Sent {
        let sent = self.connection.sender.clone().try_send_request(request);
        match sent.await {
            Ok(answer) => {
                self.note_allowed();
                Sent::Answer(answer, Serving::Http2(self))
            }
            Err(error) => error.into(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut usage = self.connection.usage();
        usage.streams -= 1;
        let idle = usage.streams == 0;
        if idle {
            usage.idle_since = Instant::now();
        }
        drop(usage);
        let Some(pool) = self.pool.upgrade() else { return };
        pool.serve();
        if idle {
            pool.watch_idle(self.connection.ends(&pool.terms.rules()));
        }
    }
}
