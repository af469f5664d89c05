//! What is known about a request when it is over: the one place that telemetry hangs on.
//!
//! A [`RequestLog`] travels with the request, and then with the body of its answer; it is counted and logged
//! once, when it is dropped, whatever the request came to. The client's side (`exchange.rs`) and the
//! destination's (`crate::guard`) each have one.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header::USER_AGENT,
    request::Parts, uri::PathAndQuery,
};
use undermesh_model::ResourceRef;
use undermesh_snapshot::traffic::{ClusterSpec, CompiledRoute, RouteAction};
use undermesh_telemetry::{RequestInfo, Requests, ResponseFlags, TraceName};

use super::{
    body::grpc_status,
    head::{Head, REQUEST_ID},
    idle::{Open, Streams},
    meter::{Meter, Upload},
    patient::Late,
};
use crate::{
    authorize::Denial,
    metrics::Metrics,
    pod::Pod,
    trace::{self, Trace},
};

pub(crate) use undermesh_telemetry::{ANSWERED, ResponseFlag as Flag};

/// The client has left before it had its answer.
pub(crate) const CLIENT_RESET: &str = "client_reset";
/// The endpoint has broken the connection.
pub(crate) const SERVER_RESET: &str = "server_reset";
/// The endpoint has not answered in time.
pub(crate) const TIMEOUT: &str = "timeout";
/// The head is larger than may be.
pub(crate) const HEAD_TOO_LARGE: &str = "head_too_large";
/// The agent has let go of the request.
const ABORTED: &str = "aborted";

/// A request, and what became of it.
pub(crate) struct RequestLog {
    /// Who asks whom, as far as is known; the same for many requests.
    pub(crate) requests: Arc<Requests>,
    /// Generation of the configuration that decided.
    pub(crate) generation: u64,
    /// The method.
    pub(crate) method: Method,
    /// `Host` or `:authority`.
    pub(crate) authority: String,
    /// The path with its query, as the client wrote it; nothing for a CONNECT.
    pub(crate) path: Option<PathAndQuery>,
    /// Version that the client speaks.
    pub(crate) version: Version,
    /// A gRPC request.
    pub(crate) grpc: bool,
    /// `x-request-id`.
    pub(crate) request_id: Option<HeaderValue>,
    /// The trace that it is part of, where its client says so or we do.
    pub(crate) trace_id: Option<TraceName>,
    /// Its place in that trace, where tracing is on.
    pub(crate) trace: Option<Trace>,
    /// `user-agent`.
    pub(crate) user_agent: Option<HeaderValue>,
    /// The route; `None` where none is about the request.
    pub(crate) route: Option<Arc<CompiledRoute>>,
    /// Where it was sent.
    pub(crate) cluster: Option<Arc<ClusterSpec>>,
    /// The endpoint that was tried last.
    pub(crate) endpoint: Option<SocketAddr>,
    /// How many times it was sent.
    pub(crate) attempts: u32,
    /// The answer.
    pub(crate) status: Option<StatusCode>,
    /// Status of a gRPC answer.
    pub(crate) grpc_status: Option<u16>,
    /// Why the answer is not the endpoint's.
    pub(crate) flags: ResponseFlags,
    /// The same as one code; nothing while that is open.
    pub(crate) reason: Option<&'static str>,
    /// What a local answer is about, in words.
    pub(crate) detail: Option<String>,
    /// The policy that has refused it.
    pub(crate) policy: Option<ResourceRef>,
    /// The request's body.
    pub(crate) upload: Upload,
    /// The answer's body.
    pub(crate) download: Meter,
    /// Whether its client takes too long for it.
    pub(crate) late: Late,
    /// When the request's head had arrived.
    pub(crate) started: Instant,
    /// Time until the endpoint began to answer.
    pub(crate) upstream_time: Option<Duration>,
    /// The pod whose proxy this is.
    pod: Arc<Pod>,
    /// Why its connection was broken off, if it was.
    cut: Arc<Cut>,
    /// The connection is in use.
    _open: Open,
}

/// Why a connection was broken off from this side, with all of its requests.
#[derive(Debug, Default)]
pub(crate) struct Cut(OnceLock<Denial>);

impl Cut {
    /// A policy that has changed refuses it.
    pub(crate) fn set(&self, denial: &Denial) {
        // Only the first one matters.
        let _ = self.0.set(denial.clone());
    }
}

impl RequestLog {
    /// A request of a client has arrived at `pod`'s proxy.
    pub(crate) fn new(
        requests: &Arc<Requests>,
        (pod, cut, streams): (&Arc<Pod>, &Arc<Cut>, &Arc<Streams>),
        generation: u64,
        parts: &Parts,
    ) -> Self {
        Self {
            requests: Arc::clone(requests),
            generation,
            method: parts.method.clone(),
            authority: String::new(),
            path: parts.uri.path_and_query().cloned(),
            version: parts.version,
            grpc: false,
            request_id: None,
            trace_id: None,
            trace: None,
            user_agent: parts.headers.get(USER_AGENT).cloned(),
            route: None,
            cluster: None,
            endpoint: None,
            attempts: 0,
            status: None,
            grpc_status: None,
            flags: ResponseFlags::default(),
            reason: None,
            detail: None,
            policy: None,
            upload: Upload::default(),
            download: Meter::default(),
            late: Late::default(),
            started: Instant::now(),
            upstream_time: None,
            pod: Arc::clone(pod),
            cut: Arc::clone(cut),
            _open: streams.open(),
        }
    }

