//! A connection while it is being made.

use std::{
    io::ErrorKind,
    sync::{Arc, Weak},
};

use undermesh_snapshot::traffic::ClusterEndpoint;

use super::{Lent, Pool, Slot, Version, http1, http2};
use crate::{
    error::Failure,
    upstream::{Dial, SendError},
};

/// How an endpoint is reached, for one request.
#[derive(Clone, Copy)]
pub(in crate::upstream) struct Via<'a> {
    pub(in crate::upstream) dial: &'a dyn Dial,
    pub(in crate::upstream) endpoint: &'a ClusterEndpoint,
}

/// Leave to open a connection. Dropped before it is open, somebody else gets it.
pub(super) struct Opening {
    counted: Counted,
    slot: Slot,
}

/// Counts as an opening of HTTP/2 while it lives.
struct Counted(Option<Weak<Pool>>);

impl Opening {
    /// For a slot that was booked; the pool has counted it.
    pub(super) fn new(slot: Slot) -> Self {
        let pool = (slot.version() == Version::Http2).then(|| slot.pool());
        Self { counted: Counted(pool), slot }
    }

    /// Opens the connection, in the time that the rule gives, and takes the first request's place on it.
    pub(super) async fn open(self, pool: &Arc<Pool>, via: Via<'_>) -> Result<Lent, SendError> {
        let to = via.endpoint.address;
        let time = pool.terms.rules().connect_timeout;
        let dialled = tokio::time::timeout(time, via.dial.dial(via.endpoint)).await;
        let late = |_| Err(Failure::Connect { to, kind: ErrorKind::TimedOut });
        let failed = |failure| {
            // The next connection would fail like this one, and as slowly.
            pool.fail_waiting(&failure);
            Err(SendError::Connect(failure))
        };
        let stream = match dialled.unwrap_or_else(late) {
            Ok(stream) => stream,
            Err(failure) => return failed(failure),
        };
        let Self { counted, slot } = self;
        let connected = match counted.0 {
            None => http1::connect(pool, stream, slot).await.map(Lent::Http1),
            Some(_) => http2::connect(pool, stream, slot).await.map(Lent::Http2),
        };
        // Its room is real now; those who wait for it are served.
        drop(counted);
        pool.serve();
        connected.or_else(|error| {
            tracing::debug!(%to, %error, "no HTTP connection could be made");
            failed(Failure::Connect { to, kind: ErrorKind::ConnectionReset })
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(pool) = self.0.as_ref().and_then(Weak::upgrade) {
            pool.lock().opening -= 1;
        }
    }
}
