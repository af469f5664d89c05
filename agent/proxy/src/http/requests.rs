//! A connection of a client that speaks HTTP, with hyper at its edge.

use std::{convert::Infallible, future::poll_fn, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{exchange, front::Front, idle::FAREWELL, log, strict::Strict};
use crate::{
    config::HeadLimits,
    duplex::{Duplex, Socket, Stream},
    follow,
    pod::Pod,
};

/// How long an idle HTTP/1.1 connection is kept that should end: its next request is answered, and told
/// to be the last. Closing at once would lose one that is on its way.
const LAST_REQUEST: Duration = Duration::from_secs(5);
/// How long a client may take to read an answer that came before it had sent its whole request.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it is thrown away meanwhile.
const LINGER_BYTES: usize = 1 << 20;
/// Streams that a client may have open on one connection.
const MAX_STREAMS: u32 = 1024;
/// Streams that the proxy itself may have to reset on one connection, because of what the client sends
/// (CVE-2025-8671); then it ends.
const MAX_LOCAL_RESETS: usize = 256;
/// Headers that hyper takes where nothing else is said.
const HYPERS_HEADERS: usize = 100;
/// A client of HTTP/2 has asked for nothing for too long; for metrics.
pub(crate) const IDLE: &str = "http2_idle";
/// Bytes in flight on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Serves requests until the client leaves or has been asked to.
pub(crate) async fn serve(front: &Arc<Front>, client: Socket, http2: bool) {
    let broken = client.broken();
    let pod = Arc::clone(&front.pod);
    let stream = Stream::new(client).when_over(move |socket, read_ended| {
        if !read_ended {
            let runtime = pod.shared.runtime.clone();
            pod.tasks.spawn_on(linger(socket), &runtime);
        }
    });
    let switch = front.switch.clone();
    let stream = stream.unfinished_where(move || switch.has_stayed());
    tokio::select! {
        () = serve_stream(front, stream, http2) => {}
        // hyper does not look at a socket that it neither reads nor writes.
        _ = broken => {}
    }
}

async fn serve_stream(front: &Arc<Front>, stream: Stream<Socket>, http2: bool) {
    let service = service_fn(|request: Request<Incoming>| {
        let front = Arc::clone(front);
        async move { Ok::<_, Infallible>(exchange::serve(front, request).await) }
    });
    let config = &front.pod.shared.config;
    let limit = config.head_timeout;
    let ended = if http2 {
        let io = TokioIo::new(Strict::http2(stream, limit));
        let mut connection = pin!(http2_builder(&front.pod).serve_connection(io, service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = front.leaves() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = front.streams.idle(config.http2_idle_timeout) => {
                front.pod.shared.metrics.record_client_limit(IDLE);
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    // It has not understood.
                    () = front.streams.idle(FAREWELL) => Ok(()),
                }
            }
        }
    } else {
        let strict = Strict::new(stream, front.switch.clone(), config.head);
        let io = TokioIo::new(strict.within(limit));
        let connection = http1_edge(&front.pod).serve_connection(io, service).with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = leaves_slowly(front) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        let metrics = &front.pod.shared.metrics;
        log::unreadable(front.places.nowhere(), metrics, front.rules().generation, &error);
        tracing::debug!(client = %front.client, dialled = %front.dialled, %error, "HTTP connection ended");
    }
}

async fn leaves_slowly(front: &Front) {
    front.leaves().await;
    tokio::time::sleep(LAST_REQUEST).await;
}

/// The edge of a connection of HTTP/1 of a pod. hyper waits for a head from the end of the former answer on, so
/// that its limit is how long a connection may be idle.
pub(crate) fn http1_edge(pod: &Pod) -> http1::Builder {
    let mut builder = http1_builder(pod.shared.config.head);
    let idle = pod.shared.config.http_idle_timeout;
    if !idle.is_zero() {
        builder.timer(TokioTimer::new()).header_read_timeout(idle);
    }
    builder
}

/// The same without a clock.
pub(super) fn http1_builder(head: HeadLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A client that has said all it has to say may still read.
    builder.half_close(true).max_header_size(head.bytes).max_buf_size(head.bytes * 4);
    if head.headers != HYPERS_HEADERS {
        // Costs an allocation for each head.
        builder.max_headers(head.headers);
    }
    builder
}

/// The edge of a connection of HTTP/2.
pub(crate) fn http2_builder(pod: &Arc<Pod>) -> http2::Builder<PodTasks> {
    // The limit itself is kept where it can be told (`head.rs`); h2 answers with the same status and says nothing.
    let most = pod.shared.config.head.bytes.saturating_mul(2);
    let mut builder = http2::Builder::new(PodTasks(Arc::clone(pod)));
    builder
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(pod.shared.config.http2.max_reset_streams)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_header_list_size(u32::try_from(most).unwrap_or(u32::MAX))
        .enable_connect_protocol();
    builder
}

/// Runs what belongs to a pod for as long as the pod is served.
#[derive(Clone)]
pub(crate) struct PodTasks(Arc<Pod>);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for PodTasks {
    fn execute(&self, task: F) {
        let pod = Arc::clone(&self.0);
        let task = follow::stream(task);
        let task = async move {
            tokio::select! {
                _ = task => {}
                () = pod.kill.cancelled() => {}
            }
        };
        let Self(pod) = self;
        pod.spawn(task);
    }
}

/// Closes a connection so that the last answer arrives: closing it while bytes of the client are unread
/// would reset it, and the reset may overtake the answer.
async fn linger(mut socket: Socket) {
    let mut left = LINGER_BYTES;
    let drain = poll_fn(move |cx| {
        // Has been done already, but for a connection that hyper has let go.
        let _ = std::task::ready!(socket.poll_finish(cx));
        while left > 0 {
            match std::task::ready!(socket.poll_read(cx, left)) {
                Ok(Some(bytes)) => left -= bytes.len().min(left),
                Ok(None) | Err(_) => break,
            }
        }
        std::task::Poll::Ready(())
    });
    // Whatever is left is thrown away with the socket.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
