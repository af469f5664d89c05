//! What can be set about the proxy. Every limit that bounds memory or time is here.

use std::{net::SocketAddr, time::Duration};

use crate::trace::Tracing;

/// What a connection that is not read may hold back; the kernel would hold as much (`tcp_rmem`).
const STREAM_WINDOW: u32 = 4 << 20;
/// More than the 100 that ztunnel's pool and this one put on a tunnel.
const MAX_INBOUND_STREAMS: u32 = 128;

/// Settings of the proxy; the defaults are meant to be right.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Port that pods accept HBONE on (Istio: 15008).
    pub hbone_port: u16,
    /// Longest wait for a TCP connection to be established.
    pub connect_timeout: Duration,
    /// Longest TLS and HTTP/2 handshake, on either side.
    pub handshake_timeout: Duration,
    /// Longest wait for the answer to a CONNECT request; covers the destination's own connect.
    pub request_timeout: Duration,
    /// Longest wait for the certificate of a pod that has just been enrolled.
    pub identity_timeout: Duration,
    /// How many endpoints one connection may try.
    pub connect_attempts: usize,
    /// Connections that one pod may have open through its outbound listeners.
    pub max_connections: usize,
    /// Connections that peers may have open to one pod: tunnels, and what is judged here.
    pub max_inbound_connections: usize,
    /// How long a connection that may be a native tunnel is waited for to say so.
    pub detect_timeout: Duration,
    /// Longest time from the first byte of a request's head to its last.
    pub head_timeout: Duration,
    /// How dead tunnels are noticed.
    pub keepalive: Keepalive,
    /// Reuse of tunnels.
    pub pool: PoolConfig,
    /// Connections of the native wire.
    pub native: NativeConfig,
    /// How large heads of requests may be.
    pub head: HeadLimits,
    /// HTTP/2 flow control and limits.
    pub http2: Http2Config,
    /// Longest time in which nothing comes of a request's body that has a length; zero for any.
    pub body_idle_timeout: Duration,
    /// Bytes a second that have to come of such a body while it is waited for; 0 for any.
    pub body_min_rate: u64,
    /// The time over which that is measured.
    pub body_rate_window: Duration,
    /// How long a client of HTTP/1.1 may have a connection open without a request; zero for any.
    pub http_idle_timeout: Duration,
    /// The same for a client of HTTP/2.
    pub http2_idle_timeout: Duration,
    /// No pod takes more than its share of the threads while others want theirs.
    pub fairness: bool,
    /// DNS servers that destinations are resolved with; empty for those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// How requests are traced; they are not where this is `None`, or where nobody takes spans.
    pub tracing: Option<Tracing>,
}

/// Bounds on the head of a request, in HTTP/1 and HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Its size: in HTTP/1 as it is written, in HTTP/2 as RFC 9113, section 10.5.1, counts it.
    pub bytes: usize,
    /// Its headers.
    pub headers: usize,
}

/// PING frames on tunnels, and the same times as TCP keepalive on plain sockets.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Time between two probes.
    pub interval: Duration,
    /// How long an answer may take before the tunnel counts as dead.
    pub timeout: Duration,
}

/// How tunnels are shared and kept.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Streams on one tunnel before another is opened.
    pub max_streams: usize,
    /// A tunnel without a stream for this long is closed, on either side.
    pub idle: Duration,
}

/// How connections of the native wire are made and kept.
#[derive(Clone, Copy, Debug)]
pub struct NativeConfig {
    /// Longest wait for TCP and TLS; shorter than `connect_timeout`, because HBONE is tried next.
    pub handshake_timeout: Duration,
    /// A connection without a session for this long is closed by the client; a little later by the
    /// server.
    pub idle: Duration,
    /// Idle connections that a pod keeps to one destination for as long as that.
    pub max_idle: usize,
    /// How long it keeps those beyond: whoever has just had them often comes back.
    pub surplus: Duration,
    /// Idle connections that a pod keeps in all.
    pub max_idle_in_all: usize,
    /// Connections that are made in advance to one destination, at most.
    pub max_ready: usize,
    /// How long a destination that does not speak the native wire is not asked again.
    pub hbone_only: Duration,
}

impl Default for NativeConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(2),
            idle: Duration::from_secs(60),
            max_idle: 64,
            surplus: Duration::from_secs(10),
            max_idle_in_all: 1024,
            max_ready: 8,
            hbone_only: Duration::from_secs(60),
        }
    }
}

/// HTTP/2 settings of both sides; sizes of streams and frames are those of Istio's ztunnel.
#[derive(Clone, Copy, Debug)]
pub struct Http2Config {
    /// Bytes in flight on one stream.
    pub stream_window: u32,
    /// Bytes in flight on one tunnel. Connections that share a tunnel know nothing of each other;
    /// with less than the windows of all its streams together, a few applications that do not read
    /// would stop all others (ztunnel's 16 MiB are used up by four).
    pub connection_window: u32,
    /// Largest frame accepted.
    pub frame_size: u32,
    /// Bytes that one stream may have waiting to be encrypted.
    pub send_buffer: usize,
    /// Largest header block accepted, in bytes.
    pub max_header_list: u32,
    /// Streams that a peer may have open on one tunnel.
    pub max_inbound_streams: u32,
    /// Streams that a peer may reset before they were looked at (CVE-2023-44487).
    pub max_reset_streams: usize,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            hbone_port: 15008,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            identity_timeout: Duration::from_secs(10),
            connect_attempts: 3,
            max_connections: 32_768,
            max_inbound_connections: 32_768,
            detect_timeout: Duration::from_secs(2),
            head_timeout: Duration::from_secs(30),
            keepalive: Keepalive::default(),
            pool: PoolConfig::default(),
            native: NativeConfig::default(),
            head: HeadLimits::default(),
            http2: Http2Config::default(),
            body_idle_timeout: Duration::from_secs(300),
            body_min_rate: 0,
            body_rate_window: Duration::from_secs(30),
            http_idle_timeout: Duration::from_secs(3600),
            http2_idle_timeout: Duration::from_secs(3600),
            fairness: true,
            dns_servers: Vec::new(),
            tracing: None,
        }
    }
}

impl Default for HeadLimits {
    /// As Envoy has them.
    fn default() -> Self {
        Self { bytes: 60 << 10, headers: 100 }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(20) }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { max_streams: 100, idle: Duration::from_secs(300) }
    }
}

impl Default for Http2Config {
    fn default() -> Self {
        Self {
            stream_window: STREAM_WINDOW,
            connection_window: MAX_INBOUND_STREAMS * STREAM_WINDOW,
            frame_size: 1 << 20,
            send_buffer: 512 << 10,
            max_header_list: 16 << 10,
            max_inbound_streams: MAX_INBOUND_STREAMS,
            max_reset_streams: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_not_read_cannot_stop_the_others() {
        let config = ProxyConfig::default();
        let streams = u32::try_from(config.pool.max_streams).unwrap();
        let most = streams.max(config.http2.max_inbound_streams);
        assert!(config.http2.connection_window >= most * config.http2.stream_window);
        // RFC 9113, section 6.9.1.
        assert!(config.http2.connection_window < 1 << 31);
    }
}
