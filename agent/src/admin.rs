//! The agent's three small HTTP servers: admin (loopback), metrics, readiness. They run on the
//! control runtime, never on the one that carries connections.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

use crate::dashboard::{self, Hosts};

/// Connections that one server serves at once; more wait.
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that one connection may be served.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// An answer of a page.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(body: String) -> Self {
        Self { status: StatusCode::OK, content_type: "application/json", body }
    }

    /// A value as JSON, without line breaks: of large ones they would be a third.
    pub(crate) fn of(value: &impl Serialize) -> Self {
        Self::written(serde_json::to_string(value))
    }

    /// The same, for people who ask by hand.
    pub(crate) fn pretty(value: &impl Serialize) -> Self {
        Self::written(serde_json::to_string_pretty(value))
    }

    fn written(json: serde_json::Result<String>) -> Self {
        match json {
            Ok(body) => Self::json(body),
            Err(error) => Self::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    pub(crate) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
}

/// Answers a request, by method, path and query.
pub(crate) type Pages = Arc<dyn Fn(&Method, &str, &str) -> Answer + Send + Sync>;

/// Opens a listening socket; an IPv6 wildcard falls back to IPv4 where the node has no IPv6.
pub(crate) fn listen(name: &str, address: SocketAddr) -> Result<TcpListener> {
    let open = |address: SocketAddr| -> std::io::Result<TcpListener> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        TcpListener::from_std(socket.into())
    };
    let result = open(address).or_else(|error| {
        let no_ipv6 = error.kind() != std::io::ErrorKind::AddrInUse;
        if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6 {
            open(SocketAddr::from(([0, 0, 0, 0], address.port())))
        } else {
            Err(error)
        }
    });
    result.with_context(|| format!("cannot listen on {address} for {name}; is the port taken?"))
}

/// Serves `pages` to anybody until `shutdown`.
pub(crate) async fn serve(listener: TcpListener, pages: Pages, shutdown: watch::Receiver<bool>) {
    serve_as(listener, pages, None, shutdown).await;
}

/// Serves `pages` until `shutdown` to who asks by one of these names; browsers are told to keep them from other sites.
pub(crate) async fn serve_guarded(
    listener: TcpListener,
    pages: Pages,
    hosts: Hosts,
    shutdown: watch::Receiver<bool>,
) {
    serve_as(listener, pages, Some(Arc::new(hosts)), shutdown).await;
}

async fn serve_as(
    listener: TcpListener,
    pages: Pages,
    hosts: Option<Arc<Hosts>>,
    mut shutdown: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (pages, hosts) = (Arc::clone(&pages), hosts.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    let served = serve_connection(stream, pages, hosts);
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, served).await;
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: wait instead of spinning.
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, pages: Pages, hosts: Option<Arc<Hosts>>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (pages, hosts) = (Arc::clone(&pages), hosts.clone());
        async move { Ok::<_, Infallible>(answer(&request, &pages, hosts.as_deref())) }
    });
    let result = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "admin connection failed");
    }
}

fn answer(
    request: &Request<Incoming>,
    pages: &Pages,
    hosts: Option<&Hosts>,
) -> Response<Full<Bytes>> {
    let refusal = hosts.and_then(|hosts| hosts.refuse(request));
    let answer = refusal.unwrap_or_else(|| {
        let query = request.uri().query().unwrap_or_default();
        pages(request.method(), request.uri().path(), query)
    });
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if hosts.is_some() {
        dashboard::guard(response.headers_mut());
    }
    response
}
