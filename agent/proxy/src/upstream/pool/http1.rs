//! Connections of HTTP/1.1: one request at a time.

use std::sync::{Arc, Weak};

use http::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{runtime::Handle, time::Instant};

use super::{
    Pool, Rules,
    send::{Sent, Serving},
    slot::{Counted, Slot},
};
use crate::{
    fair,
    upstream::{Body, ByteStream},
};

/// Connections that a pool keeps without a request; more than that were needed at a time once, and
/// not for long.
const MAX_IDLE: usize = 512;

/// A connection without a request.
pub(super) struct Idle {
    connection: Connection,
    pub(super) since: Instant,
}

/// A connection that is lent for one request. Dropped before it was used, it is given back.
pub(super) struct Http1 {
    pool: Weak<Pool>,
    connection: Option<Connection>,
}

struct Connection {
    sender: http1::SendRequest<Body>,
    opened: Instant,
    /// Requests that it was used for.
    requests: u64,
}

/// Speaks HTTP/1.1 over a stream.
pub(super) async fn connect(
    pool: &Arc<Pool>,
    stream: Box<dyn ByteStream>,
    slot: Slot,
) -> hyper::Result<Http1> {
    let io = TokioIo::new(Counted::new(stream, slot));
    let (sender, driver) = http1::handshake(io).await?;
    tokio::spawn(fair::inherit(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    }));
    let connection = Connection { sender, opened: Instant::now(), requests: 0 };
    Ok(Http1 { pool: Arc::downgrade(pool), connection: Some(connection) })
}

impl Idle {
    pub(super) fn is_usable(&self, rules: &Rules, now: Instant) -> bool {
        self.connection.sender.is_ready()
            && self.connection.requests < rules.max_requests
            && self.ends(rules).is_none_or(|end| now < end)
    }

    /// When it is to be closed.
    pub(super) fn ends(&self, rules: &Rules) -> Option<Instant> {
        let idle = rules.idle.and_then(|idle| self.since.checked_add(idle));
        let age = rules.max_age.and_then(|age| self.connection.opened.checked_add(age));
        idle.into_iter().chain(age).min()
    }

    pub(super) fn lend(self, pool: &Arc<Pool>) -> Http1 {
        Http1 { pool: Arc::downgrade(pool), connection: Some(self.connection) }
    }
}

impl Http1 {
    /// Whether it has served a request before, and may have been closed since.
    pub(super) fn is_reused(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.requests > 0)
    }

    /// Sends the one request. The connection is taken until its answer was read.
    pub(super) async fn send(mut self, request: Request<Body>) -> Sent {
        let Some(mut connection) = self.connection.take() else { return Sent::Returned(request) };
        connection.requests += 1;
        let answer = match connection.sender.try_send_request(request).await {
            Ok(answer) => answer,
            Err(error) => return error.into(),
        };
        let taken = Taken { pool: Weak::clone(&self.pool), connection: Some(connection) };
        Sent::Answer(answer, Serving::Http1(taken))
    }
}

/// A connection whose answer is being read. Dropped, it goes back to its pool as soon as all of the answer
/// has come.
pub(super) struct Taken {
    pool: Weak<Pool>,
    connection: Option<Connection>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.sender.is_ready() {
            give_back(&self.pool, connection);
        } else if let Ok(runtime) = Handle::try_current() {
            // The end of the answer is on its way here, or the rest of an answer that nobody wants.
            let pool = Weak::clone(&self.pool);
            runtime.spawn(async move {
                if connection.sender.ready().await.is_ok() {
                    give_back(&pool, connection);
                }
            });
        }
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            give_back(&self.pool, connection);
        }
    }
}

/// Keeps a connection for the next request, if it may have one.
fn give_back(pool: &Weak<Pool>, connection: Connection) {
    let Some(pool) = pool.upgrade() else { return };
    let rules = pool.terms.rules();
    let now = Instant::now();
    let idle = Idle { connection, since: now };
    if !idle.is_usable(&rules, now) {
        return;
    }
    let ends = idle.ends(&rules);
    let mut state = pool.lock();
    if state.closed || state.idle.len() >= MAX_IDLE {
        drop(state);
        return;
    }
    state.idle.push(idle);
    drop(state);
    pool.serve();
    pool.watch_idle(ends);
}
