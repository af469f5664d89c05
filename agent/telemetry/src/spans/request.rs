//! What a span says about a request: OpenTelemetry's semantic conventions for HTTP and RPC (stable names), and beside
//! them what Envoy's and Istio's spans say, so that dashboards find it (docs/reference/tracing.md).

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Attribute, Event, Resource, Span, SpanId, SpanKind, TraceId, Value};
use crate::{
    ConnectionInfo, Peer, Reporter, RequestInfo, Security, line::cut, request_line::without_values,
};

/// Longest text of a client's, in characters.
const MAX_TEXT: usize = 256;
/// Methods that are told by their names; what else clients think of is `_OTHER`.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
/// Reasons for which an answer is not complete, whatever its status says.
const BROKEN: [&str; 4] = ["client_reset", "server_reset", "timeout", "aborted"];

/// The place of a request in its trace, and what was noted about it on the way.
#[derive(Debug)]
pub struct Traced {
    /// The trace that it belongs to.
    pub trace_id: TraceId,
    /// The span's own name.
    pub span_id: SpanId,
    /// The span that has caused it.
    pub parent: Option<SpanId>,
    /// `tracestate`.
    pub state: String,
    /// When its head had arrived.
    pub start: SystemTime,
    /// What is done, where the place does not say that better: `HOST:PORT/*`.
    pub operation: Option<String>,
    /// Longest path that is told, in bytes.
    pub max_path_length: usize,
    /// What configuration wants to be told besides.
    pub tags: Vec<Attribute>,
    /// What has happened meanwhile.
    pub events: Vec<Event>,
}

/// The span of a request that is over.
pub(crate) fn span(
    traced: Traced,
    resource: &Arc<Resource>,
    info: &ConnectionInfo,
    request: &RequestInfo<'_>,
) -> Span {
    let kind = match info.reporter {
        Reporter::Source => SpanKind::Client,
        Reporter::Destination => SpanKind::Server,
    };
    let error = error(kind, request);
    let mut about = About(Vec::with_capacity(32));
    about.request(request, traced.max_path_length);
    about.answer(request, error.as_deref());
    about.ends(info, request);
    about.0.extend(traced.tags);
    Span {
        resource: Arc::clone(resource),
        trace_id: traced.trace_id,
        span_id: traced.span_id,
        parent: traced.parent,
        state: traced.state,
        name: traced
            .operation
            .or_else(|| operation(info))
            .unwrap_or_else(|| method(request).to_owned()),
        kind,
        start: traced.start,
        end: traced.start + request.duration,
        attributes: about.0,
        events: traced.events,
        error,
    }
}

/// Who makes spans: the workload on this side of the connections about which `info` is known.
pub(crate) fn resource(info: &ConnectionInfo) -> Resource {
    let own = match info.reporter {
        Reporter::Source => &info.source,
        Reporter::Destination => &info.destination,
    };
    let mut about = About(Vec::new());
    // As Istio names services for tracing: the canonical service and its namespace.
    about.text("service.name", &format!("{}.{}", own.canonical_service, own.namespace));
    about.text("service.namespace", &own.namespace);
    about.text("service.version", &own.canonical_revision);
    about.text("service.instance.id", &format!("{}.{}", own.pod, own.namespace));
    about.text("k8s.namespace.name", &own.namespace);
    about.text("k8s.pod.name", &own.pod);
    about.text("k8s.cluster.name", &own.cluster);
    about.text("telemetry.sdk.name", "undermesh");
    about.text("telemetry.sdk.language", "rust");
    about.text("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
    Resource(about.0)
}

/// `HOST:PORT/*`, as Istio names what arrives for a service; a pod without one is known by its canonical service.
fn operation(info: &ConnectionInfo) -> Option<String> {
    let port = info.upstream.or(info.dialled)?.port();
    let to = &info.destination;
    let host = match &info.service {
        Some(service) if !service.host.is_empty() => Cow::Borrowed(service.host.as_str()),
        _ if to.canonical_service.is_empty() => return None,
        _ => Cow::Owned(format!("{}.{}", to.canonical_service, to.namespace)),
    };
    Some(format!("{host}:{port}/*"))
}

fn method<'a>(request: &RequestInfo<'a>) -> &'a str {
    if METHODS.contains(&request.method) { request.method } else { "_OTHER" }
}

