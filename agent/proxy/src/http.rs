//! Requests of a client pod, looked at: one file per step.
//!
//! A connection: sniff -> (l4 | requests). A request (`exchange.rs`): head -> route -> cors -> fault ->
//! (redirect | direct | rewrite -> mirror -> forward -> dial) -> answer. It asks `upstream` for
//! endpoints and knows nothing of balancing, limits and pools. `log.rs` is what telemetry hangs on.

mod blocks;
mod body;
mod call;
mod cors;
mod deadline;
mod dial;
mod edits;
mod exchange;
pub(crate) mod explain;
mod fault;
mod forward;
mod framing;
mod front;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head;
mod idle;
mod l4;
mod local_reply;
mod log;
mod meter;
mod mirror;
mod neighbour;
mod outside;
mod patient;
mod patterns;
mod places;
mod random;
mod redirect;
mod replay;
mod requests;
mod retry;
mod rewrite;
mod sniff;
mod strict;
mod target;
mod timeout;
pub(crate) mod upgrade;
mod way;

use std::{net::SocketAddr, sync::Arc};

use undermesh_snapshot::{
    Snapshot,
    traffic::{AppProtocol, PortTraffic},
};

use crate::{duplex::Socket, error::Failure, plan::Plan, pod::Pod, record::Outbound};
pub(crate) use body::{AnswerBody, UntilEnd, cleaned};
pub(crate) use call::call;
use front::{Front, is_about_requests};
pub(crate) use head::{Head, clean_answer, remove_hop_by_hop};
pub(crate) use idle::{FAREWELL, Streams};
use l4::{Led, Sniffed};
pub(crate) use local_reply::LocalReply;
pub(crate) use log::{Cut, Flag, RequestLog, unreadable};
pub(crate) use meter::Metered;
pub(crate) use outside::{Carries, secure};
pub(crate) use patient::{Happened, Pace, Patient};
pub(crate) use requests::{IDLE, http1_edge, http2_builder};
pub(crate) use sniff::{Look, Spoken, sniff};
pub(crate) use strict::{Strict, Switch};

/// What rules say about the service port that was dialled, if they say anything.
pub(crate) fn asked(pod: &Pod, plan: &Plan) -> Option<Arc<PortTraffic>> {
    traffic_of(&pod.shared.snapshot.load(), &pod.workload.name.namespace, plan.dialled)
}

/// The same, for clients in a namespace.
pub(crate) fn traffic_of(
    snapshot: &Snapshot,
    namespace: &str,
    dialled: SocketAddr,
) -> Option<Arc<PortTraffic>> {
    front::asked(snapshot, namespace, dialled)
}

/// Serves a connection that rules are about.
pub(crate) async fn serve_connection(
    pod: &Arc<Pod>,
    mut client: Socket,
    dialled: SocketAddr,
    traffic: &PortTraffic,
    mut log: Outbound<'_>,
) {
    let front = Arc::new(Front::new(pod, log.info(), dialled, traffic));
    let gone = client.broken();
    let known = Box::pin(async {
        tokio::select! {
            known = know(&front, &mut client, traffic, &mut log) => known,
            _ = gone => Err(Failure::ClientGone),
        }
    });
    match known.await {
        Ok(Known::Http1) => requests::serve(&front, client, false).await,
        Ok(Known::Http2) => requests::serve(&front, client, true).await,
        Ok(Known::Led(led)) => led.relay(&front, client, log).await,
        Err(failure) => log.refused(&failure),
    }
}

/// What is done with a connection.
enum Known {
    Http1,
    Http2,
    /// Nobody looks at it any more.
    Led(Box<Led>),
}

/// Finds out what a connection carries, as far as its port does not say; what is no HTTP is led to an
/// endpoint.
async fn know(
    front: &Front,
    client: &mut Socket,
    traffic: &PortTraffic,
    log: &mut Outbound<'_>,
) -> Result<Known, Failure> {
    let patience = front.pod.shared.config.detect_timeout;
    let spoken = match traffic.protocol {
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => {
            sniff(client, Look::ForVersion, patience).await
        }
        AppProtocol::Auto => match l4::sniff(front, client, log).await? {
            Sniffed::Spoke(spoken) => spoken,
            Sniffed::Led(led) => return Ok(Known::Led(led)),
        },
        AppProtocol::Tls if traffic.looks_at_server_names() => {
            let hello = sniff(client, Look::ForAll, patience);
            tokio::time::timeout(patience, hello).await.unwrap_or(Spoken::Other)
        }
        AppProtocol::Tls | AppProtocol::Tcp => Spoken::Other,
    };
    let server_name = match spoken {
        Spoken::Http1 if is_about_requests(traffic) => return Ok(Known::Http1),
        Spoken::Http2 if is_about_requests(traffic) => return Ok(Known::Http2),
        Spoken::Tls(name) => name,
        Spoken::Http1 | Spoken::Http2 | Spoken::Other => None,
    };
    let led = l4::lead(front, server_name.as_deref(), Some(client), log).await?;
    Ok(Known::Led(Box::new(led)))
}
