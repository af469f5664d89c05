//! Step *accept*: the loops that take connections from a pod's listeners.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
};

use crate::{authority::canonical, capture, connect::tune, inbound, outbound, pod::Pod};

/// A place among the connections that a pod may have; kept as long as the connection. `Err` is
/// unreachable: the semaphores are never closed.
pub(crate) type Slot = Result<OwnedSemaphorePermit, AcquireError>;

/// Pause after an error of accept(2) that the next call would meet again, such as EMFILE.
const BACKOFF: Duration = Duration::from_millis(50);

/// Starts a loop for every listener.
pub(crate) fn spawn(
    pod: &Arc<Pod>,
    outbound_listeners: Vec<TcpListener>,
    inbound_listeners: Vec<TcpListener>,
) {
    let config = &pod.shared.config;
    let connections = Arc::new(Semaphore::new(config.max_connections));
    for listener in outbound_listeners {
        let limit = Arc::clone(&connections);
        pod.spawn(accept(Arc::clone(pod), listener, limit, outbound::serve));
    }
    let connections = Arc::new(Semaphore::new(config.max_inbound_connections));
    for listener in inbound_listeners {
        let limit = Arc::clone(&connections);
        pod.spawn(accept(Arc::clone(pod), listener, limit, serve_inbound));
    }
}

/// The kernel hands over whatever arrives at the pod, at the port that the peer has dialled: the
/// tunnel's, or one of the application's.
async fn serve_inbound(pod: Arc<Pod>, stream: TcpStream, peer: SocketAddr, slot: Slot) {
    let Ok(dialled) = stream.local_addr().map(canonical) else { return };
    // Boxed, so that neither has room for the other.
    if pod.own_ports.contains(&dialled.port()) {
        Box::pin(inbound::serve(pod, stream, peer, slot)).await;
    } else {
        Box::pin(capture::serve(pod, stream, peer, dialled, slot)).await;
    }
}

/// Accepts until the pod stops. At the limit, connections wait in the kernel's backlog, where they
/// cost the agent nothing and the client sees a slow server, as with any full listener.
async fn accept<F, T>(pod: Arc<Pod>, listener: TcpListener, limit: Arc<Semaphore>, serve: F)
where
    F: Fn(Arc<Pod>, TcpStream, SocketAddr, Slot) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    loop {
        let next = async {
            let permit = Arc::clone(&limit).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = pod.stop.cancelled() => return,
        };
        match accepted.and_then(|(stream, peer)| prepare(&pod, stream, peer)) {
            Ok((stream, peer)) => {
                pod.spawn_for(peer.ip(), serve(Arc::clone(&pod), stream, peer, permit));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                let pod = &pod.workload.name;
                tracing::warn!(%pod, %error, "cannot accept connections; trying again");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

fn prepare(pod: &Pod, stream: TcpStream, peer: SocketAddr) -> io::Result<(TcpStream, SocketAddr)> {
    tune(&stream, pod.shared.config.keepalive)?;
    Ok((stream, canonical(peer)))
}

/// Errors of a connection that broke before it was accepted (accept(2), "Error handling").
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::Interrupted
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::InvalidInput
            | Kind::NotConnected
    )
}
