//! Connections of a service port that rules are about and that carry something else than requests: they
//! go where the rules for TLS and TCP lead, byte by byte.

use std::{future::poll_fn, sync::Arc, task::ready, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use undermesh_snapshot::traffic::{ClusterSpec, Target as Destination};

use super::{
    dial,
    front::Front,
    hash, random,
    sniff::{self, Look, Spoken},
};
use crate::{
    duplex::{Broken, Duplex, Socket},
    error::Failure,
    plan::Target,
    reach::Upstream,
    record::Outbound,
    upstream::{Cluster, Lease, LocalError, Outcome, Pick, Refusal},
};

/// How long the client's first bytes are waited for before anything else is done. A client that speaks
/// first has them on their way when its connection is accepted.
const HEAD_START: Duration = Duration::from_millis(10);

/// An endpoint that a connection was led to.
pub(crate) struct Led {
    pub(crate) upstream: Upstream,
    lease: Lease,
    /// What the server said before anybody else did.
    first: Bytes,
}

/// What became of a connection whose protocol nobody has told.
pub(crate) enum Sniffed {
    /// The client's first bytes.
    Spoke(Spoken),
    /// The server spoke first, or the client said something that is no HTTP while it was being
    /// connected.
    Led(Box<Led>),
}

/// Finds out what a connection is, and connects it meanwhile in case it is nothing to look at.
pub(crate) async fn sniff(
    front: &Front,
    client: &mut Socket,
    log: &mut Outbound<'_>,
) -> Result<Sniffed, Failure> {
    let patience = front.pod.shared.config.detect_timeout;
    if let Some(spoken) = sniff_within(client, HEAD_START, patience).await {
        return Ok(Sniffed::Spoke(spoken));
    }
    // Nothing is sent until it is known what it is.
    let mut led = match lead(front, None, None, log).await {
        Ok(led) => led,
        // Requests may lead elsewhere.
        Err(failure) => {
            let spoken = sniff_within(client, patience, patience).await;
            let http = spoken.filter(|spoken| matches!(spoken, Spoken::Http1 | Spoken::Http2));
            return http.map(Sniffed::Spoke).ok_or(failure);
        }
    };
    let spoken = tokio::select! {
        spoken = sniff::sniff(client, Look::ForAll, patience) => spoken,
        first = first_of(&mut led.upstream) => {
            led.first = first.map_err(|broken| broken_early(front, broken))?;
            return Ok(Sniffed::Led(Box::new(led)));
        }
    };
    match spoken {
        Spoken::Other => Ok(Sniffed::Led(Box::new(led))),
        spoken => {
            led.abandon();
            Ok(Sniffed::Spoke(spoken))
        }
    }
}

async fn sniff_within(client: &mut Socket, wait: Duration, patience: Duration) -> Option<Spoken> {
    let readable = poll_fn(|cx| client.poll_readable(cx));
    tokio::time::timeout(wait, readable).await.ok()?;
    Some(sniff::sniff(client, Look::ForAll, patience).await)
}

/// What the server says.
async fn first_of(upstream: &mut Upstream) -> Result<Bytes, Broken> {
    async fn of<D: Duplex>(stream: &mut D) -> Result<Bytes, Broken> {
        let read = poll_fn(|cx| {
            ready!(stream.poll_readable(cx));
            stream.poll_read(cx, 16 << 10)
        });
        let bytes = read.await?.ok_or(Broken::Gone)?;
        stream.consumed(bytes.len());
        Ok(bytes)
    }
    match upstream {
        Upstream::Plain(socket) => of(socket).await,
        Upstream::Tunnel(tunnel) => of(tunnel).await,
        Upstream::Native(session) => of(&mut session.stream).await,
    }
}

/// The server has closed without a word; so does the proxy.
fn broken_early(front: &Front, broken: Broken) -> Failure {
    let detail = format!("the endpoint left before anybody spoke: {broken:?}");
    Failure::TunnelLost { to: front.dialled, detail: detail.into() }
}

impl Led {
    /// It was not needed after all, which says nothing about the endpoint.
    fn abandon(self) {
        match self.upstream {
            Upstream::Plain(mut socket) => socket.ended(),
            Upstream::Tunnel(mut tunnel) => tunnel.ended(),
            Upstream::Native(mut session) => session.stream.ended(),
        }
    }

    /// Copies bytes to the end.
    pub(crate) async fn relay(self, front: &Front, mut client: Socket, log: Outbound<'_>) {
        let record = log.open();
        let mut first = self.first;
        let said = first.len() as u64;
        let greeted = poll_fn(|cx| {
            while !first.is_empty() {
                ready!(client.poll_write(cx, &mut first))?;
            }
            std::task::Poll::Ready(Ok::<(), Broken>(()))
        });
        if greeted.await.is_ok() {
            record.counters().add_sent(said);
        }
        let ending = self.upstream.relay(&front.pod, &mut client, record.counters()).await;
        record.close(ending.close_reason());
        self.lease.finish(Outcome::Status(StatusCode::OK));
    }
}

/// Connects to an endpoint by the rules for what is no HTTP. What the client has said may go along.
pub(crate) async fn lead(
    front: &Front,
    server_name: Option<&str>,
    mut client: Option<&mut Socket>,
    log: &mut Outbound<'_>,
) -> Result<Led, Failure> {
    let rules = front.rules();
    let no_endpoints = || Failure::NoEndpoints { dialled: front.dialled };
    let spec = destination(front, server_name).ok_or_else(no_endpoints)?;
    let cluster = front.pod.upstreams.cluster(&spec);
    let mut tried = Vec::new();
    loop {
        let lease = admit(front, &spec, &cluster, &tried).map_err(|_| no_endpoints())?;
        let endpoint = lease.endpoint();
        let target = Target::new(endpoint.address, endpoint.workload.as_ref());
        log.target(&target);
        tried.push(target.address);
        let note = &mut |wire| log.wire(wire);
        let failure =
            match dial::connect(front, &rules.host, &target, client.as_deref_mut(), note).await {
                Ok(upstream) => return Ok(Led { upstream, lease, first: Bytes::new() }),
                Err(failure) => failure,
            };
        lease.finish(Outcome::LocalError(LocalError::ConnectFailure));
        tracing::debug!(to = %target.address, %failure, "endpoint failed");
        if !failure.may_try_another() || tried.len() >= front.pod.shared.config.connect_attempts {
            return Err(failure);
        }
    }
}

/// The destination of a connection; `None` where the rules lead nowhere.
fn destination(front: &Front, server_name: Option<&str>) -> Option<Arc<ClusterSpec>> {
    let rules = front.rules();
    let traffic = &rules.traffic;
    let route = traffic.l4_route(server_name, front.dialled.ip(), &front.as_client());
    let Some(route) = route else { return Some(Arc::clone(&traffic.default)) };
    let index = random::weighted(route.targets.iter().map(|target| target.weight))?;
    match &route.targets.get(index)?.target {
        Destination::Cluster(spec) => Some(Arc::clone(spec)),
        Destination::Unusable(_) => None,
    }
}

fn admit(
    front: &Front,
    spec: &ClusterSpec,
    cluster: &Cluster,
    tried: &[std::net::SocketAddr],
) -> Result<Lease, Refusal> {
    let client = front.client.ip();
    let hash = hash::of_connection(spec, client);
    cluster.admit(&Pick { hash, client, dialled: front.dialled, tried, retry: !tried.is_empty() })
}
