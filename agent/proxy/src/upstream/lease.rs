//! An attempt that was admitted, for requests and for connections.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, Response, header::UPGRADE};
use hyper::body::Incoming;
use undermesh_model::traffic::TcpPool;
use undermesh_snapshot::traffic::{ClusterEndpoint, ClusterSpec};

use super::{
    Body, Dial, Outcome, SendError,
    limits::Held,
    member::{Active, Member},
    metrics::Raised,
    outlier::Detector,
    pool::{Sending, Version, Via},
    repeat, speaks_http2,
};

/// An attempt that was admitted. Dropped without [`Self::finish`], the client has given it up.
pub(crate) struct Lease {
    pub(super) member: Arc<Member>,
    pub(super) spec: Arc<ClusterSpec>,
    pub(super) detector: Option<Arc<Detector>>,
    #[expect(dead_code, reason = "counts while it lives")]
    pub(super) counts: Counts,
    /// How far the request has come.
    pub(super) progress: Mutex<Progress>,
}

/// How far a request has come.
#[derive(Default)]
pub(super) enum Progress {
    #[default]
    Admitted,
    /// A limit kept it here, which says nothing about the endpoint.
    Kept,
    /// It has an answer, and counts until that was read.
    Answered(#[expect(dead_code, reason = "counts while it lives")] Sending),
}

/// What an attempt counts in for as long as it lives.
pub(super) struct Counts {
    pub(super) _active: Active,
    pub(super) _raised: Raised,
}

impl Lease {
    /// Where the attempt goes.
    pub(crate) fn endpoint(&self) -> &ClusterEndpoint {
        &self.member.endpoint
    }

    /// How connections to the endpoint are to be made: keepalive, above all. The pool sees to the rest.
    pub(crate) fn tcp(&self) -> &TcpPool {
        &self.spec.settings.pool.tcp
    }

    /// The attempt is over: to be called once the answer was read to its end, or has failed.
    pub(crate) fn finish(self, outcome: Outcome) {
        if matches!(*self.progress(), Progress::Kept) {
            return;
        }
        record(self.detector.as_ref(), &self.member, outcome);
    }

    /// Sends a request over a pooled or a new connection of this endpoint; `dial` makes the byte
    /// stream. The answer's body is to be read while the lease lives.
    pub(crate) async fn send(
        &self,
        dial: &dyn Dial,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        let copy = repeat::copy(&request);
        self.send_or_again(dial, request, || copy).await
    }

    /// The same, for whoever can make the request `again`, without a body, where it has to be sent once more: a copy of
    /// each would be for the few.
    pub(crate) async fn send_or_again(
        &self,
        dial: &dyn Dial,
        request: Request<Body>,
        again: impl FnOnce() -> Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        let version = version(&self.spec, &request);
        let via = Via { dial, endpoint: &self.member.endpoint };
        match self.member.host.pool.send(version, via, request, again).await {
            Ok((answer, sending)) => {
                *self.progress() = Progress::Answered(sending);
                Ok(answer)
            }
            Err(error) => {
                if matches!(error, SendError::Overflow(_)) {
                    *self.progress() = Progress::Kept;
                }
                Err(error)
            }
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version that a request is sent in.
fn version(spec: &ClusterSpec, request: &Request<Body>) -> Version {
    let upgrade = request.headers().contains_key(UPGRADE);
    match speaks_http2(spec, request.version(), upgrade) {
        true => Version::Http2,
        false => Version::Http1,
    }
}

fn record(detector: Option<&Arc<Detector>>, member: &Member, outcome: Outcome) {
    if let (Some(detector), Some(health)) = (detector, &member.health) {
        detector.record(health, outcome);
    }
}

/// A connection that was admitted: an L4 route's. Counts until it is dropped.
pub(crate) struct ConnectionLease {
    pub(super) member: Arc<Member>,
    pub(super) spec: Arc<ClusterSpec>,
    pub(super) detector: Option<Arc<Detector>>,
    pub(super) connect_timeout: Duration,
    pub(super) _counts: (Active, Raised, Held),
}

impl ConnectionLease {
    /// Where the connection goes.
    pub(crate) fn endpoint(&self) -> &ClusterEndpoint {
        &self.member.endpoint
    }

    /// Keepalive, longest duration, idle time: for whoever carries the connection to keep to.
    pub(crate) fn tcp(&self) -> &TcpPool {
        &self.spec.settings.pool.tcp
    }

    /// Longest time to connect.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The connection stands. It counts as a success, as an answer does for a request.
    pub(crate) fn connected(&self) {
        let success = Outcome::Status(http::StatusCode::OK);
        record(self.detector.as_ref(), &self.member, success);
    }

    /// The endpoint was not reached.
    pub(crate) fn failed(self, error: super::LocalError) {
        record(self.detector.as_ref(), &self.member, Outcome::LocalError(error));
    }
}

#[cfg(test)]
mod tests;
