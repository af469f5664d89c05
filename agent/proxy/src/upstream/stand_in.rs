//! Clusters without limits and pools: one endpoint after the other, a connection for each request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use undermesh_snapshot::traffic::{AppProtocol, ClusterEndpoint, ClusterSpec};

use super::{Body, Dial, Outcome, Pick, Refusal, SendError, in_http1};

/// All clusters of one client pod.
#[derive(Default)]
pub(crate) struct Upstreams {
    next: Arc<AtomicUsize>,
}

/// One destination.
pub(crate) struct Cluster {
    spec: Arc<ClusterSpec>,
    next: Arc<AtomicUsize>,
}

/// An attempt that was admitted. Dropped without [`Self::finish`], the client has given it up.
pub(crate) struct Lease {
    endpoint: ClusterEndpoint,
    http2: bool,
}

impl Upstreams {
    /// The cluster of this specification.
    pub(crate) fn cluster(&self, spec: &Arc<ClusterSpec>) -> Arc<Cluster> {
        Arc::new(Cluster { spec: Arc::clone(spec), next: Arc::clone(&self.next) })
    }
}

impl Cluster {
    /// Admits one attempt: counts it against the limits and chooses an endpoint.
    pub(crate) fn admit(&self, pick: &Pick<'_>) -> Result<Lease, Refusal> {
        let all = &self.spec.endpoints;
        let fresh: Vec<_> = all.iter().filter(|one| !pick.tried.contains(&one.address)).collect();
        let from = if fresh.is_empty() { all.iter().collect() } else { fresh };
        let slot = self.next.fetch_add(1, Ordering::Relaxed) % from.len().max(1);
        let endpoint = from.get(slot).copied().cloned().ok_or(Refusal::NoEndpoints)?;
        let http2 = matches!(self.spec.protocol, AppProtocol::Http2 | AppProtocol::Grpc);
        Ok(Lease { endpoint, http2 })
    }
}

impl Lease {
    /// Where the attempt goes.
    pub(crate) fn endpoint(&self) -> &ClusterEndpoint {
        &self.endpoint
    }

    /// The attempt is over.
    pub(crate) fn finish(self, _outcome: Outcome) {}

    /// Sends a request over a pooled or a new connection of this endpoint; `dial` makes the byte
    /// stream.
    pub(crate) async fn send(
        &self,
        dial: &dyn Dial,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, SendError> {
        let stream = dial.dial(&self.endpoint).await.map_err(SendError::Connect)?;
        let io = TokioIo::new(stream);
        if self.http2 {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(reset)?;
            tokio::spawn(connection);
            return sender.send_request(request).await.map_err(reset);
        }
        let (mut sender, connection) = http1::handshake(io).await.map_err(reset)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(in_http1(request)).await.map_err(reset)
    }
}

fn reset(error: hyper::Error) -> SendError {
    SendError::Reset {
        sent: !error.is_canceled(),
        refused: false,
        detail: error.to_string().into(),
    }
}
