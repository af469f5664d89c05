//! What is seen of the mesh: metrics, the access log, spans, and the agent's own log.
//!
//! Every proxied connection is one [`ConnectionRecord`]. It counts the connection when it opens,
//! logs it when it opens and when it closes, and cannot be forgotten: dropping it closes it. A
//! connection that is looked at as requests is none: each of its requests is counted and logged, through
//! [`Requests`], when it is over.

mod access_log;
mod alike;
mod audit;
mod behind;
mod connection;
mod edges;
mod ends;
mod flags;
mod flows;
mod histogram;
mod http_metrics;
mod journal;
mod json;
mod labels;
mod line;
mod live;
mod logs;
mod metric;
mod packed;
mod page;
mod peer;
mod process;
mod record;
mod request_line;
mod requests;
mod series;
mod spans;
mod tcp_metrics;
mod telemetry;
mod texts;
mod told;

pub use access_log::{AccessLog, AccessLogSink};
pub use audit::{Asker, Audit, AuditEvent, AuditObject, AuditSink};
pub use connection::{ByteCounters, CloseReason, ConnectionInfo, Reporter, Security, Transport};
pub use edges::{Bytes, Connections, Destination, Edge, Edges, HttpRequests, Messages, Source};
pub use flags::{ResponseFlag, ResponseFlags};
pub use flows::{FlowPage, Flows};
pub use histogram::Histogram;
pub use logs::{LogError, LogFormat, LogHandle, init as init_logs};
pub use metric::{ENDS, Metric};
pub use peer::{Peer, ServiceLabel};
pub use process::resident_bytes;
pub use record::ConnectionRecord;
pub use request_line::path_as_logged;
pub use requests::{RequestInfo, Requests};
pub use spans::{
    Attribute, Directory, Endpoint, EndpointError, Event, Protocol, Resource, Span, SpanId,
    SpanKind, Spans, TraceId, TraceName, Traced, Value,
};
pub use telemetry::{ANSWERED, Denial, Telemetry};

/// What [`Directory::tls`] gives.
pub use tokio_rustls::rustls::ClientConfig;

/// Re-exported so that every crate registers metrics with the same version.
pub use prometheus_client;
