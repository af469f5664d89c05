//! A stream to a controller: mutual TLS with a certificate that the controller itself has given, and the token beside it.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc};

use super::{RemoteAuthority, RemoteConfig, client};
use crate::{AuthorityError, Svid, grpc, issuance::pump};

/// Pieces that wait to be taken, on either side.
const QUEUE: usize = 4;
/// How long a stream may take to be opened.
const OPEN: Duration = Duration::from_secs(20);
/// A connection whose other end is gone is noticed after this time.
const PING: Duration = Duration::from_secs(20);
/// Bytes that may be on their way.
const WINDOW: u32 = 2 << 20;
/// How long a certificate for the agent itself is asked for.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Controllers that streams are opened to.
#[derive(Debug)]
pub struct ControllerLink {
    controllers: Vec<RemoteAuthority>,
    /// The one that is asked next.
    next: AtomicUsize,
    /// The agent's own certificate, and until when it is shown.
    own: Mutex<Option<(Arc<Svid>, Instant)>>,
}

/// A stream.
pub struct OpenedStream {
    /// The bytes that come. An error ends them.
    pub incoming: mpsc::Receiver<Result<Bytes, String>>,
    /// Where bytes go.
    pub outgoing: mpsc::Sender<Bytes>,
    /// The controller at the other end.
    pub server: String,
}

impl ControllerLink {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// Where the name of a controller is none.
    pub fn new(configs: Vec<RemoteConfig>) -> Result<Self, AuthorityError> {
        let controllers: Result<Vec<_>, _> =
            configs.into_iter().map(RemoteAuthority::new).collect();
        // Not all agents begin with the same one: whoever makes a state of hashes gets other keys.
        let next = AtomicUsize::new(RandomState::new().hash_one(0) as usize);
        Ok(Self { controllers: controllers?, next, own: Mutex::default() })
    }

    /// Opens a stream to one of the controllers: the one of the last time, or the next after it has failed.
    ///
    /// # Errors
    /// A text that says why there is none.
    pub async fn open(&self, path: &'static str) -> Result<OpenedStream, String> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let Some(controller) = self.controllers.get(next % self.controllers.len().max(1)) else {
            return Err("there is no controller".to_owned());
        };
        let name = format!("{}:{}", controller.config.host, controller.config.port);
        let opened = tokio::time::timeout(OPEN, self.open_to(controller, path)).await;
        let opened = opened.unwrap_or_else(|_| Err(format!("{name} does not answer in time")));
        if opened.is_err() {
            // It may be of an authority that is no more.
            *self.own.lock().await = None;
        }
        opened
    }

    async fn open_to(
        &self,
        controller: &RemoteAuthority,
        path: &'static str,
    ) -> Result<OpenedStream, String> {
        let RemoteConfig { host, port, name, cluster, .. } = &controller.config;
        let svid = self.own(controller).await?;
        let told = |error: AuthorityError| error.to_string();
        let (trust, token) =
            (controller.trusted().map_err(told)?, controller.token().map_err(told)?);
        let config = trust.named_as(&svid).map_err(|error| error.to_string())?;
        let server_name = ServerName::try_from(name.clone()).map_err(|error| error.to_string())?;
        let secured = client::dial(host, *port, server_name, config).await?;
        let says = |error: hyper::Error| format!("{host}:{port}: {error}");
        let (mut sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(secured))
            .await
            .map_err(says)?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "the connection to the controller has ended");
            }
        });
        let (outgoing, sent) = mpsc::channel(QUEUE);
        let mut request = client::request((host, *port), path, &token, cluster, Sending(sent))?;
        let gzip = HeaderValue::from_static(grpc::GZIP);
        request.headers_mut().insert(grpc::ENCODING, gzip.clone());
        request.headers_mut().insert(grpc::ACCEPTED, gzip);
        let (head, body) = sender.send_request(request).await.map_err(says)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!("{host}:{port} answers with {}", head.status));
        }
        if let Some((code, text)) = grpc::read_status(&head.headers) {
            return Err(format!("{host}:{port} refuses (gRPC status {code}): {text}"));
        }
        let (taken, incoming) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            pump(body, taken).await;
            drop(sender);
        });
        Ok(OpenedStream { incoming, outgoing, server: format!("{host}:{port}") })
    }

    /// The certificate that is shown: one of the controller's, for whose the token is.
    async fn own(&self, controller: &RemoteAuthority) -> Result<Arc<Svid>, String> {
        let mut own = self.own.lock().await;
        if let Some((svid, until)) = &*own
            && Instant::now() < *until
        {
            return Ok(Arc::clone(svid));
        }
        let svid = controller.own(LIFETIME).await.map_err(|error| error.to_string())?;
        let left = Duration::try_from(svid.not_after() - OffsetDateTime::now_utc());
        let until = Instant::now() + left.unwrap_or_default() / 2;
        let svid = Arc::new(svid);
        *own = Some((Arc::clone(&svid), until));
        Ok(svid)
    }
}

/// Bytes as they are given.
pub(super) struct Sending(mpsc::Receiver<Bytes>);

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
