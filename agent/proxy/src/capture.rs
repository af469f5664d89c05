//! A connection to one of the application's own ports that the kernel has handed over, because only
//! the agent can tell what it is or whether it may pass:
//! accept -> detect -> authorize -> connect (deliver) -> forward -> record.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;
use undermesh_snapshot::WorkloadInfo;

use crate::{
    accept::Slot,
    authorize::{Admission, Attempt, Denial, PolicyWatch, authorize, late, revoked},
    deliver,
    detect::{Detected, detect},
    duplex::Socket,
    error::Failure,
    forward::forward,
    guard::{self, Delivery, Visit},
    inbound::Admitted,
    metrics::Direction,
    native,
    overload::Carried,
    pod::{Open, Pod},
    record,
};

/// Serves one captured connection to its end.
pub(crate) async fn serve(
    pod: Arc<Pod>,
    stream: TcpStream,
    peer: SocketAddr,
    destination: SocketAddr,
    _slot: Slot,
) {
    tokio::select! {
        () = serve_connection(&pod, stream, peer, destination) => {}
        // Dropping the streams resets them.
        () = pod.kill.cancelled() => {}
    }
}

async fn serve_connection(
    pod: &Arc<Pod>,
    stream: TcpStream,
    peer: SocketAddr,
    destination: SocketAddr,
) {
    let neighbour = pod.original_dst.neighbour(peer, destination);
    if let Err(failure) = pod.has_room(Carried::Bytes) {
        let info = record::captured(pod, peer, destination, neighbour.as_deref());
        return record::inbound_refused(pod, info, &failure);
    }
    let detected = if neighbour.is_none() && may_be_a_tunnel(pod, peer) {
        Box::pin(detect(&stream, pod.shared.config.detect_timeout)).await
    } else {
        Detected::Plaintext
    };
    match detected {
        // Boxed, so that neither has room for the other.
        Detected::Plaintext => {
            Box::pin(serve_plaintext(pod, stream, peer, destination, neighbour)).await;
        }
        Detected::Native => Box::pin(native::serve(pod, stream, peer, destination)).await,
        Detected::Gone => {}
    }
}

/// Only agents speak the native wire, and only from the addresses of their pods. Nobody else has
/// to wait: a client may well expect the server to speak first.
fn may_be_a_tunnel(pod: &Pod, peer: SocketAddr) -> bool {
    pod.shared.snapshot.load().workloads.contains_key(&peer.ip())
}

/// Serves what is no tunnel: plaintext of a stranger, or a connection of a pod of this node, of which the
/// kernel knows whose it is.
async fn serve_plaintext(
    pod: &Arc<Pod>,
    stream: TcpStream,
    peer: SocketAddr,
    destination: SocketAddr,
    neighbour: Option<Arc<WorkloadInfo>>,
) {
    let _open = Open::new(&pod.inbound_open);
    let _gauge = pod.shared.metrics.connection(Direction::Inbound);
    let mut client = Socket::new(stream);
    let info = record::captured(pod, peer, destination, neighbour.as_deref());
    // From before the decision, so that no change of policy is missed.
    let mut policies = pod.policy.subscribe();
    let source = neighbour.as_ref().map(|neighbour| &neighbour.identity);
    let attempt =
        Attempt { source, source_addr: peer, destination, workload: &pod.workload.identity };
    // Boxed: connecting takes more room than the hours of forwarding that follow.
    let connected = Box::pin(connect_application(pod, &attempt, &mut policies)).await;
    let admitted = match connected {
        Ok(admitted) => admitted,
        Err(failure) => return record::inbound_refused(pod, info, &failure),
    };
    let Admitted::Delivered(mut server) = admitted else {
        let (pod, source) = (Arc::clone(pod), source.cloned());
        let delivery = Delivery::Translated;
        let visit = Visit { pod, source, source_addr: peer, client: peer, destination, delivery };
        return Box::pin(guard::serve(visit, info, client, policies, |_| {})).await;
    };
    let record = pod.shared.telemetry.open(info);
    let reason = tokio::select! {
        ending = forward(&mut client, &mut server, record.counters()) => ending.close_reason(),
        denial = revoked(&attempt, &mut policies, &pod.shared.metrics) => late(&denial),
    };
    record.close(reason);
}

async fn connect_application(
    pod: &Pod,
    attempt: &Attempt<'_>,
    policies: &mut PolicyWatch,
) -> Result<Admitted, Failure> {
    deliver::check(pod, attempt.destination)?;
    let policy = policies.borrow_and_update().clone();
    let admission = authorize(attempt, policy.as_deref(), &pod.shared.metrics)
        .map_err(|Denial { reason, detail }| Failure::Denied { reason, detail })?;
    if admission == Admission::Judge {
        pod.has_room(Carried::Requests)?;
        return known(pod, attempt).map(|()| Admitted::Judged);
    }
    let delivered = deliver::translated(pod, attempt.source_addr, attempt.destination).await;
    delivered.map(Admitted::Delivered)
}

/// A pod of this node is known by its record, or is nobody that rules about requests may take for a stranger.
fn known(pod: &Pod, attempt: &Attempt<'_>) -> Result<(), Failure> {
    let snapshot = pod.shared.snapshot.load();
    let owner = snapshot.workloads.get(&attempt.source_addr.ip());
    if attempt.source.is_some() || owner.is_none_or(|owner| !owner.local) {
        return Ok(());
    }
    let detail = "it comes from a pod of this node, and its record is gone".into();
    Err(Failure::Denied { reason: "source_unknown", detail })
}
