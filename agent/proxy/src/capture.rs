//! A connection to one of the application's own ports that the kernel has handed over, because only
//! the agent can tell what it is or whether it may pass:
//! accept -> detect -> authorize -> connect (deliver) -> forward -> record.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use crate::{
    accept::Slot,
    authorize::{Attempt, Denial, PolicyWatch, authorize, late, revoked},
    deliver,
    detect::{Detected, detect},
    duplex::Socket,
    error::Failure,
    forward::forward,
    metrics::Direction,
    native,
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
    let detected = if may_be_a_tunnel(pod, peer) {
        Box::pin(detect(&stream, pod.shared.config.detect_timeout)).await
    } else {
        Detected::Plaintext
    };
    match detected {
        Detected::Plaintext => serve_plaintext(pod, stream, peer, destination).await,
        Detected::Native => native::serve(pod, stream, peer, destination).await,
        Detected::Gone => {}
    }
}

/// Only agents speak the native wire, and only from the addresses of their pods. Nobody else has
/// to wait: a client may well expect the server to speak first.
fn may_be_a_tunnel(pod: &Pod, peer: SocketAddr) -> bool {
    pod.shared.snapshot.load().workloads.contains_key(&peer.ip())
}

async fn serve_plaintext(pod: &Pod, stream: TcpStream, peer: SocketAddr, destination: SocketAddr) {
    let _open = Open::new(&pod.inbound_open);
    let _gauge = pod.shared.metrics.connection(Direction::Inbound);
    let mut client = Socket::new(stream);
    let info = record::plaintext(pod, peer, destination);
    // From before the decision, so that no change of policy is missed.
    let mut policies = pod.policy.subscribe();
    let attempt =
        Attempt { source: None, source_addr: peer, destination, workload: &pod.workload.identity };
    // Boxed: connecting takes more room than the hours of forwarding that follow.
    let connected = Box::pin(connect_application(pod, &attempt, &mut policies)).await;
    let mut server = match connected {
        Ok(server) => server,
        Err(failure) => return record::inbound_refused(pod, info, &failure),
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
) -> Result<Socket, Failure> {
    deliver::check(pod, attempt.destination)?;
    let policy = policies.borrow_and_update().clone();
    authorize(attempt, policy.as_deref(), &pod.shared.metrics)
        .map_err(|Denial { reason, detail }| Failure::Denied { reason, detail })?;
    deliver::translated(pod, attempt.source_addr, attempt.destination).await
}
