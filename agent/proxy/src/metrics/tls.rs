//! TLS handshakes within the mesh, over both wires: how they end, and how long those take that succeed.
//!
//! A handshake begins when the connection is there and ends when it is known who the peer is. What goes before and
//! after it, finding a certificate, connecting, HTTP/2, is none of it.

use std::time::Instant;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
    },
    registry::Registry,
};
use rustls::HandshakeKind;
use undermesh_telemetry::{Histogram, Metric};

use super::Label;

static HANDSHAKES: Metric = Metric::counter(
    "undermesh_tls_handshakes",
    &["side", "result"],
    "TLS handshakes of both wires, as the mesh's `client` or `server`: `full`, `resumed`, or the \
     [reason](access-log.md#reasons-given-by-the-proxy) of the failure",
);
static DURATION: Metric = Metric::histogram(
    "undermesh_tls_handshake_seconds",
    &["side", "result"],
    "how long handshakes took that succeeded, `full` or `resumed`: from the open connection until \
     it is known who the peer is",
);

/// In seconds: without a network in between, a resumed one takes half a millisecond.
const BUCKETS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Which end of a handshake an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

impl Role {
    const fn label(self) -> Label {
        let value = match self {
            Self::Client => "client",
            Self::Server => "server",
        };
        ("side", value)
    }
}

#[derive(Clone, Copy, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(&BUCKETS)
    }
}

type Outcomes = Family<[Label; 2], Counter>;

/// Both families, with what most handshakes are counted in at hand.
#[derive(Clone, Debug)]
pub(crate) struct TlsMetrics {
    outcomes: Outcomes,
    durations: Family<[Label; 2], Histogram, Buckets>,
    client: Successes,
    server: Successes,
}

#[derive(Clone, Debug)]
struct Successes {
    full: (Counter, Histogram),
    resumed: (Counter, Histogram),
}

impl Default for TlsMetrics {
    fn default() -> Self {
        let outcomes = Outcomes::default();
        let durations = Family::new_with_constructor(Buckets);
        let of = |role: Role, result| {
            let labels = [role.label(), ("result", result)];
            (outcomes.get_or_create_owned(&labels), durations.get_or_create_owned(&labels))
        };
        let successes = |role| Successes { full: of(role, "full"), resumed: of(role, "resumed") };
        let (client, server) = (successes(Role::Client), successes(Role::Server));
        Self { client, server, outcomes, durations }
    }
}

impl TlsMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        HANDSHAKES.register(registry, self.outcomes.clone());
        DURATION.register(registry, self.durations.clone());
    }

    /// A handshake that has not begun.
    pub(crate) const fn handshake(&self, role: Role) -> Handshake<'_> {
        Handshake { metrics: self, role, begun: None }
    }
}

/// One handshake, counted once: at the first of its ends that it is told of.
#[derive(Debug)]
pub(crate) struct Handshake<'a> {
    metrics: &'a TlsMetrics,
    role: Role,
    /// While it runs.
    begun: Option<Instant>,
}

impl Handshake<'_> {
    pub(crate) fn begin(&mut self) {
        self.begun = Some(Instant::now());
    }

    /// The peer is known.
    pub(crate) fn done(&mut self, kind: HandshakeKind) {
        let Some(begun) = self.begun.take() else { return };
        let of_role = match self.role {
            Role::Client => &self.metrics.client,
            Role::Server => &self.metrics.server,
        };
        let (counter, duration) = match kind {
            HandshakeKind::Resumed => &of_role.resumed,
            _ => &of_role.full,
        };
        counter.inc();
        duration.observe(begun.elapsed().as_secs_f64());
    }

    /// What it was made for has failed; if that was the handshake, because of this.
    pub(crate) fn failed(&mut self, reason: &'static str) {
        if self.begun.take().is_some() {
            let labels = [self.role.label(), ("result", reason)];
            self.metrics.outcomes.get_or_create(&labels).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_handshake_is_counted_once_and_only_if_it_was_begun() {
        let (mut registry, metrics) = (Registry::default(), TlsMetrics::default());
        metrics.register(&mut registry);
        let mut never = metrics.handshake(Role::Client);
        never.failed("connection_refused");
        let mut good = metrics.handshake(Role::Client);
        good.begin();
        good.done(HandshakeKind::Resumed);
        good.failed("http2_handshake");
        let mut bad = metrics.handshake(Role::Server);
        bad.begin();
        bad.failed("handshake_timeout");
        bad.failed("handshake_timeout");
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let name = "undermesh_tls_handshakes_total";
        for line in [
            format!("{name}{{side=\"client\",result=\"resumed\"}} 1"),
            format!("{name}{{side=\"client\",result=\"full\"}} 0"),
            format!("{name}{{side=\"server\",result=\"handshake_timeout\"}} 1"),
            "undermesh_tls_handshake_seconds_count{side=\"client\",result=\"resumed\"} 1"
                .to_owned(),
            "undermesh_tls_handshake_seconds_count{side=\"server\",result=\"full\"} 0".to_owned(),
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in {text}");
        }
        assert_eq!(text.matches(name).count(), 5, "{text}");
    }
}
