//! Step *dial*: a connection to an endpoint, for requests.
//!
//! To another node it travels inside the wire that all connections use. To a pod of this node it is
//! delivered here, after the same check of policy that a tunnel gets: one proxy, once (ADR 0018).

use std::{net::SocketAddr, sync::Arc};

use http::Version;
use socket2::TcpKeepalive;
use undermesh_model::{Wire, traffic::TcpPool};
use undermesh_snapshot::{
    CompiledPolicy, WorkloadInfo,
    traffic::{ClusterEndpoint, ClusterSpec},
};

use super::{front::Front, outside};
use crate::{
    authorize::{Admission, Attempt, Denial, authorize, revoked},
    deliver,
    duplex::{Socket, Stream},
    error::Failure,
    guard::{self, Delivery, Visit},
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
            let Asks { version, upgrade, .. } = self.request;
            let http2 = speaks_http2(self.spec, version, upgrade);
            if let Some(visit) = visit(self.front, &target)? {
                return Ok(judged(visit, http2));
            }
            let upstream = connect(self.front, self.host, &target, None, &mut |_| {}).await?;
            keep_alive(&upstream, self.tcp);
            match (upstream, outside::wanted(self.spec, &target)) {
                (Upstream::Plain(socket), Some(tls)) => {
                    let name = outside::name(tls, self.spec, self.request.host);
                    let alpn: &'static [u8] = if http2 { b"h2" } else { b"http/1.1" };
                    let to = (socket, endpoint.address);
                    let stream = outside::secure(&pod.shared, tls, name, alpn, to).await?;
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
    let snapshot = front.pod.shared.snapshot.load();
    let enrolled = || snapshot.workloads.get(&endpoint.address.ip());
    Target::new(endpoint.address, endpoint.workload.as_ref().or_else(enrolled))
}

/// Connects to an endpoint of this or of another node, and says over which wire.
pub(crate) async fn connect(
    front: &Front,
    host: &str,
    target: &Target,
    client: Option<&mut Socket>,
    note: &mut (dyn FnMut(Wire) + Send),
) -> Result<Upstream, Failure> {
    let pod = &front.pod;
    if let Some(local) = target.workload.as_ref().and_then(|workload| local_pod(pod, workload)) {
        return deliver_locally(front, &local, target.address).await.map(Upstream::Plain);
    }
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

/// The pod of this node that can be reached without a wire.
fn local_pod(pod: &Pod, workload: &Arc<WorkloadInfo>) -> Option<Arc<Pod>> {
    let direct = workload.local && workload.direct;
    direct.then(|| pod.shared.local_pod(workload)).flatten()
}

/// Bytes on their way to a judge that this proxy holds back.
const PIPE: usize = 64 << 10;

/// The visit that a connection to a pod of this node is, where its requests are judged.
fn visit(front: &Front, target: &Target) -> Result<Option<Visit>, Failure> {
    let pod = &front.pod;
    let local = target.workload.as_ref().and_then(|workload| local_pod(pod, workload));
    let Some(to) = local else { return Ok(None) };
    let destination = target.address;
    deliver::check(&to, destination)?;
    let client = front.client_towards(destination);
    let policy = to.policy.borrow().clone();
    if admitted(&attempt(pod, &to, client, destination), policy.as_deref(), &to)?
        == Admission::Deliver
    {
        return Ok(None);
    }
    Ok(Some(Visit {
        source: Some(pod.workload.identity.clone()),
        source_addr: client,
        client,
        destination,
        delivery: Delivery::AsSetUp,
        pod: to,
    }))
}

/// A stream to the judge of another pod's requests, for as long as its policy lets this client in.
fn judged(visit: Visit, http2: bool) -> Box<dyn ByteStream> {
    let (near, far) = tokio::io::duplex(PIPE);
    let pod = Arc::clone(&visit.pod);
    let task = async move {
        let mut policies = visit.pod.policy.subscribe();
        let (revoking, killed) = (visit.clone(), Arc::clone(&visit.pod));
        tokio::select! {
            () = guard::serve_bytes(visit, far, http2) => {}
            denial = revoking.revoked(&mut policies) => {
                tracing::debug!(detail = %denial.detail, "a connection was revoked");
            }
            () = killed.kill.cancelled() => {}
        }
    };
    pod.tasks.spawn_on(task, &pod.shared.runtime);
    Box::new(near)
}

fn admitted(
    attempt: &Attempt<'_>,
    policy: Option<&CompiledPolicy>,
    to: &Pod,
) -> Result<Admission, Failure> {
    authorize(attempt, policy, &to.shared.metrics)
        .map_err(|Denial { reason, detail }| Failure::Denied { reason, detail })
}

/// Delivers into another pod of this node, for as long as its policy lets this client in. What carries requests
/// and is judged by them does not come here.
async fn deliver_locally(
    front: &Front,
    to: &Arc<Pod>,
    destination: SocketAddr,
) -> Result<Socket, Failure> {
    deliver::check(to, destination)?;
    // From before the decision, so that no change of policy is missed.
    let mut policies = to.policy.subscribe();
    let policy = policies.borrow_and_update().clone();
    let (from, to) = (Arc::clone(&front.pod), Arc::clone(to));
    let client = front.client_towards(destination);
    let asked = attempt(&from, &to, client, destination);
    if admitted(&asked, policy.as_deref(), &to)? == Admission::Judge {
        let visit = Visit {
            pod: Arc::clone(&to),
            source: Some(from.workload.identity.clone()),
            source_addr: client,
            client,
            destination,
            delivery: Delivery::AsSetUp,
        };
        guard::authorize_opaque(&visit)
            .map_err(|Denial { reason, detail }| Failure::Denied { reason, detail })?;
    }
    let socket = deliver::deliver(&to, client, destination).await?;
    Ok(socket.until(async move {
        let asked = attempt(&from, &to, client, destination);
        tokio::select! {
            denial = revoked(&asked, &mut policies, &to.shared.metrics) => {
                tracing::debug!(%destination, detail = %denial.detail, "a connection was revoked");
            }
            () = to.kill.cancelled() => {}
        }
    }))
}

fn attempt<'a>(
    from: &'a Pod,
    to: &'a Pod,
    client: SocketAddr,
    destination: SocketAddr,
) -> Attempt<'a> {
    Attempt {
        source: Some(&from.workload.identity),
        source_addr: client,
        destination,
        workload: &to.workload.identity,
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
