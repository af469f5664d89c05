//! Step *forward*: copies bytes both ways until both halves are closed or one side breaks.
//!
//! **Invariant**: the close of one half crosses as the close of that half, a reset as a reset,
//! and never the one as the other. At most one chunk per direction is held here; everything else
//! waits in a window that the slow side controls.

mod flow;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use tokio::task::coop;
use undermesh_telemetry::{ByteCounters, CloseReason};

use crate::duplex::{Broken, Duplex};
use flow::{Flow, Stop};

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The one that the client opened.
    Client,
    /// The one that the proxy opened.
    Server,
}

/// How a forwarded connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Both halves were closed, in order.
    Closed,
    /// One side broke; the other was reset.
    Broken(End, Broken),
}

impl Ending {
    /// As the access log says it.
    pub(crate) fn close_reason(self) -> CloseReason {
        let (end, cause) = match self {
            Self::Closed | Self::Broken(_, Broken::Gone) => return CloseReason::closed(),
            Self::Broken(end, cause) => (end, cause),
        };
        let (reason, flags) = match (end, cause) {
            (End::Client, Broken::TimedOut) => ("client_timeout", "DC"),
            (End::Client, Broken::Io(_)) => ("client_error", "DC"),
            (End::Client, Broken::TunnelLost) => ("tunnel_lost", "DC"),
            (End::Client, _) => ("client_reset", "DC"),
            (End::Server, Broken::TimedOut) => ("server_timeout", "UC"),
            (End::Server, Broken::Io(_)) => ("server_error", "UC"),
            (End::Server, Broken::TunnelLost) => ("tunnel_lost", "UC"),
            (End::Server, _) => ("server_reset", "UC"),
        };
        let reason = CloseReason::new(reason, flags);
        match cause {
            Broken::Io(kind) => reason.with_detail(kind.to_string()),
            _ => reason,
        }
    }
}

/// Forwards until the end. Streams that broke are left to be dropped, which resets them.
pub(crate) async fn forward<C: Duplex, S: Duplex>(
    client: &mut C,
    server: &mut S,
    counters: &ByteCounters,
) -> Ending {
    let mut relay = Relay {
        up: Flow::new(counters, ByteCounters::add_received),
        down: Flow::new(counters, ByteCounters::add_sent),
        client_broken: None,
        server_broken: None,
    };
    let ending = poll_fn(|cx| relay.poll(cx, client, server)).await;
    // A peer that is merely gone has said all it had to say; its last bytes may still be on their
    // way through the other socket and must not be overtaken by a reset.
    if matches!(ending, Ending::Closed | Ending::Broken(_, Broken::Gone)) {
        client.ended();
        server.ended();
    }
    ending
}

/// Both directions, and what is known about the two ends.
struct Relay<'a> {
    /// Client to server.
    up: Flow<'a>,
    /// Server to client.
    down: Flow<'a>,
    client_broken: Option<Broken>,
    server_broken: Option<Broken>,
}

impl Relay<'_> {
    fn poll<C: Duplex, S: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut S,
    ) -> Poll<Ending> {
        match self.up.poll(cx, client, server) {
            Poll::Ready(Err(Stop::Read(cause))) => return broken(End::Client, cause),
            Poll::Ready(Err(Stop::Write(cause))) => self.server_broken = Some(cause),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match self.down.poll(cx, server, client) {
            Poll::Ready(Err(Stop::Read(cause))) => return broken(End::Server, cause),
            Poll::Ready(Err(Stop::Write(cause))) => {
                self.client_broken = Some(cause);
                // What the client sent before it broke may have arrived after `up` looked.
                return self.poll(cx, client, server);
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if self.up.is_done() && self.down.is_done() {
            return Poll::Ready(Ending::Closed);
        }
        if let Poll::Ready(cause) = watch(cx, &self.up, client, self.client_broken) {
            return broken(End::Client, cause);
        }
        if let Poll::Ready(cause) = watch(cx, &self.down, server, self.server_broken) {
            return broken(End::Server, cause);
        }
        Poll::Pending
    }
}

fn broken(end: End, cause: Broken) -> Poll<Ending> {
    Poll::Ready(Ending::Broken(end, cause))
}

/// Notices that `end` broke. While `from_end` waits to read from it, reading finds out by itself,
/// and first gets the bytes that arrived before the break, as an application would. Bytes that
/// the other side has no room for are given up, as a sender's kernel gives up its queue.
fn watch<D: Duplex>(
    cx: &mut Context<'_>,
    from_end: &Flow<'_>,
    end: &mut D,
    known: Option<Broken>,
) -> Poll<Broken> {
    let cause = match known {
        Some(cause) => cause,
        None if from_end.waits_to_read() => return Poll::Pending,
        None => ready!(end.poll_broken(cx)),
    };
    if coop::has_budget_remaining() {
        return Poll::Ready(cause);
    }
    // Without budget, "cannot read" and "cannot write" may only mean "not now". Look again.
    cx.waker().wake_by_ref();
    Poll::Pending
}
