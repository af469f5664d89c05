//! Step *record*: what metrics and the access log learn about a connection.

use std::net::SocketAddr;

use time::OffsetDateTime;
use undermesh_model::{SpiffeId, Wire};
use undermesh_snapshot::{ServicePortRoute, WorkloadInfo};
use undermesh_telemetry::{
    CloseReason, ConnectionInfo, ConnectionRecord, Denial, Peer, Reporter, Security, ServiceLabel,
    Transport,
};

use crate::{
    error::Failure,
    follow::{await_first_byte, note},
    metrics::Direction,
    plan::{Plan, Target},
    pod::Pod,
};

/// What is known about an outbound connection; grows with its steps.
pub(crate) struct Outbound<'a> {
    pod: &'a Pod,
    info: ConnectionInfo,
}

impl<'a> Outbound<'a> {
    /// A connection from `client` was accepted, which has dialled this, if that is known.
    pub(crate) fn new(pod: &'a Pod, client: SocketAddr, dialled: Option<SocketAddr>) -> Self {
        let info = ConnectionInfo {
            reporter: Reporter::Source,
            source: peer(&pod.workload),
            destination: Peer::unknown(),
            service: None,
            security: Security::None,
            transport: Transport::Plain,
            source_addr: client,
            dialled,
            upstream: None,
            generation: pod.shared.snapshot.load().generation.0,
        };
        Self { pod, info }
    }

    /// What is known so far.
    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.info
    }

    /// Source of the connection.
    pub(crate) fn client(&self) -> SocketAddr {
        self.info.source_addr
    }

    /// The plan was made.
    pub(crate) fn planned(&mut self, plan: &Plan) {
        note("planned", || {
            let service = plan.service.as_ref().map_or("no service", |service| &service.host);
            let to: Vec<_> = plan.targets.iter().map(|target| target.address.to_string()).collect();
            format!("{service}, generation {}, endpoints {}", plan.generation, to.join(", "))
        });
        self.info.dialled = Some(plan.dialled);
        self.info.service = plan.service.as_deref().map(service_label);
        self.info.generation = plan.generation;
    }

    /// Which of the hosts of ServiceEntries the connection is for, among those that its address or its
    /// port stands for. It may be for none of them.
    pub(crate) fn host(&mut self, host: &str) {
        if let Some(service) = self.info.service.as_mut().filter(|service| service.host != host) {
            *service = label_of(host);
        }
    }

    /// An endpoint is tried.
    pub(crate) fn target(&mut self, target: &Target) {
        note("endpoint", || match &target.workload {
            Some(workload) => {
                format!("{}, pod {}, {}", target.address, workload.name, workload.identity)
            }
            None => format!("{}, outside the mesh", target.address),
        });
        led_to(&mut self.info, target);
    }

    /// The endpoint is spoken to in this way.
    pub(crate) fn wire(&mut self, wire: Wire) {
        note("wire", || wire.as_str().to_owned());
        (self.info.security, self.info.transport) = (Security::MutualTls, transport(wire));
    }

    /// The connection is established.
    pub(crate) fn open(self) -> ConnectionRecord {
        note("connected", || format!("{:?}, {:?}", self.info.transport, self.info.security));
        let record = self.pod.shared.telemetry.open(self.info);
        await_first_byte(record.counters());
        record
    }

    /// The connection was not established.
    pub(crate) fn refused(self, failure: &Failure) {
        note("refused", || format!("{}: {failure}", failure.reason()));
        refused(self.pod, Direction::Outbound, self.info, failure);
    }
}

fn led_to(info: &mut ConnectionInfo, target: &Target) {
    info.upstream = Some(target.address);
    info.destination = target.workload.as_deref().map_or_else(Peer::unknown, peer);
    (info.security, info.transport) = match target.wire {
        Some(wire) => (Security::MutualTls, transport(wire)),
        None => (Security::None, Transport::Plain),
    };
}

/// What is known about requests of a connection that go to the destination `host`, and to an endpoint of it
/// where one is chosen; `local` if that is a pod of this node that is reached without a wire.
pub(crate) fn requests(
    connection: &ConnectionInfo,
    host: &str,
    target: Option<&Target>,
    local: bool,
) -> ConnectionInfo {
    let mut info = connection.clone();
    if info.service.as_ref().is_none_or(|dialled| dialled.host != host) {
        info.service = Some(label_of(host));
    }
    if let Some(target) = target {
        led_to(&mut info, target);
    }
    if local {
        (info.security, info.transport) = (Security::None, Transport::Local);
    }
    info
}

