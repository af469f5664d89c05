//! Drives a tunnel's HTTP/2 connection until it ends, and takes the tunnel out of the pool.

use std::{sync::Weak, time::Duration};

use tokio_util::sync::CancellationToken;

use super::PoolState;
use crate::{
    keepalive,
    metrics::Direction,
    proxy::Shared,
    tunnel::{Connection, Tunnel},
};

/// Shortest time between two looks at whether a tunnel is idle.
const LEAST_TICK: Duration = Duration::from_millis(10);

/// Runs until the tunnel is closed: by the peer, by a PING that nobody answered, because nobody
/// used it for long, or because the pod is gone. Holds no reference to the tunnel, which would
/// keep it open for ever.
pub(super) async fn drive(
    mut connection: Connection,
    tunnel: Weak<Tunnel>,
    pool: Weak<PoolState>,
    shared: &Shared,
    kill: CancellationToken,
) {
    let _open = shared.metrics.tunnel(Direction::Outbound);
    let ping_pong = connection.ping_pong();
    let idle = shared.config.pool.idle;
    tokio::select! {
        result = connection => {
            if let Err(error) = result {
                tracing::debug!(%error, "tunnel ended");
            }
        }
        () = keepalive::lost(ping_pong, shared.config.keepalive) => {
            // Dropping the connection fails its streams, which reset their sockets.
            tracing::debug!("tunnel ended: peer does not answer");
        }
        () = evict_idle(&tunnel, &pool, idle) => {}
        () = kill.cancelled() => {}
    }
    if let (Some(tunnel), Some(pool)) = (tunnel.upgrade(), pool.upgrade()) {
        pool.remove(&tunnel);
    }
}

/// Takes the tunnel out of the pool once it was idle for long enough; the connection then closes by itself
/// and this never returns.
async fn evict_idle(tunnel: &Weak<Tunnel>, pool: &Weak<PoolState>, idle: Duration) {
    let mut wait = idle;
    loop {
        tokio::time::sleep(wait.max(LEAST_TICK)).await;
        let (Some(tunnel), Some(pool)) = (tunnel.upgrade(), pool.upgrade()) else {
            return std::future::pending().await;
        };
        let idle_for = tunnel.idle_for();
        if idle_for >= idle && pool.remove_unused(&tunnel) {
            return std::future::pending().await;
        }
        wait = idle.saturating_sub(idle_for);
    }
}
