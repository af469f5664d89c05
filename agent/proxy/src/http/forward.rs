//! Step *forward*: a request goes to an endpoint, and to another one where that fails and the rule
//! wants it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, UPGRADE},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use undermesh_model::traffic::Retries;
use undermesh_snapshot::traffic::ClusterSpec;

use super::{
    deadline::{Arrival, Deadline, passed},
    dial::{Asks, Dialer},
    front::Front,
    head::Head,
    local_reply::LocalReply,
    log::{Flag, RequestLog},
    replay::Replay,
    retry::{self, Went},
};
use crate::upstream::{Cluster, Lease, LocalError, Outcome, Pick, Refusal, SendError};

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
            cluster = self.front.pod.upstreams.resolved(self.spec) => cluster,
            () = passed(&mut deadline) => return Err(LocalReply::timeout()),
        };
        let mut tried = Vec::new();
        loop {
            let number = log.attempts;
            let lease = self.admit(&cluster, &tried, number > 0)?;
            let endpoint = lease.endpoint().address;
            log.attempts += 1;
            log.endpoint = Some(endpoint);
            let attempted = self.attempt(&lease, log.attempts, &mut deadline).await;
            match self.judge(attempted, number, log) {
                Judged::Final(Ok(response)) => return Ok(Answered { response, lease, deadline }),
                Judged::Final(Err((outcome, reply))) => {
                    if let Some(outcome) = outcome {
                        lease.finish(outcome);
                    }
                    return Err(reply);
                }
                Judged::Again(outcome) => lease.finish(outcome),
            }
            tried.push(endpoint);
            self.pause(number, &mut deadline).await?;
        }
    }

    fn admit(
        &self,
        cluster: &Cluster,
        tried: &[SocketAddr],
        retry: bool,
    ) -> Result<Lease, LocalReply> {
        let avoid = self.retries.as_ref().is_some_and(|retries| retries.avoid_previous);
        let pick = Pick {
            hash: self.hash,
            client: self.front.client.ip(),
            dialled: self.front.dialled,
            tried: if avoid { tried } else { &[] },
            retry,
        };
        cluster.admit(&pick).map_err(|refusal| match refusal {
            Refusal::NoEndpoints | Refusal::NoHealthy => LocalReply::no_healthy_upstream(),
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
        tokio::select! {
            sent = lease.send(&dialer, self.request(number)) => match sent {
                Ok(response) => Attempted::Answered(response),
                Err(error) => Attempted::Failed(error),
            },
            () = passed(&mut per_try) => Attempted::TooSlow,
            () = passed(deadline) => Attempted::Late,
        }
    }

    fn request(&self, number: u32) -> Request<crate::upstream::Body> {
        let mut request = Request::new(self.replay.sender().boxed_unsync());
        let parts = &self.head.parts;
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = parts.headers.clone();
        let headers = request.headers_mut();
        headers.insert("x-envoy-attempt-count", HeaderValue::from(number));
        if let Some(upgrade) = &self.head.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, upgrade.clone());
        }
        request
    }

    /// What an attempt means for the request. `number` counts earlier ones.
    fn judge(&self, attempted: Attempted, number: u32, log: &mut RequestLog) -> Judged {
        let went = match &attempted {
            Attempted::Answered(response) => Went::Answered(response.status(), response.headers()),
            Attempted::Failed(error) => Went::Failed(error),
            Attempted::TooSlow => Went::TooSlow,
            Attempted::Late => {
                let outcome = Outcome::LocalError(LocalError::Timeout);
                return Judged::Final(Err((Some(outcome), LocalReply::timeout())));
            }
        };
        let retries = self.retries.as_ref().filter(|retries| retry::wants(&retries.on, &went));
        let again = retries.is_some_and(|retries| number < retries.attempts);
        if again && self.replay.can_repeat() {
            return Judged::Again(outcome(&attempted));
        }
        if retries.is_some_and(|retries| retries.attempts > 0) {
            log.flag(Flag::RetryLimit);
        }
        let outcome = Some(outcome(&attempted)).filter(|_| !self.replay.is_broken());
        let reply = match attempted {
            Attempted::Answered(response) => return Judged::Final(Ok(response)),
            // Not the endpoint's fault.
            _ if self.replay.is_broken() => LocalReply::client_gone(),
            Attempted::Failed(error) => failed(error),
            Attempted::TooSlow | Attempted::Late => LocalReply::timeout(),
        };
        Judged::Final(Err((outcome, reply)))
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

/// What becomes of a request after an attempt.
enum Judged {
    /// Nothing more is tried. Without an outcome, the attempt says nothing about the endpoint.
    Final(Result<Response<Incoming>, (Option<Outcome>, LocalReply)>),
    Again(Outcome),
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
        SendError::Connect(failure) => LocalReply::connect_failure(failure.to_string()),
        SendError::Overflow(limit) => LocalReply::overflow(limit),
        SendError::Reset { detail, .. } => LocalReply::reset(detail.to_string()),
    }
}
