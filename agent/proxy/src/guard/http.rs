//! A judged connection that speaks HTTP, with hyper at its edge.

use std::{convert::Infallible, pin::pin, sync::Arc};

use ::http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use undermesh_telemetry::ByteCounters;

use super::{Visit, counted::Counted, exchange::Guard};
use crate::{
    duplex::{Duplex, Stream},
    http::{Strict, Switch, http1_builder, http2_builder},
};

/// Serves the requests of a client's stream until it leaves.
pub(super) async fn serve<D>(
    visit: Visit,
    stream: Stream<D>,
    http2: bool,
    counters: Arc<ByteCounters>,
) where
    D: Duplex + Unpin + Send + 'static,
{
    let switch = Switch::default();
    let stayed = switch.clone();
    let stream = stream.unfinished_where(move || stayed.has_stayed());
    serve_stream(visit, Counted::new(stream, counters), http2, switch).await;
}

/// The same for requests that this proxy itself brings from another pod of its node.
pub(crate) async fn serve_bytes<S>(visit: Visit, stream: S, http2: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_stream(visit, stream, http2, Switch::default()).await;
}

async fn serve_stream<S>(visit: Visit, stream: S, http2: bool, switch: Switch)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pod = Arc::clone(&visit.pod);
    let limit = pod.shared.config.head_timeout;
    let client = visit.client;
    let guard = Arc::new(Guard::new(visit, http2, switch.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = Arc::clone(&guard);
        async move { Ok::<_, Infallible>(guard.serve(request).await) }
    });
    let ended = if http2 {
        let io = TokioIo::new(Strict::http2(stream, limit));
        let connection = http2_builder(&pod).serve_connection(io, service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = pod.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let io = TokioIo::new(Strict::new(stream, switch, limit));
        let connection = http1_builder().serve_connection(io, service).with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = pod.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%client, %error, "judged HTTP connection ended");
    }
}