/// What a DNS name says about the service behind it.
fn label_of(host: &str) -> ServiceLabel {
    let mut parts = host.splitn(4, '.');
    let (name, namespace) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(namespace), Some("svc"), Some(_)) => (name, namespace),
        _ => (host, ""),
    };
    let (name, namespace) = (name.to_owned(), namespace.to_owned());
    ServiceLabel { host: host.to_owned(), name, namespace }
}

/// A peer that has opened a tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Where its tunnel comes from.
    pub(crate) address: SocketAddr,
    /// Who it has proven to be.
    pub(crate) identity: SpiffeId,
    /// Until when its certificate proves that, which may pass while the tunnel is open.
    pub(crate) until: OffsetDateTime,
}

/// What is known about a connection that a peer asks for.
pub(crate) fn inbound(
    pod: &Pod,
    caller: &Caller,
    client: SocketAddr,
    destination: Option<SocketAddr>,
    wire: Wire,
) -> ConnectionInfo {
    let snapshot = pod.shared.snapshot.load();
    // The certificate is proof, the address only a hint at which pod of that identity it is.
    let known = snapshot.workloads.get(&caller.address.ip());
    let source = match known.filter(|workload| workload.identity == caller.identity) {
        Some(workload) => peer(workload),
        None => Peer::from_identity(caller.identity.clone()),
    };
    ConnectionInfo {
        source,
        security: Security::MutualTls,
        source_addr: client,
        upstream: destination,
        ..unproven(pod, client, transport(wire))
    }
}

/// What is known about a connection of a client that has proven nothing.
fn plaintext(pod: &Pod, client: SocketAddr, destination: SocketAddr) -> ConnectionInfo {
    let known = pod.shared.snapshot.load().workloads.get(&client.ip()).cloned();
    // An address is no proof: whose it is may be said, who it is may not.
    let source = known.map_or_else(Peer::unknown, |known| Peer { principal: None, ..peer(&known) });
    ConnectionInfo {
        source,
        upstream: Some(destination),
        ..unproven(pod, client, Transport::Plain)
    }
}

/// What is known about a connection that the kernel has handed over: from a stranger, or from a pod of this
/// node.
pub(crate) fn captured(
    pod: &Pod,
    client: SocketAddr,
    destination: SocketAddr,
    neighbour: Option<&WorkloadInfo>,
) -> ConnectionInfo {
    match neighbour {
        None => plaintext(pod, client, destination),
        Some(neighbour) => ConnectionInfo {
            source: peer(neighbour),
            upstream: Some(destination),
            ..unproven(pod, client, Transport::Local)
        },
    }
}

/// A tunnel was not established: its handshake failed.
pub(crate) fn tunnel_refused(pod: &Pod, peer: SocketAddr, wire: Wire, failure: &Failure) {
    refused(pod, Direction::Inbound, unproven(pod, peer, transport(wire)), failure);
}

/// A connection that a peer asked for was not established.
pub(crate) fn inbound_refused(pod: &Pod, info: ConnectionInfo, failure: &Failure) {
    refused(pod, Direction::Inbound, info, failure);
}

fn unproven(pod: &Pod, from: SocketAddr, transport: Transport) -> ConnectionInfo {
    ConnectionInfo {
        reporter: Reporter::Destination,
        source: Peer::unknown(),
        destination: peer(&pod.workload),
        service: None,
        security: Security::None,
        transport,
        source_addr: from,
        dialled: None,
        upstream: None,
        generation: pod.shared.snapshot.load().generation.0,
    }
}

fn refused(pod: &Pod, direction: Direction, info: ConnectionInfo, failure: &Failure) {
    let reason = failure.reason();
    let shared = &pod.shared;
    shared.metrics.record_connect_error(direction, reason);
    let reason = CloseReason::new(reason, failure.flags()).with_detail(failure.to_string());
    shared.telemetry.denied(&Denial { info, reason });
}

fn transport(wire: Wire) -> Transport {
    match wire {
        Wire::Native => Transport::Native,
        Wire::Hbone => Transport::Hbone,
    }
}

/// A service as metrics and the access log name it.
pub fn service_label(route: &ServicePortRoute) -> ServiceLabel {
    ServiceLabel {
        host: route.host.clone(),
        name: route.service.name.clone(),
        namespace: route.service.namespace.clone(),
    }
}

/// A workload as metrics and the access log name it.
pub fn peer(workload: &WorkloadInfo) -> Peer {
    Peer {
        workload: workload.workload_name.clone(),
        pod: workload.name.name.clone(),
        namespace: workload.name.namespace.clone(),
        principal: Some(workload.identity.clone()),
        app: workload.app.clone(),
        version: workload.version.clone(),
        canonical_service: workload.canonical_service.clone(),
        canonical_revision: workload.canonical_revision.clone(),
        cluster: workload.cluster.clone(),
    }
}
