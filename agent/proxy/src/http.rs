//! Requests of a client pod, looked at: one file per step.
//!
//! A connection: sniff -> (l4 | requests). A request (`exchange.rs`): head -> route -> cors -> fault ->
//! (redirect | direct | rewrite -> mirror -> forward -> dial) -> answer. It asks `upstream` for
//! endpoints and knows nothing of balancing, limits and pools. `log.rs` is what telemetry hangs on.

mod body;
mod cors;
mod deadline;
mod dial;
mod edits;
mod exchange;
mod fault;
mod forward;
mod front;
mod hash;
mod head;
mod local_reply;
mod log;
mod mirror;
mod patterns;
mod random;
mod redirect;
mod replay;
mod requests;
mod retry;
mod rewrite;
mod upgrade;

use std::{net::SocketAddr, sync::Arc};

use undermesh_snapshot::traffic::{AppProtocol, PortTraffic};

use crate::{duplex::Socket, plan::Plan, pod::Pod};
use front::Front;

/// What rules say about the service port that was dialled, if they say anything.
pub(crate) fn asked(pod: &Pod, plan: &Plan) -> Option<Arc<PortTraffic>> {
    front::asked(&pod.shared.snapshot.load(), pod, plan.dialled)
}

/// Serves a connection that rules are about.
pub(crate) async fn serve_connection(
    pod: &Arc<Pod>,
    client: Socket,
    from: SocketAddr,
    dialled: SocketAddr,
    traffic: &PortTraffic,
) {
    let front = Arc::new(Front::new(pod, from, dialled, traffic));
    let http2 = matches!(traffic.protocol, AppProtocol::Http2 | AppProtocol::Grpc);
    requests::serve(&front, client, http2).await;
}