    /// Its head is one that rules can be asked about.
    pub(crate) fn read(&mut self, head: &Head) {
        head.view().authority.clone_into(&mut self.authority);
        self.request_id = head.parts.headers.get(REQUEST_ID).cloned();
        let tracing = self.pod.shared.config.tracing.as_ref();
        self.trace = tracing.map(|tracing| Trace::begin(tracing, &head.parts.headers));
        self.trace_id = match &self.trace {
            Some(trace) => Some(trace.context.trace_id.into()),
            None => trace::named(&head.parts.headers),
        };
        self.grpc = head.grpc;
        if self.grpc {
            self.upload.expect_messages();
            self.download.expect_messages();
        }
    }

    /// The endpoint has begun to answer.
    pub(crate) fn answered<B>(&mut self, response: &Response<B>) {
        self.status = Some(response.status());
        self.grpc_status = grpc_status(response.headers());
        self.upstream_time = Some(self.started.elapsed());
        self.count_messages();
    }

    /// It is answered here.
    pub(crate) fn answered_here(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        self.grpc_status = grpc_status(headers);
    }

    /// What has become of it, if that is not known already.
    pub(crate) fn because(&mut self, reason: &'static str, flag: Option<Flag>) {
        self.reason.get_or_insert(reason);
        if let Some(flag) = flag {
            self.flag(flag);
        }
    }

    /// The same, where the other end broke off; its client may be the reason.
    pub(crate) fn broken(&mut self, reason: &'static str, flag: Flag) {
        match self.late.reason() {
            Some(late) => self.because(late, Some(Flag::StreamIdle)),
            None => self.because(reason, Some(flag)),
        }
    }

    /// Notes a flag.
    pub(crate) fn flag(&mut self, flag: Flag) {
        self.flags.insert(flag);
    }

    /// `HOST:PORT/*`, as Istio's routes name what they are for; a rule that spreads requests over several
    /// destinations is named itself.
    fn operation(&self) -> Option<String> {
        let key = &self.cluster.as_ref()?.key;
        let route = self.route.as_ref().filter(|route| match &route.action {
            RouteAction::Forward(targets) => targets.len() > 1 && !route.name.is_empty(),
            RouteAction::Redirect(_) | RouteAction::Direct(_) => false,
        });
        let of = route.map_or(key.host.as_str(), |route| &*route.name);
        Some(format!("{of}:{}/*", key.port))
    }

    /// From now on, messages count where everybody sees them.
    fn count_messages(&mut self) {
        if self.grpc {
            let [received, sent] = self.requests.messages();
            self.upload.count_messages(received);
            self.download.count_messages(sent);
        }
    }

    /// Somebody has let go of it before it had come to its end.
    fn left(&mut self) {
        if let Some(Denial { reason, detail }) = self.cut.0.get() {
            self.detail = Some(detail.to_string());
            self.because(reason, Some(Flag::Denied));
        } else if self.pod.kill.is_cancelled() {
            self.because(ABORTED, None);
        } else {
            self.broken(CLIENT_RESET, Flag::ClientGone);
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if self.reason.is_none() {
            self.left();
        }
        self.count_messages();
        if let Some(reason @ (HEAD_TOO_LARGE | "body_stalled" | "body_too_slow")) = self.reason {
            self.pod.shared.metrics.record_client_limit(reason);
        }
        let route = self.route.as_deref();
        let info = RequestInfo {
            generation: self.generation,
            method: self.method.as_str(),
            authority: &self.authority,
            path: self.path.as_ref().map_or("", PathAndQuery::as_str),
            protocol: protocol(self.version),
            grpc: self.grpc,
            status: self.status.map(|status| status.as_u16()),
            grpc_status: self.grpc_status,
            flags: self.flags,
            reason: self.reason.unwrap_or(ABORTED),
            detail: self.detail.as_deref(),
            policy: self.policy.as_ref().map(ResourceRef::named),
            request_id: text(self.request_id.as_ref()),
            trace_id: self.trace_id,
            route: route.map(|route| &route.origin),
            route_name: route.map(|route| &route.name),
            cluster: self.cluster.as_ref().map(|spec| &spec.key),
            endpoint: self.endpoint,
            attempts: self.attempts,
            received: self.upload.bytes(),
            sent: self.download.bytes(),
            duration: self.started.elapsed(),
            upstream_time: self.upstream_time,
            user_agent: text(self.user_agent.as_ref()),
        };
        self.requests.record(&info);
        let tracing = self.pod.shared.config.tracing.as_ref();
        if let Some((trace, tracing)) = self.trace.take().zip(tracing)
            && let Some(traced) = trace.into_traced(tracing, || self.operation())
        {
            self.requests.trace(&info, traced);
        }
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok()
}

/// Bytes of a client that are no request, and that were answered before anybody could look at them.
pub(crate) fn unreadable(
    requests: &Requests,
    metrics: &Metrics,
    generation: u64,
    error: &hyper::Error,
) {
    if !error.is_parse() {
        return;
    }
    let too_large = error.is_parse_too_large();
    let (status, reason) = if too_large { (431, HEAD_TOO_LARGE) } else { (400, "bad_request") };
    if too_large {
        metrics.record_client_limit(reason);
    }
    let mut flags = ResponseFlags::default();
    flags.insert(Flag::ProtocolError);
    requests.record(&RequestInfo {
        generation,
        status: Some(status),
        flags,
        reason,
        detail: Some(&error.to_string()),
        ..RequestInfo::default()
    });
}

/// As access logs have it.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/2",
    }
}
