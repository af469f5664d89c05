//! Requests that the agent makes itself, on behalf of a pod: with the pod's identity, by the rules that its
//! own requests to the destination follow.

use std::{net::SocketAddr, sync::Arc};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use undermesh_snapshot::traffic::ClusterSpec;

use super::{
    dial::{Asks, Dialer},
    front::Front,
};
use crate::{
    pod::Pod,
    record::Outbound,
    upstream::{Body, Lease, LocalError, Outcome, Pick, SendError},
};

/// An answer whose content is still to be read.
pub(crate) struct Called {
    pub(crate) response: Response<Incoming>,
    lease: Lease,
}

impl Called {
    /// The answer, and who is told once it was read.
    pub(crate) fn split(self) -> (Response<Incoming>, impl FnOnce(Option<StatusCode>)) {
        let Self { response, lease } = self;
        let finish = move |status: Option<StatusCode>| {
            lease.finish(match status {
                Some(status) => Outcome::Status(status),
                None => Outcome::LocalError(LocalError::Reset),
            });
        };
        (response, finish)
    }
}

/// Sends one request to a destination. `port` is what the destination may take for the client's.
pub(crate) async fn call(
    pod: &Arc<Pod>,
    port: u16,
    spec: &Arc<ClusterSpec>,
    request: Request<Body>,
) -> Result<Called, String> {
    let own = pod.workload.addresses.first().ok_or("the pod has no address")?;
    let client = SocketAddr::new(*own, port);
    // Nothing was dialled: the destination is known.
    let dialled = SocketAddr::new(*own, spec.key.port);
    let front = Front::of_agent(pod, Outbound::new(pod, client, None).info(), dialled);
    let cluster = pod.upstreams.resolved(spec).await;
    let pick = Pick { hash: None, client: *own, dialled, tried: &[], leave_tiers_of: &[] };
    let lease = cluster.admit(&pick).map_err(|refusal| match refusal {
        crate::upstream::Refusal::Overflow(limit) => format!("{limit} is reached"),
        _ => "it has no endpoint that may be used".to_owned(),
    })?;
    let name = request.uri().host().unwrap_or_default().to_owned();
    let asks = Asks { host: &name, version: request.version(), upgrade: false };
    let host = spec.key.host.as_str();
    let dialer = Dialer { front: &front, host, spec, tcp: lease.tcp(), request: asks };
    match lease.send(&dialer, request).await {
        Ok(response) => Ok(Called { response, lease }),
        Err(error) => {
            let (outcome, text) = told(error);
            lease.finish(outcome);
            Err(text)
        }
    }
}

fn told(error: SendError) -> (Outcome, String) {
    let (outcome, text) = match error {
        SendError::Connect(failure) => (LocalError::ConnectFailure, failure.to_string()),
        SendError::Overflow(limit) => (LocalError::Reset, format!("{limit} is reached")),
        SendError::Reset { detail, .. } => (LocalError::Reset, detail.to_string()),
    };
    (Outcome::LocalError(outcome), text)
}