/// Why a request counts as failed, by OpenTelemetry's rules: a client's by every answer from 400 on, a server's
/// by its own faults alone.
fn error(kind: SpanKind, request: &RequestInfo<'_>) -> Option<String> {
    let from = if kind == SpanKind::Client { 400 } else { 500 };
    let failed_grpc = |status: u16| match kind {
        SpanKind::Client => status != 0,
        SpanKind::Server => matches!(status, 2 | 4 | 12 | 13 | 14 | 15),
    };
    match (request.status, request.grpc_status.filter(|_| request.grpc)) {
        (Some(_), Some(status)) if failed_grpc(status) => Some(status.to_string()),
        (Some(status), _) if status >= from => Some(status.to_string()),
        // The head of an answer says nothing about its end.
        (Some(_), _) if !BROKEN.contains(&request.reason) => None,
        _ => Some(request.reason.to_owned()),
    }
}

struct About(Vec<Attribute>);

impl About {
    fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push((Cow::Borrowed(key), value.into()));
    }

    /// A text of anybody's, shortened; nothing is left out.
    fn text(&mut self, key: &'static str, text: &str) {
        if !text.is_empty() {
            self.set(key, cut(text, MAX_TEXT).to_owned());
        }
    }

    /// Something of configuration's, by its name.
    fn named(&mut self, key: &'static str, one: Option<impl ToString>) {
        self.text(key, &one.map(|one| one.to_string()).unwrap_or_default());
    }

    fn number(&mut self, key: &'static str, number: u64) {
        self.set(key, i64::try_from(number).unwrap_or(i64::MAX));
    }

    fn address(&mut self, (ip, port): (&'static str, &'static str), address: SocketAddr) {
        self.set(ip, address.ip().to_canonical().to_string());
        self.number(port, address.port().into());
    }

    fn request(&mut self, request: &RequestInfo<'_>, max_path: usize) {
        self.set("http.request.method", method(request));
        if method(request) == "_OTHER" {
            self.text("http.request.method_original", request.method);
        }
        let written = without_values(request.path);
        let written = &written[..written.floor_char_boundary(max_path)];
        let (path, query) = written.split_once('?').unwrap_or((written, ""));
        self.set("url.scheme", "http");
        self.set("url.path", path);
        if !query.is_empty() {
            self.set("url.query", query);
        }
        self.set("url.full", format!("http://{}{written}", cut(request.authority, MAX_TEXT)));
        let (host, port) = match request.authority.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (request.authority, None),
        };
        self.text("server.address", host.trim_start_matches('[').trim_end_matches(']'));
        if let Some(port) = port {
            self.number("server.port", port);
        }
        self.set("network.protocol.name", "http");
        self.text("network.protocol.version", request.protocol.trim_start_matches("HTTP/"));
        self.text("user_agent.original", request.user_agent.unwrap_or_default());
        self.number("http.request.body.size", request.received);
        if request.grpc {
            self.set("rpc.system", "grpc");
            let mut names = path.trim_start_matches('/').splitn(2, '/');
            self.text("rpc.service", names.next().unwrap_or_default());
            self.text("rpc.method", names.next().unwrap_or_default());
        }
    }

    fn answer(&mut self, request: &RequestInfo<'_>, error: Option<&str>) {
        if let Some(status) = request.status {
            self.number("http.response.status_code", status.into());
        }
        if let Some(status) = request.grpc_status.filter(|_| request.grpc) {
            self.number("rpc.grpc.status_code", status.into());
        }
        if let Some(error) = error {
            self.text("error.type", error);
        }
        self.number("http.response.body.size", request.sent);
        self.set("response_flags", request.flags.text().into_owned());
        self.text("undermesh.reason", request.reason);
        self.text("undermesh.detail", request.detail.unwrap_or_default());
        self.named("undermesh.policy", request.policy);
        if request.attempts > 1 {
            self.number("http.request.resend_count", (request.attempts - 1).into());
        }
        if let Some(time) = request.upstream_time {
            self.number("undermesh.upstream_ms", milliseconds(time));
        }
    }

    /// What Envoy's and Istio's spans say.
    fn ends(&mut self, info: &ConnectionInfo, request: &RequestInfo<'_>) {
        self.set("component", "proxy");
        self.text("guid:x-request-id", request.request_id.unwrap_or_default());
        self.named("upstream_cluster", request.cluster);
        self.named("upstream_cluster.name", request.cluster);
        self.named("undermesh.route", request.route);
        self.address(("client.address", "client.port"), info.source_addr);
        let peer = match info.reporter {
            Reporter::Source => request.endpoint.or(info.upstream),
            Reporter::Destination => Some(info.source_addr),
        };
        if let Some(peer) = peer {
            self.address(("network.peer.address", "network.peer.port"), peer);
        }
        let own = match info.reporter {
            Reporter::Source => &info.source,
            Reporter::Destination => &info.destination,
        };
        self.text("istio.canonical_service", &own.canonical_service);
        self.text("istio.canonical_revision", &own.canonical_revision);
        self.text("istio.namespace", &own.namespace);
        self.text("istio.cluster_id", &own.cluster);
        self.named("istio.mesh_id", own.principal.as_ref().map(|it| &it.trust_domain));
        self.text("source.workload", &workload(&info.source));
        self.text("destination.workload", &workload(&info.destination));
        self.named("source.principal", info.source.principal.as_ref());
        self.named("destination.principal", info.destination.principal.as_ref());
        let mutual = info.security == Security::MutualTls;
        self.set("connection_security_policy", if mutual { "mutual_tls" } else { "none" });
    }
}

