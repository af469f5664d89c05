//! Connections of a service port that rules are about and that carry something else than requests: they
//! go where the rules for TLS and TCP lead, byte by byte.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::ready, time::Duration};

use bytes::Bytes;
use undermesh_model::traffic::{HashKey, TcpPool};
use undermesh_snapshot::traffic::{ClusterSpec, PortTraffic, Target as Destination};
use undermesh_telemetry::{ByteCounters, CloseReason};

use super::{
    dial,
    front::Front,
    outside::{self, Carries},
    random,
    sniff::{self, Look, Spoken},
};
use crate::{
    duplex::{Broken, Duplex, Socket},
    error::Failure,
    reach::Upstream,
    record::Outbound,
    upstream::{Cluster, ConnectionLease, LocalError, Pick, Refusal, hash},
};

/// How long the client's first bytes are waited for before anything else is done. A client that speaks
/// first has them on their way when its connection is accepted.
const HEAD_START: Duration = Duration::from_millis(10);

/// An endpoint that a connection was led to.
pub(crate) struct Led {
    pub(crate) upstream: Upstream,
    lease: ConnectionLease,
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
    tokio::time::timeout(wait, sniff::speaks(client)).await.ok()?;
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
        Upstream::Tls(stream) => of(&mut **stream).await,
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
            Upstream::Tls(mut stream) => stream.ended(),
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
        let reason = {
            let counters = record.counters();
            tokio::select! {
                ending = self.upstream.relay(&front.pod, &mut client, counters) => ending.close_reason(),
                // Dropping both streams resets them.
                () = expired(self.lease.tcp(), counters) => CloseReason::new("expired", "UT"),
            }
        };
        record.close(reason);
    }
}

/// Connects to an endpoint by the rules for what is no HTTP. What the client has said may go along.
pub(crate) async fn lead(
    front: &Front,
    server_name: Option<&str>,
    mut client: Option<&mut Socket>,
    log: &mut Outbound<'_>,
) -> Result<Led, Failure> {
    let rules = front.rules_for_all();
    let spec =
        destination(front, &rules.traffic, server_name).ok_or_else(|| no_endpoints(front))?;
    if rules.external {
        log.host(&spec.key.host);
    }
    if spec.is_black_hole() {
        return Err(Failure::NotRegistered { dialled: front.dialled });
    }
    let cluster = front.pod.upstreams.for_name(&spec, server_name.unwrap_or_default()).await;
    let cluster = cluster.ok_or_else(|| no_endpoints(front))?;
    let mut tried = Vec::new();
    loop {
        let lease = admit(front, &spec, &cluster, &tried)?;
        let to = lease.endpoint().address;
        tried.push(to);
        let way = Way { front, host: &rules.host, spec: &spec, server_name };
        let failure = match connect(way, &lease, client.as_deref_mut(), log).await {
            Ok(upstream) => {
                lease.connected();
                return Ok(Led { upstream, lease, first: Bytes::new() });
            }
            Err(failure) => failure,
        };
        lease.failed(LocalError::ConnectFailure);
        tracing::debug!(%to, %failure, "endpoint failed");
        if !failure.may_try_another() || tried.len() >= front.pod.shared.config.connect_attempts {
            return Err(failure);
        }
    }
}

/// The destination of a connection; `None` where the rules lead nowhere.
fn destination(
    front: &Front,
    traffic: &PortTraffic,
    server_name: Option<&str>,
) -> Option<Arc<ClusterSpec>> {
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
    tried: &[SocketAddr],
) -> Result<ConnectionLease, Failure> {
    let client = front.client.ip();
    let rule = spec.settings.balancer.hash.as_ref().map(|hash| &hash.key);
    let hash = matches!(rule, Some(HashKey::SourceIp)).then(|| hash::address(client));
    let pick = Pick { hash, client, dialled: front.dialled, tried, leave_tiers_of: &[] };
    let admitted = cluster.admit_connection(&pick);
    admitted.map_err(|refusal| match refusal {
        Refusal::NoEndpoints | Refusal::NoHealthy => no_endpoints(front),
        Refusal::Overflow(limit) => Failure::Overflow { limit },
    })
}

fn no_endpoints(front: &Front) -> Failure {
    Failure::NoEndpoints { dialled: front.dialled }
}

/// Where a connection is led, and on whose behalf.
#[derive(Clone, Copy)]
struct Way<'a> {
    front: &'a Front,
    /// The service that was dialled.
    host: &'a str,
    spec: &'a ClusterSpec,
    /// The name that the client's own TLS asks for.
    server_name: Option<&'a str>,
}

/// Connects within the time that the destination's rule gives.
async fn connect(
    way: Way<'_>,
    lease: &ConnectionLease,
    client: Option<&mut Socket>,
    log: &mut Outbound<'_>,
) -> Result<Upstream, Failure> {
    let Way { front, host, spec, server_name } = way;
    let target = dial::target(front, lease.endpoint());
    log.target(&target);
    let note = &mut |wire| log.wire(wire);
    let connecting = dial::connect(front, host, &target, client, note);
    let late = Failure::Connect { to: target.address, kind: std::io::ErrorKind::TimedOut };
    let connected = tokio::time::timeout(lease.connect_timeout(), connecting).await;
    let upstream = connected.unwrap_or(Err(late))?;
    dial::keep_alive(&upstream, lease.tcp());
    match (upstream, outside::wanted(spec, &target)) {
        (Upstream::Plain(socket), Some(tls)) => {
            let name = outside::name(tls, spec, server_name.unwrap_or_default());
            let source = Some(&front.pod.workload.identity);
            let (shared, to) = (&front.pod.shared, (socket, target.address));
            let stream =
                outside::secure(shared, source, (tls, name), Carries::Anything, to).await?;
            Ok(Upstream::Tls(Box::new(stream)))
        }
        (upstream, _) => Ok(upstream),
    }
}

/// Returns when a connection has lasted, or has been idle, for as long as its rule allows.
async fn expired(tcp: &TcpPool, counters: &ByteCounters) {
    let longest = tcp.max_connection_duration.filter(|time| !time.is_zero());
    let idle = tcp.idle_timeout.filter(|time| !time.is_zero());
    let end = async {
        match longest {
            Some(longest) => tokio::time::sleep(longest).await,
            None => std::future::pending().await,
        }
    };
    let silence = async {
        let Some(idle) = idle else { return std::future::pending().await };
        let carried = || (counters.received(), counters.sent());
        let mut before = carried();
        loop {
            tokio::time::sleep(idle).await;
            if carried() == before {
                return;
            }
            before = carried();
        }
    };
    tokio::select! {
        () = end => {}
        () = silence => {}
    }
}
