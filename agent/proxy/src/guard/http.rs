//! A judged connection that speaks HTTP, with hyper at its edge.

use std::{convert::Infallible, pin::pin, sync::Arc};

use ::http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use undermesh_telemetry::ConnectionInfo;

use super::{Visit, exchange::Guard, service::Visited};
use crate::{
    authorize::PolicyWatch,
    duplex::{Duplex, Stream},
    http::{Cut, FAREWELL, IDLE, Strict, Switch, http1_edge, http2_builder},
};

/// Serves the requests of a client's stream until it leaves.
pub(super) async fn serve<D>(
    visit: Visit,
    info: ConnectionInfo,
    stream: Stream<D>,
    http2: bool,
    policies: PolicyWatch,
) where
    D: Duplex + Unpin + Send + 'static,
{
    let switch = Switch::default();
    let stayed = switch.clone();
    let stream = stream.unfinished_where(move || stayed.has_stayed());
    serve_stream(visit, info, stream, (http2, switch), policies).await;
}

/// The same for requests that this proxy itself brings from another pod of its node.
pub(crate) async fn serve_bytes<S>(
    visit: Visit,
    info: ConnectionInfo,
    stream: S,
    http2: bool,
    policies: PolicyWatch,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_stream(visit, info, stream, (http2, Switch::default()), policies).await;
}

/// Serves for as long as policy has nothing against the connection.
async fn serve_stream<S>(
    visit: Visit,
    info: ConnectionInfo,
    stream: S,
    (http2, switch): (bool, Switch),
    mut policies: PolicyWatch,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let revoking = visit.clone();
    let visited = Visited::new(&visit, info);
    let cut = Arc::new(Cut::default());
    let guard = Guard::new(visit, (visited, Arc::clone(&cut)), http2, switch.clone());
    tokio::select! {
        () = serve_requests(Arc::new(guard), stream, http2, switch) => {}
        () = async {
            let denial = revoking.revoked(&mut policies).await;
            tracing::debug!(detail = %denial.detail, "a judged connection was revoked");
            // Before its requests are let go of.
            cut.set(&denial);
        } => {}
    }
}

async fn serve_requests<S>(guard: Arc<Guard>, stream: S, http2: bool, switch: Switch)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pod = Arc::clone(guard.pod());
    let config = &pod.shared.config;
    let limit = config.head_timeout;
    let serving = Arc::clone(&guard);
    let service = service_fn(move |request: Request<Incoming>| {
        let guard = Arc::clone(&serving);
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
            () = guard.streams.idle(config.http2_idle_timeout) => {
                pod.shared.metrics.record_client_limit(IDLE);
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    // It has not understood.
                    () = guard.streams.idle(FAREWELL) => Ok(()),
                }
            }
        }
    } else {
        let io = TokioIo::new(Strict::new(stream, switch, config.head).within(limit));
        let connection = http1_edge(&pod).serve_connection(io, service).with_upgrades();
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
        guard.ended(&error);
    }
}
