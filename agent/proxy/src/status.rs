//! What the admin dump says about the proxy.

use std::{net::SocketAddr, sync::atomic::Ordering, time::Instant};

use serde::Serialize;
use undermesh_model::{NamespacedName, SpiffeId};

use crate::{
    AuthorizerStatus, KeyStatus, NameStatus, OverloadStatus, UpstreamStatus, pod::Pod,
    tunnel::Tunnel,
};

/// Everything that the proxy carries at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyStatus {
    /// The pods that are served, or still have connections, by name.
    pub pods: Vec<PodStatus>,
    /// Names that are resolved for their destinations, in alphabetical order.
    pub names: Vec<NameStatus>,
    /// Whom CUSTOM policies have asked, by name.
    pub authorizers: Vec<AuthorizerStatus>,
    /// What tokens of requests are verified with, by issuer.
    pub keys: Vec<KeyStatus>,
    /// What is given up for want of something.
    pub overload: OverloadStatus,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Namespace and name.
    pub pod: NamespacedName,
    /// Who it is on the wire.
    pub identity: SpiffeId,
    /// Its listeners are open.
    pub accepting: bool,
    /// Connections of its application that the proxy carries.
    pub outbound_connections: usize,
    /// Tunnels that peers have open to it.
    pub inbound_tunnels: usize,
    /// Connections that were delivered to its application.
    pub inbound_connections: usize,
    /// Its own tunnels to other pods.
    pub pool: Vec<TunnelStatus>,
    /// Its native connections to other pods that carry nothing at the moment.
    pub native_idle: usize,
    /// Destinations that rules are about and that it has used lately.
    pub upstreams: Vec<UpstreamStatus>,
}

/// One tunnel of a pod's pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelStatus {
    /// Where it leads.
    pub address: SocketAddr,
    /// Who answers there.
    pub identity: SpiffeId,
    /// Streams that are open.
    pub streams: usize,
    /// Seconds since it was opened.
    pub age_seconds: u64,
    /// Seconds without a stream.
    pub idle_seconds: u64,
}

/// The state of one pod.
pub(crate) fn of(pod: &Pod) -> PodStatus {
    PodStatus {
        pod: pod.workload.name.clone(),
        identity: pod.workload.identity.clone(),
        accepting: !pod.stop.is_cancelled(),
        outbound_connections: pod.outbound_open.load(Ordering::Relaxed),
        inbound_tunnels: pod.tunnels_open.load(Ordering::Relaxed),
        inbound_connections: pod.inbound_open.load(Ordering::Relaxed),
        pool: pod.pool.tunnels().iter().map(|t| of_tunnel(t)).collect(),
        native_idle: pod.native.idle(),
        upstreams: pod.upstreams.status(),
    }
}

fn of_tunnel(tunnel: &Tunnel) -> TunnelStatus {
    TunnelStatus {
        address: tunnel.key.address,
        identity: tunnel.key.identity.clone(),
        streams: tunnel.streams(),
        age_seconds: Instant::now().duration_since(tunnel.opened).as_secs(),
        idle_seconds: tunnel.idle_for().as_secs(),
    }
}
