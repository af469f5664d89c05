//! What the native wire counts.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use undermesh_telemetry::Metric;

use super::{Direction, GaugeGuard, Label};

static CONNECTIONS: Metric = Metric::gauge(
    "undermesh_native_connections",
    &["direction"],
    "open connections of the [native wire](wire.md), idle ones included",
);
static HANDSHAKES: Metric = Metric::counter(
    "undermesh_native_handshakes",
    &["direction", "result"],
    "TLS handshakes of the native wire: `full`, `resumed`, or the reason of the failure",
);
static SESSIONS: Metric = Metric::counter(
    "undermesh_native_sessions",
    &["connection"],
    "sessions opened, by the connection they got: `reused`, `prewarmed` (made in advance), \
     `fresh`",
);
static RETRIES: Metric = Metric::counter(
    "undermesh_native_retries",
    &[],
    "sessions asked for again because their idle connection had died",
);
static FALLBACKS: Metric = Metric::counter(
    "undermesh_native_fallbacks",
    &["reason"],
    "connections made over HBONE because the native wire was not spoken",
);
static FRAME_ERRORS: Metric = Metric::counter(
    "undermesh_native_frame_errors",
    &["direction", "error"],
    "connections closed because of what a peer has sent: `unknown_type`, `flags`, `too_long`, \
     `payload`, `unexpected`",
);

/// How a session came to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made for this session.
    Fresh,
    /// A former session has left it.
    Reused,
    /// It was made in advance.
    Prewarmed,
}

impl Origin {
    /// As the label says it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Reused => "reused",
            Self::Prewarmed => "prewarmed",
        }
    }
}

/// Everything about the native wire that is counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct NativeMetrics {
    connections: Family<[Label; 1], Gauge>,
    handshakes: Family<[Label; 2], Counter>,
    sessions: Family<[Label; 1], Counter>,
    retries: Counter,
    fallbacks: Family<[Label; 1], Counter>,
    frame_errors: Family<[Label; 2], Counter>,
}

impl NativeMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        CONNECTIONS.register(registry, self.connections.clone());
        HANDSHAKES.register(registry, self.handshakes.clone());
        SESSIONS.register(registry, self.sessions.clone());
        RETRIES.register(registry, self.retries.clone());
        FALLBACKS.register(registry, self.fallbacks.clone());
        FRAME_ERRORS.register(registry, self.frame_errors.clone());
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connection(&self, direction: Direction) -> GaugeGuard {
        GaugeGuard::new(self.connections.get_or_create_owned(&[direction.label()]))
    }

    /// One handshake ended with `result`.
    pub(crate) fn record_handshake(&self, direction: Direction, result: &'static str) {
        self.handshakes.get_or_create(&[direction.label(), ("result", result)]).inc();
    }

    /// One session was opened.
    pub(crate) fn record_session(&self, origin: Origin) {
        self.sessions.get_or_create(&[("connection", origin.as_str())]).inc();
    }

    /// One idle connection was dead, and a session is opened on another.
    pub(crate) fn record_retry(&self) {
        self.retries.inc();
    }

    /// One connection goes over HBONE.
    pub(crate) fn record_fallback(&self, reason: &'static str) {
        self.fallbacks.get_or_create(&[("reason", reason)]).inc();
    }

    /// One connection is closed for what a peer has sent.
    pub(crate) fn record_frame_error(&self, direction: Direction, error: &'static str) {
        self.frame_errors.get_or_create(&[direction.label(), ("error", error)]).inc();
    }
}
