//! Why a connection failed: one small enum that knows the side, the reason code of logs and
//! metrics, and Istio's response flag.

use std::{io, net::SocketAddr, sync::Arc};

use http::StatusCode;

/// The side of the proxy that a failure belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Whoever connected to the proxy.
    Downstream,
    /// Whoever the proxy connects to.
    Upstream,
    /// The proxy's own node: its configuration and certificates.
    Local,
}

/// Why a connection was not established. Cheap to clone, because callers that wait for the same
/// tunnel share one failure.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The BPF programs did not redirect this connection.
    #[error(
        "no original destination is known for {peer}; it did not come through the mesh's hooks"
    )]
    OriginalDstUnknown {
        /// Source of the connection.
        peer: SocketAddr,
    },
    /// The service is known and has nobody behind it.
    #[error("no ready endpoint behind {dialled}")]
    NoEndpoints {
        /// The service's virtual address.
        dialled: SocketAddr,
    },
    /// Only registered destinations may be dialled, and this is none.
    #[error("nobody has registered what the client asks for at {dialled}; write a ServiceEntry")]
    NotRegistered {
        /// What was dialled.
        dialled: SocketAddr,
    },
    /// A limit of the destination's rule is reached.
    #[error("the limit {limit} is reached")]
    Overflow {
        /// Which one.
        limit: &'static str,
    },
    /// The agent is short of something, and sheds load.
    #[error("the node's proxy is overloaded")]
    Overloaded,
    /// The source pod has no certificate.
    #[error("no certificate for {identity}: {detail}")]
    NoCertificate {
        /// Who needs one.
        identity: String,
        /// What the identity store says.
        detail: Arc<str>,
    },
    /// TCP to the upstream failed.
    #[error("connecting to {to}: {kind}")]
    Connect {
        /// The address dialled.
        to: SocketAddr,
        /// What the kernel says.
        kind: io::ErrorKind,
    },
    /// A TLS handshake failed; `reason` comes from the identity crate.
    #[error("TLS with {peer}: {detail}")]
    Tls {
        /// The other side.
        peer: SocketAddr,
        /// Stable code, `tls_expired_certificate` for example.
        reason: &'static str,
        /// What rustls says.
        detail: Arc<str>,
        /// The side that the peer is on.
        side: Side,
    },
    /// TLS and HTTP/2 were not ready in time.
    #[error("the handshake with {peer} took too long")]
    HandshakeTimeout {
        /// The other side.
        peer: SocketAddr,
        /// The side that the peer is on.
        side: Side,
    },
    /// The tunnel broke before the destination answered.
    #[error("the tunnel to {to} was lost: {detail}")]
    TunnelLost {
        /// The destination's tunnel address.
        to: SocketAddr,
        /// What HTTP/2 says.
        detail: Arc<str>,
    },
    /// The destination's agent did not answer the CONNECT request.
    #[error("no answer to CONNECT from {to}")]
    RequestTimeout {
        /// The destination's tunnel address.
        to: SocketAddr,
    },
    /// The destination's agent answered with an error.
    #[error("the destination refused with {status}: {detail}")]
    Refused {
        /// Its HTTP status.
        status: StatusCode,
        /// Its reason code, where it sent one.
        detail: Arc<str>,
    },
    /// A CONNECT request that is none, or without a usable authority.
    #[error("not a CONNECT request to an address and a port: {detail}")]
    BadRequest {
        /// What is wrong.
        detail: &'static str,
    },
    /// A peer asked for a destination that is not this pod.
    #[error("{to} is not a destination in this pod")]
    WrongDestination {
        /// What it asked for.
        to: SocketAddr,
    },
    /// Policy says no.
    #[error("{detail}")]
    Denied {
        /// The policy's reason code.
        reason: &'static str,
        /// Which policy, and which of its rules.
        detail: Arc<str>,
    },
    /// The same, after bytes of the application had left: they may have been read, so that nothing
    /// may be tried again.
    #[error("{0}")]
    Exposed(Box<Failure>),
    /// The client went away while the proxy was still connecting.
    #[error("the client closed the connection before it was established")]
    ClientGone,
}