fn workload(peer: &Peer) -> String {
    if peer.workload.is_empty() {
        return String::new();
    }
    format!("{}.{}", peer.workload, peer.namespace)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(
        kind: SpanKind,
        status: Option<u16>,
        grpc: Option<u16>,
        reason: &'static str,
    ) -> String {
        let request = RequestInfo {
            status,
            grpc: grpc.is_some(),
            grpc_status: grpc,
            reason,
            ..RequestInfo::default()
        };
        error(kind, &request).unwrap_or_default()
    }

    #[test]
    fn a_clients_failure_is_not_always_the_servers() {
        for (status, grpc, reason, client, server) in [
            (Some(200), None, "answered", "", ""),
            (Some(404), None, "answered", "404", ""),
            (Some(503), None, "no_endpoints", "503", "503"),
            (Some(200), Some(0), "answered", "", ""),
            (Some(200), Some(5), "answered", "5", ""),
            (Some(200), Some(14), "answered", "14", "14"),
            (Some(200), None, "server_reset", "server_reset", "server_reset"),
            (None, None, "client_reset", "client_reset", "client_reset"),
            (Some(429), None, "fault_injected", "429", ""),
        ] {
            assert_eq!(
                failed(SpanKind::Client, status, grpc, reason),
                client,
                "{status:?} {grpc:?}"
            );
            assert_eq!(
                failed(SpanKind::Server, status, grpc, reason),
                server,
                "{status:?} {grpc:?}"
            );
        }
    }

    #[test]
    fn what_clients_write_is_bounded_and_values_of_queries_are_left_out() {
        let long = "x".repeat(2000);
        let path = format!("/{long}?a=secret");
        let request = RequestInfo {
            method: "BREW",
            authority: "[fd00::1]:80",
            path: &path,
            ..RequestInfo::default()
        };
        let mut about = About(Vec::new());
        about.request(&request, 100);
        let get = |key: &str| {
            about.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
        };
        assert_eq!(get("http.request.method"), Some("_OTHER".into()));
        assert_eq!(get("http.request.method_original"), Some("BREW".into()));
        assert_eq!(
            (get("server.address"), get("server.port")),
            (Some("fd00::1".into()), Some(80.into()))
        );
        assert_eq!(get("url.path"), Some(path[..100].into()));
        let request = RequestInfo { path: "/a?b=secret", authority: &long, ..request };
        let mut about = About(Vec::new());
        about.request(&request, 100);
        let text = format!("{:?}", about.0);
        assert!(text.contains("b=*") && !text.contains("secret"), "{text}");
        assert!(text.len() < 2000, "{text}");
    }
}
