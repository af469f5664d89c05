//! What is known of a connection when it opens, and what is learnt until it closes.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Peer, ServiceLabel, telemetry::CLOSED};

/// Which end's agent reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The client's.
    Source,
    /// The server's.
    Destination,
}

impl Reporter {
    /// As the label `reporter` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Label `connection_security_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Both ends have proven their identity, and the bytes are encrypted.
    MutualTls,
    /// Neither.
    None,
}

impl Security {
    /// As Istio writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::None => "none",
        }
    }
}

/// How the bytes travel between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `undermesh/1` over mutual TLS.
    Native,
    /// HTTP/2 CONNECT over mutual TLS.
    Hbone,
    /// A plain connection that the proxy made, to an endpoint outside the mesh.
    Plain,
    /// A plain kernel connection between two pods of one node; the proxy sees nothing of it.
    Local,
}

impl Transport {
    /// As the access log says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Hbone => "hbone",
            Self::Plain => "plain",
            Self::Local => "local",
        }
    }
}

/// What is known of a connection when it opens.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Which end's agent reports.
    pub reporter: Reporter,
    /// The client.
    pub source: Peer,
    /// The server.
    pub destination: Peer,
    /// The service that the client dialled, if it dialled one.
    pub service: Option<ServiceLabel>,
    /// Whether the ends are authenticated.
    pub security: Security,
    /// How the bytes travel.
    pub transport: Transport,
    /// Address of the client.
    pub source_addr: SocketAddr,
    /// What the client dialled.
    pub dialled: Option<SocketAddr>,
    /// Where the connection was led to.
    pub upstream: Option<SocketAddr>,
    /// Generation of the configuration that decided.
    pub generation: u64,
}

/// Bytes carried so far. Updated without a lock on every read.
#[derive(Debug, Default)]
pub struct ByteCounters {
    /// From client to server (Istio: received).
    received: AtomicU64,
    /// From server to client (Istio: sent).
    sent: AtomicU64,
}

impl ByteCounters {
    /// Adds bytes that went from the client to the server.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that went from the server to the client.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes from the client to the server.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes from the server to the client.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// Stable, snake_case code.
    pub reason: &'static str,
    /// Istio's response flags, `-` where there is none.
    pub flags: &'static str,
    /// More, for people.
    pub detail: Option<String>,
}

impl CloseReason {
    /// Both ends have closed in an orderly way.
    pub const fn closed() -> Self {
        Self { reason: CLOSED, flags: "-", detail: None }
    }

    /// A reason without more to say.
    pub const fn new(reason: &'static str, flags: &'static str) -> Self {
        Self { reason, flags, detail: None }
    }

    /// The same reason, with more to say.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}