impl Failure {
    /// Stable code for logs and metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::OriginalDstUnknown { .. } => "original_dst_unknown",
            Self::NoEndpoints { .. } => "no_endpoints",
            Self::NotRegistered { .. } => "not_registered",
            Self::Overflow { .. } => "overflow",
            Self::Overloaded => "overloaded",
            Self::NoCertificate { .. } => "no_certificate",
            Self::Connect { kind, .. } => match kind {
                io::ErrorKind::ConnectionRefused => "connection_refused",
                io::ErrorKind::TimedOut => "connect_timeout",
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
                _ => "connect_failed",
            },
            Self::Tls { reason, .. } | Self::Denied { reason, .. } => reason,
            Self::HandshakeTimeout { .. } => "handshake_timeout",
            Self::TunnelLost { .. } => "tunnel_lost",
            Self::RequestTimeout { .. } => "destination_timeout",
            Self::Refused { status, .. } => match *status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "destination_denied",
                StatusCode::SERVICE_UNAVAILABLE => "destination_unreachable",
                _ => "destination_refused",
            },
            Self::BadRequest { .. } => "bad_request",
            Self::WrongDestination { .. } => "wrong_destination",
            Self::Exposed(failure) => failure.reason(),
            Self::ClientGone => "client_reset",
        }
    }

    /// The side at fault.
    pub(crate) fn side(&self) -> Side {
        match self {
            Self::Tls { side, .. } | Self::HandshakeTimeout { side, .. } => *side,
            Self::OriginalDstUnknown { .. }
            | Self::BadRequest { .. }
            | Self::WrongDestination { .. }
            | Self::Denied { .. }
            | Self::ClientGone => Side::Downstream,
            Self::Exposed(failure) => failure.side(),
            Self::NoEndpoints { .. }
            | Self::NotRegistered { .. }
            | Self::Overflow { .. }
            | Self::Overloaded
            | Self::NoCertificate { .. } => Side::Local,
            Self::Connect { .. }
            | Self::TunnelLost { .. }
            | Self::RequestTimeout { .. }
            | Self::Refused { .. } => Side::Upstream,
        }
    }

    /// Istio's response flag (`%RESPONSE_FLAGS%` of Envoy's access log).
    pub(crate) fn flags(&self) -> &'static str {
        match self {
            Self::OriginalDstUnknown { .. }
            | Self::NotRegistered { .. }
            | Self::WrongDestination { .. } => "NR",
            Self::NoEndpoints { .. } => "UH",
            Self::Overflow { .. } => "UO",
            Self::Overloaded => "OM",
            Self::RequestTimeout { .. } => "UT",
            Self::Denied { reason: "rate_limited", .. } => "RL",
            Self::Denied { .. } => "UAEX",
            Self::BadRequest { .. } => "DPE",
            Self::Exposed(failure) => failure.flags(),
            _ => match self.side() {
                Side::Downstream => "DC",
                Side::Local | Side::Upstream => "UF",
            },
        }
    }

    /// True where another endpoint may do better: no byte of the application has left yet in any
    /// of these, so trying again is safe.
    pub(crate) fn may_try_another(&self) -> bool {
        self.side() == Side::Upstream
            && self.reason() != "destination_denied"
            && !matches!(self, Self::Exposed(_))
    }

    /// The status that a CONNECT request which fails this way is answered with.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } | Self::WrongDestination { .. } => StatusCode::BAD_REQUEST,
            Self::Denied { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> SocketAddr {
        "10.0.0.1:80".parse().unwrap()
    }

    #[test]
    fn a_refused_port_is_named_and_worth_another_endpoint() {
        let kind = io::ErrorKind::ConnectionRefused;
        let failure = Failure::Connect { to: to(), kind };
        assert_eq!(failure.reason(), "connection_refused");
        assert_eq!(failure.flags(), "UF");
        assert_eq!(failure.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(failure.may_try_another());
    }

    #[test]
    fn a_denial_is_final() {
        let status = StatusCode::FORBIDDEN;
        let detail = "policy".into();
        let failure = Failure::Refused { status, detail };
        assert_eq!(failure.reason(), "destination_denied");
        assert!(!failure.may_try_another());
        assert!(!Failure::ClientGone.may_try_another());
    }

    #[test]
    fn tls_failures_keep_their_own_reason_on_both_sides() {
        for (side, flags) in [(Side::Downstream, "DC"), (Side::Upstream, "UF")] {
            let failure = Failure::Tls {
                peer: to(),
                reason: "tls_unknown_issuer",
                detail: "no".into(),
                side,
            };
            assert_eq!(failure.reason(), "tls_unknown_issuer");
            assert_eq!(failure.flags(), flags);
        }
    }
}
