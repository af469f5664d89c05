//! A tunnel to another pod: one HTTP/2 connection over mutual TLS that many streams share.

mod dial;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use http::{Request, StatusCode};
use rustls::ClientConfig;
use undermesh_identity::IdentityStore;
use undermesh_model::{SpiffeId, Wire};

use crate::{
    duplex::TunnelStream,
    error::{Failure, Side},
    headers, identity,
    observed::TlsError,
    terminate::tls_failure,
};
pub(crate) use dial::{Connection, Dialer};

/// Which tunnels may be shared: those to the same address that proved the same identity. The
/// source is the pod that owns the pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TunnelKey {
    /// Address and port that are dialled: the destination's tunnel listener, or, on the native wire,
    /// its application.
    pub(crate) address: SocketAddr,
    /// The only identity that is accepted there.
    pub(crate) identity: SpiffeId,
}

/// An open tunnel. It closes by itself when the last reference is gone and no stream is left.
pub(crate) struct Tunnel {
    /// Counts up over the process; a larger one was opened later.
    pub(crate) id: u64,
    pub(crate) key: TunnelKey,
    pub(crate) opened: Instant,
    sender: SendRequest<Bytes>,
    /// Streams reserved or open.
    streams: AtomicUsize,
    max_streams: usize,
    /// When the last stream ended.
    idle_since: Mutex<Instant>,
    credentials: Credentials,
    tls_error: TlsError,
}

/// What a tunnel's handshake was made with.
struct Credentials {
    source: SpiffeId,
    config: Arc<ClientConfig>,
    identities: Arc<IdentityStore>,
    /// The store's generation at which `config` was last found current.
    checked: AtomicU64,
}

impl Credentials {
    /// False once the certificate or the trust bundle was replaced. New streams then go to a new
    /// tunnel; those that are open stay. Looks closer only when the store has changed.
    fn are_current(&self, destination: &SpiffeId) -> bool {
        let generation = self.identities.generation();
        if self.checked.load(Ordering::Relaxed) == generation {
            return true;
        }
        let current = identity::is_current(
            &self.identities,
            &self.source,
            destination,
            Wire::Hbone,
            &self.config,
        );
        if current {
            self.checked.store(generation, Ordering::Relaxed);
        }
        current
    }
}

/// Why a stream could not be opened.
pub(crate) struct OpenError {
    pub(crate) failure: Failure,
    /// The tunnel did not carry the request to the end; a fresh one may.
    pub(crate) tunnel_dead: bool,
}

impl Tunnel {
    /// Sets a stream aside, unless the tunnel is full, closing or
    /// made with a certificate that was replaced.
    pub(crate) fn reserve(self: &Arc<Self>) -> Option<Permit> {
        if !self.credentials.are_current(&self.key.identity) || !self.is_alive() {
            return None;
        }
        // The peer's own limit is known once its SETTINGS have arrived.
        let limit = self.max_streams.min(self.sender.current_max_send_streams());
        self.streams
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < limit).then_some(count + 1)
            })
            .ok()?;
        Some(Permit { tunnel: Arc::clone(self) })
    }

    /// False once the peer said goodbye or the connection broke.
    pub(crate) fn is_alive(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Streams that are open now.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// How long no stream was open.
    pub(crate) fn idle_for(&self) -> Duration {
        match self.streams() {
            0 => self.idle_lock().elapsed(),
            _ => Duration::ZERO,
        }
    }

    fn idle_lock(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the peer refused this side's certificate, if it did. In TLS 1.3 that comes after the
    /// tunnel seemed to be open.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        let error = self.tls_error.get()?;
        Some(tls_failure(self.key.address, error, Side::Upstream))
    }

    fn lost(&self, error: &h2::Error) -> OpenError {
        if let Some(failure) = self.refusal() {
            return OpenError { failure, tunnel_dead: false };
        }
        // A stream's own reset is an answer; REFUSED_STREAM says that nobody looked at it.
        let tunnel_dead = !error.is_reset() || error.reason() == Some(Reason::REFUSED_STREAM);
        OpenError {
            failure: Failure::TunnelLost { to: self.key.address, detail: error.to_string().into() },
            tunnel_dead,
        }
    }
}

/// The right to one stream of a tunnel; keeps the tunnel open.
pub(crate) struct Permit {
    pub(crate) tunnel: Arc<Tunnel>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.tunnel.idle_lock() = Instant::now();
        self.tunnel.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Permit {
    /// Sends a CONNECT request and waits for the destination to say that it is connected.
    pub(crate) async fn open(
        self,
        request: Request<()>,
        timeout: Duration,
    ) -> Result<TunnelStream<Self>, OpenError> {
        let to = self.tunnel.key.address;
        match tokio::time::timeout(timeout, self.request(request)).await {
            Ok(result) => result,
            Err(_) => {
                Err(OpenError { failure: Failure::RequestTimeout { to }, tunnel_dead: false })
            }
        }
    }

    async fn request(self, request: Request<()>) -> Result<TunnelStream<Self>, OpenError> {
        let lost = |error| self.tunnel.lost(&error);
        let mut sender = self.tunnel.sender.clone().ready().await.map_err(lost)?;
        let (response, send) = sender.send_request(request, false).map_err(lost)?;
        let response = response.await.map_err(lost)?;
        match response.status() {
            StatusCode::OK => Ok(TunnelStream::new(send, response.into_body(), self)),
            status => {
                let reason = response.headers().get(headers::REASON);
                let reason = reason.and_then(|value| headers::parse_reason(value.as_bytes()));
                Err(OpenError {
                    failure: Failure::Refused {
                        status,
                        detail: reason.unwrap_or("no reason given").into(),
                    },
                    tunnel_dead: false,
                })
            }
        }
    }
}
