//! Step *forward*: a request goes to an endpoint, and to another one where that fails and the rule
//! wants it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, UPGRADE},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use undermesh_model::traffic::Retries;
use undermesh_snapshot::traffic::{ClusterEndpoint, ClusterSpec};

use super::{
    deadline::{Arrival, Deadline, passed},
    dial::{self, Asks, Dialer},
    front::Front,
    head::Head,
    local_reply::LocalReply,
    log::{Flag, RequestLog, SERVER_RESET, TIMEOUT},
    replay::Replay,
    retry::{self, Went},
};
use crate::upstream::{
    Body, Cluster, Lease, LocalError, Outcome, Pick, Refusal, RetryPermit, SendError, repeat,
};

/// Which attempt it is that an endpoint sees, from 1.
pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// A request that is sent on, and how.
pub(crate) struct Forward<'a> {
    pub(crate) front: &'a Front,
    /// The service that was dialled.
    pub(crate) host: &'a str,
    pub(crate) spec: &'a Arc<ClusterSpec>,
    pub(crate) head: Head,
    /// What consistent hashing goes by.
    pub(crate) hash: Option<u64>,
    pub(crate) replay: Replay,
    pub(crate) arrival: Arrival,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: Option<Retries>,
}

/// An endpoint's answer, and what has to last as long as it.
pub(crate) struct Answered {
    pub(crate) response: Response<Incoming>,
    pub(crate) lease: Lease,
    pub(crate) deadline: Option<Deadline>,
}

/// How one attempt ended.
enum Attempted {
    Answered(Response<Incoming>),
    Failed(SendError),
    TooSlow,
    /// The whole request has taken too long.
    Late,
}

impl Forward<'_> {
    /// Sends until there is an answer to pass on, or no more attempt to make.
    pub(crate) async fn send(&self, log: &mut RequestLog) -> Result<Answered, LocalReply> {
        let mut deadline = self.timeout.map(|limit| Deadline::new(limit, &self.arrival));
        let cluster = tokio::select! {
            cluster = self.cluster() => cluster?,
            () = passed(&mut deadline) => return Err(LocalReply::timeout()),
        };
        let mut tried = Vec::new();
        let mut permit = None;
        loop {
            let number = log.attempts;
            let lease = self.admit(&cluster, &tried)?;
            let endpoint = lease.endpoint().address;
            self.tries(lease.endpoint(), log);
            let attempted = self.attempt(&lease, log.attempts, &mut deadline).await;
            // What the last retry was permitted ends here.
            drop(permit.take());
            permit = self.again(&cluster, &attempted, number, log);
            let outcome = outcome(&attempted);
            if permit.is_none() {
                return match self.conclude(attempted, log) {
                    Ok(response) => Ok(Answered { response, lease, deadline }),
                    Err(reply) => {
                        // A client that has gone, or is late, says nothing about the endpoint.
                        if !matches!(reply.flag, Some(Flag::ClientGone | Flag::StreamIdle)) {
                            lease.finish(outcome);
                        }
                        Err(reply)
                    }
                };
            }
            lease.finish(outcome);
            note_retry(log, &attempted, endpoint);
            tried.push(endpoint);
            self.pause(number, &mut deadline).await?;
        }
    }

    /// The cluster of the host that is asked for.
    async fn cluster(&self) -> Result<Arc<Cluster>, LocalReply> {
        let name = self.head.parts.uri.host().unwrap_or_default();
        let cluster = self.front.pod.upstreams.for_name(self.spec, name).await;
        cluster.ok_or_else(|| LocalReply::no_healthy_upstream(true))
    }

    /// Notes where the request goes now.
    fn tries(&self, endpoint: &ClusterEndpoint, log: &mut RequestLog) {
        log.attempts += 1;
        log.endpoint = Some(endpoint.address);
        let target = dial::target(self.front, endpoint);
        log.requests = self.front.places.at(&self.spec.key.host, &target);
    }

    fn admit(&self, cluster: &Cluster, tried: &[SocketAddr]) -> Result<Lease, LocalReply> {
        let hashed = self.spec.settings.balancer.hash.is_some();
        let retries = self.retries.as_ref();
        let avoid = retries.is_some_and(|retries| retries.avoid_previous.unwrap_or(!hashed));
        let elsewhere = retries.is_some_and(|retries| retries.other_localities);
        let pick = Pick {
            hash: self.hash,
            client: self.front.client.ip(),
            dialled: self.front.dialled,
            tried: if avoid { tried } else { &[] },
            // Istio has Envoy look anew after every second attempt.
            leave_tiers_of: if elsewhere { &tried[..tried.len() / 2 * 2] } else { &[] },
        };
        cluster.admit(&pick).map_err(|refusal| match refusal {
            Refusal::NoEndpoints if self.spec.is_black_hole() => LocalReply::not_registered(),
            Refusal::NoEndpoints => LocalReply::no_healthy_upstream(true),
            Refusal::NoHealthy => LocalReply::no_healthy_upstream(false),
            Refusal::Overflow(limit) => LocalReply::overflow(limit),
        })
    }

    async fn attempt(
        &self,
        lease: &Lease,
        number: u32,
        deadline: &mut Option<Deadline>,
    ) -> Attempted {
        let per_try = self.retries.as_ref().and_then(|retries| retries.per_try_timeout);
        let mut per_try = per_try.map(|limit| Deadline::new(limit, &self.arrival));
        let (parts, spec) = (&self.head.parts, self.spec);
        let request = Asks {
            host: parts.uri.host().unwrap_or_default(),
            version: parts.version,
            upgrade: self.head.upgrade.is_some(),
        };
        let tcp = lease.tcp();
        let dialer = Dialer { front: self.front, host: self.host, spec, tcp, request };
        let first = self.request(number, self.replay.sender().boxed_unsync());
        let again = || self.request(number, repeat::no_body());
        tokio::select! {
            sent = lease.send_or_again(&dialer, first, again) => match sent {
                Ok(response) => Attempted::Answered(response),
                Err(error) => Attempted::Failed(error),
            },
            () = passed(&mut per_try) => Attempted::TooSlow,
            () = passed(deadline) => Attempted::Late,
        }
    }

    fn request(&self, number: u32, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        let parts = &self.head.parts;
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        let headers = request.headers_mut();
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(number));
        if let Some(upgrade) = &self.head.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, upgrade.clone());
        }
        request
    }

    /// Permits another attempt, where this one failed in a way that is tried again. `number` counts
    /// earlier ones.
    fn again(
        &self,
        cluster: &Cluster,
        attempted: &Attempted,
        number: u32,
        log: &mut RequestLog,
    ) -> Option<RetryPermit> {
        let went = match attempted {
            Attempted::Answered(response) => Went::Answered(response.status(), response.headers()),
            Attempted::Failed(error) => Went::Failed(error),
            Attempted::TooSlow => Went::TooSlow,
            Attempted::Late => return None,
        };
        let retries = self.retries.as_ref().filter(|retries| retry::wants(&retries.on, &went))?;
        if number < retries.attempts && self.replay.can_repeat() {
            let permit = cluster.permit_retry();
            if permit.is_err() {
                // What came of the attempt is the answer, as in Envoy.
                log.flag(Flag::Overflow);
            }
            return permit.ok();
        }
        if retries.attempts > 0 {
            log.flag(Flag::RetryLimit);
        }
        None
    }

    /// The answer to a request after its last attempt.
    fn conclude(
        &self,
        attempted: Attempted,
        log: &RequestLog,
    ) -> Result<Response<Incoming>, LocalReply> {
        let late = log.late.reply();
        Err(match attempted {
            Attempted::Answered(response) => return Ok(response),
            Attempted::Late => LocalReply::timeout(),
            // Not the endpoint's fault.
            _ if self.replay.is_broken() => late.unwrap_or_else(LocalReply::client_gone),
            Attempted::Failed(error) => failed(error),
            Attempted::TooSlow => LocalReply::timeout(),
        })
    }

    /// Waits before the next attempt.
    async fn pause(&self, number: u32, deadline: &mut Option<Deadline>) -> Result<(), LocalReply> {
        let Some(retries) = &self.retries else { return Ok(()) };
        tokio::select! {
            () = tokio::time::sleep(retry::backoff(retries, number)) => Ok(()),
            () = passed(deadline) => Err(LocalReply::timeout()),
        }
    }
}

