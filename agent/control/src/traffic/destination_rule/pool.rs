//! `connectionPool`: how many connections and requests. A limit of 0 is none, as in Istio.

use undermesh_model::traffic::{ConnectionPool, HttpPool, TcpPool, UpgradePolicy};

use super::shapes::{self, H2UpgradePolicy};
use crate::traffic::place::Place;

/// Reads the limits.
pub(super) fn pool(at: &Place<'_>, shape: &shapes::ConnectionPool) -> ConnectionPool {
    if shape.tcp.is_none() && shape.http.is_none() {
        at.refuse("has neither tcp nor http", "write one of them, or leave it out");
    }
    ConnectionPool {
        tcp: shape.tcp.as_ref().map(|one| tcp(&at.field("tcp"), one)).unwrap_or_default(),
        http: shape.http.as_ref().map(|one| http(&at.field("http"), one)).unwrap_or_default(),
    }
}

fn limit(number: Option<u32>) -> Option<u32> {
    // Istio's numbers are signed; what is larger is no limit that anybody reaches.
    number.filter(|number| *number != 0)
}

fn tcp(at: &Place<'_>, shape: &shapes::TcpPool) -> TcpPool {
    let keepalive = shape.tcp_keepalive.as_ref().map(|shape| {
        let at = at.field("tcpKeepalive");
        let time = at.duration("time", shape.time.as_ref());
        (limit(shape.probes), time, at.duration("interval", shape.interval.as_ref()))
    });
    TcpPool {
        max_connections: limit(shape.max_connections),
        connect_timeout: at.duration("connectTimeout", shape.connect_timeout.as_ref()),
        keepalive,
        max_connection_duration: at
            .duration("maxConnectionDuration", shape.max_connection_duration.as_ref()),
        // 0 is for ever.
        idle_timeout: at.any_duration("idleTimeout", shape.idle_timeout.as_ref()),
    }
}

fn http(at: &Place<'_>, shape: &shapes::HttpPool) -> HttpPool {
    let upgrade = match shape.h2_upgrade_policy {
        H2UpgradePolicy::Default => None,
        H2UpgradePolicy::DoNotUpgrade => Some(UpgradePolicy::DoNotUpgrade),
        H2UpgradePolicy::Upgrade => Some(UpgradePolicy::Upgrade),
    };
    if shape.use_client_protocol && upgrade == Some(UpgradePolicy::Upgrade) {
        let what = "contradicts h2UpgradePolicy: UPGRADE";
        at.field("useClientProtocol").refuse(what, "write one of them");
    }
    if let Some(shape) = &shape.http2_keep_alive {
        let at = at.field("http2KeepAlive");
        for (name, text) in [("interval", &shape.interval), ("timeout", &shape.timeout)] {
            at.duration(name, text.as_ref());
            if text.is_none() {
                at.field(name).refuse("is missing", "write a duration");
            }
        }
    }
    let instead = "it has no effect; tcp.tcpKeepalive finds connections that are dead";
    at.unsupported("http2KeepAlive", shape.http2_keep_alive.as_ref(), instead);
    HttpPool {
        max_pending: limit(shape.http1_max_pending_requests),
        max_requests: limit(shape.http2_max_requests),
        max_requests_per_connection: limit(shape.max_requests_per_connection),
        max_retries: limit(shape.max_retries),
        idle_timeout: at.duration("idleTimeout", shape.idle_timeout.as_ref()),
        upgrade,
        use_client_protocol: shape.use_client_protocol,
        max_concurrent_streams: limit(shape.max_concurrent_streams),
    }
}
