//! What is known about a request when it is over: the one place that telemetry hangs on.
//!
//! A [`RequestLog`] travels with the request, and then with the body of its answer; it is written once,
//! when it is dropped, whatever the request came to.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{Response, StatusCode, Version, request::Parts, uri::PathAndQuery};
use undermesh_model::ResourceRef;
use undermesh_snapshot::traffic::ClusterKey;

use super::{
    body::grpc_status,
    front::Front,
    head::{Head, REQUEST_ID},
};

/// Envoy's response flags: why an answer is not the endpoint's, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flag {
    /// No route.
    NoRoute,
    /// No endpoint that may be used.
    NoHealthyUpstream,
    /// A limit was reached.
    Overflow,
    /// No connection to the endpoint.
    ConnectionFailure,
    /// The endpoint broke the connection.
    ConnectionTermination,
    /// The endpoint's answer took too long.
    Timeout,
    /// All retries failed.
    RetryLimit,
    /// A delay was injected.
    Delay,
    /// The answer was injected.
    Fault,
    /// The client left before the answer was complete.
    ClientGone,
    /// The client's bytes are no request.
    ProtocolError,
    /// Policy says no.
    Denied,
}

impl Flag {
    /// As `%RESPONSE_FLAGS%` has it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "NR",
            Self::NoHealthyUpstream => "UH",
            Self::Overflow => "UO",
            Self::ConnectionFailure => "UF",
            Self::ConnectionTermination => "UC",
            Self::Timeout => "UT",
            Self::RetryLimit => "URX",
            Self::Delay => "DI",
            Self::Fault => "FI",
            Self::ClientGone => "DC",
            Self::ProtocolError => "DPE",
            Self::Denied => "UAEX",
        }
    }
}

/// A request, and what became of it.
#[derive(Debug)]
pub(crate) struct RequestLog {
    /// The client.
    pub(crate) client: SocketAddr,
    /// What it dialled.
    pub(crate) dialled: SocketAddr,
    /// Generation of the configuration that decided.
    pub(crate) generation: u64,
    /// The method.
    pub(crate) method: String,
    /// `Host` or `:authority`.
    pub(crate) authority: String,
    /// The path, with its query.
    pub(crate) path: String,
    /// Version that the client speaks.
    pub(crate) version: Version,
    /// A gRPC request.
    pub(crate) grpc: bool,
    /// `x-request-id`.
    pub(crate) request_id: String,
    /// Object and name of the route; `None` where no route is about the request.
    pub(crate) route: Option<(ResourceRef, String)>,
    /// Where it was sent.
    pub(crate) cluster: Option<ClusterKey>,
    /// The endpoint that was tried last.
    pub(crate) endpoint: Option<SocketAddr>,
    /// How many times it was sent.
    pub(crate) attempts: u32,
    /// The answer.
    pub(crate) status: Option<StatusCode>,
    /// Status of a gRPC answer.
    pub(crate) grpc_status: Option<u16>,
    /// Why the answer is not the endpoint's.
    pub(crate) flags: Vec<Flag>,
    /// What a local answer is about, in words.
    pub(crate) detail: Option<String>,
    /// Bytes of the request's body.
    pub(crate) received: u64,
    /// Bytes of the answer's body.
    pub(crate) sent: u64,
    /// When the request's head had arrived.
    pub(crate) started: Instant,
    /// Time until the endpoint began to answer.
    pub(crate) upstream_time: Option<Duration>,
}

impl RequestLog {
    /// A request has arrived.
    pub(crate) fn new(front: &Front, generation: u64, parts: &Parts) -> Self {
        Self {
            client: front.client,
            dialled: front.dialled,
            generation,
            method: parts.method.to_string(),
            authority: String::new(),
            path: parts.uri.path_and_query().map_or("", PathAndQuery::as_str).to_owned(),
            version: parts.version,
            grpc: false,
            request_id: String::new(),
            route: None,
            cluster: None,
            endpoint: None,
            attempts: 0,
            status: None,
            grpc_status: None,
            flags: Vec::new(),
            detail: None,
            received: 0,
            sent: 0,
            started: Instant::now(),
            upstream_time: None,
        }
    }

    /// Its head is one that rules can be asked about.
    pub(crate) fn read(&mut self, head: &Head) {
        self.authority = head.view().authority.to_owned();
        self.grpc = head.grpc;
        let id = head.parts.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        self.request_id = id.unwrap_or_default().to_owned();
    }

    /// The endpoint has begun to answer.
    pub(crate) fn answered<B>(&mut self, response: &Response<B>) {
        self.status = Some(response.status());
        self.grpc_status = grpc_status(response.headers());
        self.upstream_time = Some(self.started.elapsed());
    }

    /// Notes a flag.
    pub(crate) fn flag(&mut self, flag: Flag) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }

    /// The flags as the access log has them; `-` for none.
    pub(crate) fn flags(&self) -> String {
        let flags: Vec<&str> = self.flags.iter().map(|flag| flag.as_str()).collect();
        if flags.is_empty() { "-".to_owned() } else { flags.join(",") }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let route = self.route.as_ref().map(|(origin, name)| format!("{origin}/{name}"));
        let cluster = self.cluster.as_ref();
        tracing::debug!(
            client = %self.client,
            dialled = %self.dialled,
            generation = self.generation,
            method = self.method,
            authority = self.authority,
            path = self.path,
            version = ?self.version,
            grpc = self.grpc,
            request_id = self.request_id,
            route,
            host = cluster.map(|key| key.host.as_str()),
            subset = cluster.map(|key| key.subset.as_str()),
            endpoint = self.endpoint.map(|address| address.to_string()),
            attempts = self.attempts,
            status = self.status.map(|status| status.as_u16()),
            grpc_status = self.grpc_status,
            flags = self.flags(),
            detail = self.detail,
            received = self.received,
            sent = self.sent,
            duration = ?self.started.elapsed(),
            upstream_time = ?self.upstream_time,
            "request"
        );
    }
}
