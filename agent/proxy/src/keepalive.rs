//! Notices dead tunnels: PING frames that must be answered in time.

use std::future::pending;

use h2::{Ping, PingPong};

use crate::config::Keepalive;

/// Returns when the peer has left a PING unanswered; never, as long as it answers. Runs beside the
/// future that drives the connection, which also reports every other way for it to end.
pub(crate) async fn lost(ping_pong: Option<PingPong>, keepalive: Keepalive) {
    let Some(mut ping_pong) = ping_pong else {
        return pending().await;
    };
    loop {
        tokio::time::sleep(keepalive.interval).await;
        let answer = ping_pong.ping(Ping::opaque());
        match tokio::time::timeout(keepalive.timeout, answer).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return pending().await,
            Err(_) => return,
        }
    }
}
