//! Requests: each one counted and logged once, when it is over.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use undermesh_model::{ObjectName, ResourceRef, traffic::ClusterKey};

use crate::{
    ConnectionInfo, Resource, ResponseFlags, Telemetry, TraceName, Traced,
    ends::Connection,
    http_metrics::{MessageSeries, Outcome, RequestSeries},
    labels::EndLabels,
    spans,
    told::Told,
};

/// Outcomes that a connection's requests to one place keep counters for.
const MAX_OUTCOMES: usize = 32;

/// The requests of one connection that go to one place. What metrics and the access log say about
/// all of them is made once.
#[derive(Debug)]
pub struct Requests {
    telemetry: Arc<Telemetry>,
    connection: u64,
    info: ConnectionInfo,
    /// What is told of them has this in common, if anybody is to hear of it.
    told: OnceLock<Arc<Connection>>,
    ends: OnceLock<Arc<EndLabels>>,
    resource: OnceLock<Arc<Resource>>,
    outcomes: Mutex<Vec<(Outcome, Arc<RequestSeries>)>>,
    messages: OnceLock<MessageSeries>,
}

/// One request, and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo<'a> {
    /// Generation of the configuration that decided.
    pub generation: u64,
    /// `GET`.
    pub method: &'a str,
    /// `Host` or `:authority`.
    pub authority: &'a str,
    /// As the client wrote it. Values in its query are not logged.
    pub path: &'a str,
    /// `HTTP/1.1`.
    pub protocol: &'static str,
    /// A gRPC request.
    pub grpc: bool,
    /// The answer's; `None` where there was none.
    pub status: Option<u16>,
    /// The answer's, in gRPC.
    pub grpc_status: Option<u16>,
    /// Why the answer is not the endpoint's, or not all of it.
    pub flags: ResponseFlags,
    /// The same as one stable code.
    pub reason: &'static str,
    /// More, for people.
    pub detail: Option<&'a str>,
    /// The policy that has refused it.
    pub policy: Option<ObjectName<'a>>,
    /// `x-request-id`.
    pub request_id: Option<&'a str>,
    /// Of the trace that it is part of.
    pub trace_id: Option<TraceName>,
    /// The object that the route is from. It is shared, as the next two are: whether two requests have the same is
    /// known without looking at it.
    pub route: Option<&'a Arc<ResourceRef>>,
    /// The route's own name.
    pub route_name: Option<&'a Arc<str>>,
    /// Where it was sent.
    pub cluster: Option<&'a Arc<ClusterKey>>,
    /// The endpoint that was tried last, where that is known better than from the ends.
    pub endpoint: Option<SocketAddr>,
    /// How many times it was sent.
    pub attempts: u32,
    /// Bytes of its body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// From its head to the end of the answer.
    pub duration: Duration,
    /// From its head to the head of the endpoint's answer.
    pub upstream_time: Option<Duration>,
    /// `user-agent`.
    pub user_agent: Option<&'a str>,
}

impl Requests {
    pub(crate) fn new(telemetry: &Arc<Telemetry>, connection: u64, info: ConnectionInfo) -> Self {
        Self {
            telemetry: Arc::clone(telemetry),
            connection,
            info,
            told: OnceLock::new(),
            ends: OnceLock::new(),
            resource: OnceLock::new(),
            outcomes: Mutex::default(),
            messages: OnceLock::new(),
        }
    }

    /// What is known about the connection and the place.
    pub fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Counts and logs one request that is over.
    pub fn record(&self, request: &RequestInfo<'_>) {
        let series = self.series(Outcome {
            grpc: request.grpc,
            status: request.status.unwrap_or_default(),
            grpc_status: request.grpc_status,
            flags: request.flags,
        });
        series.counters.requests.inc();
        series.counters.duration.observe(request.duration.as_secs_f64() * 1e3);
        series.counters.received.observe(request.received as f64);
        series.counters.sent.observe(request.sent as f64);
        self.telemetry.answered(request.reason);
        if self.telemetry.is_logging() {
            let connection = || Arc::new(Connection::new(self.connection, &self.info));
            self.telemetry.log(self.told.get_or_init(connection), &Told::Request(request));
        }
        let RequestInfo { reason, detail, policy, .. } = *request;
        self.telemetry.audit_denial(&self.info, reason, detail, policy);
    }

    /// Makes a span of one request that is over.
    pub fn trace(&self, request: &RequestInfo<'_>, traced: Traced) {
        let Some(spans) = self.telemetry.spans() else { return };
        let resource = self.resource.get_or_init(|| Arc::new(spans::resource(&self.info)));
        spans.record(spans::span_of(traced, resource, &self.info, request));
    }

    /// Where messages of gRPC clients, and of servers, are counted while they pass.
    pub fn messages(&self) -> [Counter; 2] {
        let series = self
            .messages
            .get_or_init(|| self.telemetry.http().messages(self.ends(), self.info.security));
        [series.counters.received.clone(), series.counters.sent.clone()]
    }

    fn series(&self, outcome: Outcome) -> Arc<RequestSeries> {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, series)) = outcomes.iter().find(|(known, _)| *known == outcome) {
            return Arc::clone(series);
        }
        let series = self.telemetry.http().requests(self.ends(), &outcome, self.info.security);
        let series = Arc::new(series);
        if outcomes.len() >= MAX_OUTCOMES {
            outcomes.clear();
        }
        outcomes.push((outcome, Arc::clone(&series)));
        series
    }

    fn ends(&self) -> &Arc<EndLabels> {
        self.ends.get_or_init(|| Arc::new(EndLabels::new(&self.info)))
    }
}
