//! What the native wire counts.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Direction, GaugeGuard, Label};

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
        registry.register(
            "undermesh_native_connections",
            "Connections of the native wire that are open now, idle ones included",
            self.connections.clone(),
        );
        registry.register(
            "undermesh_native_handshakes",
            "TLS handshakes of the native wire, by result: full, resumed or a reason code",
            self.handshakes.clone(),
        );
        registry.register(
            "undermesh_native_sessions",
            "Sessions opened, by the connection they got: reused, prewarmed or fresh",
            self.sessions.clone(),
        );
        registry.register(
            "undermesh_native_retries",
            "Sessions opened again because their idle connection had died",
            self.retries.clone(),
        );
        registry.register(
            "undermesh_native_fallbacks",
            "Connections that went over HBONE because the native wire was not spoken, by reason",
            self.fallbacks.clone(),
        );
        registry.register(
            "undermesh_native_frame_errors",
            "Connections closed because a peer's bytes were no frames",
            self.frame_errors.clone(),
        );
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
