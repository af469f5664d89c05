//! Step *dial*: a connection to an endpoint, for requests.
//!
//! To another node it travels inside the wire that all connections use. To a pod of this node it is
//! delivered here, after the same check of policy that a tunnel gets: one proxy, once (ADR 0018).

use std::sync::Arc;

use http::Version;
use socket2::TcpKeepalive;
use undermesh_model::{Wire, traffic::TcpPool};
use undermesh_snapshot::{
    Snapshot,
    traffic::{ClusterEndpoint, ClusterSpec},
};

use super::{
    front::Front,
    neighbour::Neighbour,
    outside::{self, Carries},
};
use crate::{
    duplex::{Socket, Stream},
    error::Failure,
    follow::note,
    plan::Target,
    pod::Pod,
    reach::{Reach, Upstream},
    upstream::{ByteStream, Dial, Dialling, speaks_http2},
};

/// Makes connections on behalf of one client.
pub(crate) struct Dialer<'a> {
    pub(crate) front: &'a Front,
    /// The service that was dialled.
    pub(crate) host: &'a str,
    pub(crate) spec: &'a ClusterSpec,
    /// How the destination's rule wants its connections.
    pub(crate) tcp: &'a TcpPool,
    /// The request that the first connection is for.
    pub(crate) request: Asks<'a>,
}

/// What a connection depends on that is the request's.
#[derive(Clone, Copy)]
pub(crate) struct Asks<'a> {
    /// Host of its authority.
    pub(crate) host: &'a str,
    /// Version that its client speaks.
    pub(crate) version: Version,
    /// It asks for an upgrade.
    pub(crate) upgrade: bool,
}

impl Dial for Dialer<'_> {
    fn dial<'a>(&'a self, endpoint: &'a ClusterEndpoint) -> Dialling<'a> {
        Box::pin(async {
            let pod = &self.front.pod;
            let target = target(self.front, endpoint);
            note("endpoint", || match &target.workload {
                Some(workload) => {
                    format!("{}, pod {}, {}", target.address, workload.name, workload.identity)
                }
                None => format!("{}, outside the mesh", target.address),
            });
            let Asks { version, upgrade, .. } = self.request;
            let http2 = speaks_http2(self.spec, version, upgrade);
            let upstream = match Neighbour::ask(self.front, &target)? {
                Some(neighbour) if neighbour.is_judged() => return Ok(neighbour.judged(http2)),
                Some(neighbour) => Upstream::Plain(neighbour.deliver().await?),
                None => reach(self.front, self.host, &target, None, &mut |_| {}).await?,
            };
            keep_alive(&upstream, self.tcp);
            match (upstream, outside::wanted(self.spec, &target)) {
                (Upstream::Plain(socket), Some(tls)) => {
                    let name = outside::name(tls, self.spec, self.request.host);
                    let carries = if http2 { Carries::Http2 } else { Carries::Http1 };
                    let to = (socket, endpoint.address);
                    let source = Some(&pod.workload.identity);
                    let stream =
                        outside::secure(&pod.shared, source, (tls, name), carries, to).await?;
                    Ok(Box::new(stream.into_io()) as Box<dyn ByteStream>)
                }
                (upstream, _) => Ok(byte_stream(pod, upstream)),
            }
        })
    }
}

/// An endpoint as it is reached now.
///
/// **Invariant**: who is at an address that DNS has named, or that a client has dialled itself, is asked
/// here: an enrolled workload is never spoken to as if it were outside the mesh.
pub(crate) fn target(front: &Front, endpoint: &ClusterEndpoint) -> Target {
    target_in(&front.pod.shared.snapshot.load(), endpoint)
}

/// The same in a snapshot.
pub(super) fn target_in(snapshot: &Snapshot, endpoint: &ClusterEndpoint) -> Target {
    let enrolled = || snapshot.workloads.get(&endpoint.address.ip());
    Target::new(endpoint.address, endpoint.workload.as_ref().or_else(enrolled))
}

/// Connects to an endpoint of this or of another node for bytes that are no requests, and says over which wire.
pub(crate) async fn connect(
    front: &Front,
    host: &str,
    target: &Target,
    client: Option<&mut Socket>,
    note: &mut (dyn FnMut(Wire) + Send),
) -> Result<Upstream, Failure> {
    match Neighbour::ask(front, target)? {
        Some(neighbour) => neighbour.deliver().await.map(Upstream::Plain),
        None => reach(front, host, target, client, note).await,
    }
}

/// The same, to what is no pod of this node.
async fn reach(
    front: &Front,
    host: &str,
    target: &Target,
    client: Option<&mut Socket>,
    note: &mut (dyn FnMut(Wire) + Send),
) -> Result<Upstream, Failure> {
    let pod = &front.pod;
    let host = Some(host).filter(|host| !host.is_empty());
    let reach = Reach { pod, host, client: front.client_towards(target.address) };
    reach.target(target, client, note).await
}

/// Sets keepalive as a rule wants it, where the connection is the endpoint's own; agents look after those
/// between them.
pub(crate) fn keep_alive(upstream: &Upstream, tcp: &TcpPool) {
    let (Upstream::Plain(socket), Some((probes, time, interval))) = (upstream, tcp.keepalive)
    else {
        return;
    };
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(probes) = probes {
        keepalive = keepalive.with_retries(probes);
    }
    if let Err(error) = socket.set_keepalive(&keepalive) {
        tracing::debug!(%error, "keepalive cannot be set as the DestinationRule has it");
    }
}

fn byte_stream(pod: &Arc<Pod>, upstream: Upstream) -> Box<dyn ByteStream> {
    match upstream {
        Upstream::Plain(socket) => Box::new(Stream::new(socket)),
        Upstream::Tunnel(tunnel) => Box::new(Stream::new(tunnel)),
        Upstream::Tls(stream) => Box::new(stream.into_io()),
        Upstream::Native(session) => {
            let (stream, give_back) = session.split();
            let pod = Arc::clone(pod);
            Box::new(Stream::new(stream).when_over(move |stream, _| give_back(stream, &pod.native)))
        }
    }
}