/// Tells of an attempt that is not the last one.
fn note_retry(log: &mut RequestLog, attempted: &Attempted, endpoint: SocketAddr) {
    let number = log.attempts;
    let Some(trace) = &mut log.trace else { return };
    trace.event("retry", || {
        let came = match attempted {
            Attempted::Answered(response) => match super::body::grpc_status(response.headers()) {
                Some(status) => ("rpc.grpc.status_code".into(), i64::from(status).into()),
                None => {
                    let status = i64::from(response.status().as_u16());
                    ("http.response.status_code".into(), status.into())
                }
            },
            Attempted::Failed(SendError::Connect(failure)) => {
                ("error.type".into(), failure.reason().into())
            }
            Attempted::Failed(_) => ("error.type".into(), SERVER_RESET.into()),
            Attempted::TooSlow | Attempted::Late => ("error.type".into(), TIMEOUT.into()),
        };
        vec![
            ("undermesh.attempt".into(), i64::from(number).into()),
            ("network.peer.address".into(), endpoint.ip().to_canonical().to_string().into()),
            ("network.peer.port".into(), i64::from(endpoint.port()).into()),
            came,
        ]
    });
}

fn outcome(attempted: &Attempted) -> Outcome {
    match attempted {
        Attempted::Answered(response) => match super::body::grpc_status(response.headers()) {
            Some(status) if response.status() == StatusCode::OK => Outcome::Grpc(status),
            _ => Outcome::Status(response.status()),
        },
        Attempted::Failed(SendError::Connect(_)) => Outcome::LocalError(LocalError::ConnectFailure),
        Attempted::Failed(_) => Outcome::LocalError(LocalError::Reset),
        Attempted::TooSlow | Attempted::Late => Outcome::LocalError(LocalError::Timeout),
    }
}

fn failed(error: SendError) -> LocalReply {
    match error {
        SendError::Connect(failure) => LocalReply::connect_failure(&failure),
        SendError::Overflow(limit) => LocalReply::overflow(limit),
        SendError::Reset { detail, .. } => LocalReply::reset(detail.to_string()),
    }
}
