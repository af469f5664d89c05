//! Opens tunnels: TCP out of the pod, TLS with its identity, HTTP/2.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use h2::client;
use rustls::{ClientConfig, HandshakeKind, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use undermesh_model::{SpiffeId, Wire};

use super::{Credentials, Tunnel, TunnelKey};
use crate::{
    connect::connect,
    error::{Failure, Side},
    identity,
    metrics::{Direction, Handshake, Role},
    observed::{Observed, tls_error},
    pod::PodSockets,
    proxy::Shared,
    terminate::tls_failure,
};

/// The HTTP/2 connection under a tunnel.
pub(crate) type Connection = client::Connection<Observed<TlsStream<TcpStream>>, Bytes>;

/// Opens tunnels and native connections for one pod.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) shared: Arc<Shared>,
    /// Who the pod is.
    pub(crate) source: SpiffeId,
    pub(crate) sockets: Arc<dyn PodSockets>,
    /// No new connections.
    pub(crate) stop: CancellationToken,
    /// Ends every tunnel of the pod.
    pub(crate) kill: CancellationToken,
    /// What a pod that is no longer served waits for.
    pub(crate) tasks: TaskTracker,
}

impl Dialer {
    /// A dialer for a pod that is served from now on.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        source: &SpiffeId,
        sockets: Arc<dyn PodSockets>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            source: source.clone(),
            sockets,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Connects and shakes hands; whoever calls drives the connection.
    pub(crate) async fn dial(&self, key: &TunnelKey) -> Result<(Arc<Tunnel>, Connection), Failure> {
        let metrics = &self.shared.metrics;
        let mut handshake = metrics.tls.handshake(Role::Client);
        let result = self.try_dial(key, &mut handshake).await;
        let outcome = match &result {
            Ok(_) => "ok",
            Err(failure) => failure.reason(),
        };
        handshake.failed(outcome);
        metrics.record_handshake(Direction::Outbound, outcome);
        result
    }

    async fn try_dial(
        &self,
        key: &TunnelKey,
        handshake: &mut Handshake<'_>,
    ) -> Result<(Arc<Tunnel>, Connection), Failure> {
        let config = &self.shared.config;
        let address = key.address;
        let tcp = connect(&*self.sockets, None, address, config).await?;
        tokio::time::timeout(config.handshake_timeout, self.shake_hands(key, tcp, handshake))
            .await
            .unwrap_or(Err(Failure::HandshakeTimeout { peer: address, side: Side::Upstream }))
    }

    async fn shake_hands(
        &self,
        key: &TunnelKey,
        tcp: TcpStream,
        handshake: &mut Handshake<'_>,
    ) -> Result<(Arc<Tunnel>, Connection), Failure> {
        let identities = &self.shared.identities;
        // Before the configuration is fetched: a change in between is then looked at once more.
        let checked = AtomicU64::new(identities.generation());
        let config =
            identity::client_config(&self.shared, &self.source, &key.identity, Wire::Hbone).await?;
        handshake.begin();
        let tls = start_tls(key, tcp, Arc::clone(&config)).await?;
        handshake.done(tls.get_ref().1.handshake_kind().unwrap_or(HandshakeKind::Full));
        let (tls, tls_error) = Observed::new(tls);
        let (sender, connection) = self.start_http2(key.address, tls).await?;
        let tunnel = Tunnel {
            id: next_id(),
            key: key.clone(),
            opened: Instant::now(),
            sender,
            streams: AtomicUsize::new(0),
            max_streams: self.shared.config.pool.max_streams,
            idle_since: Mutex::new(Instant::now()),
            credentials: Credentials {
                source: self.source.clone(),
                config,
                identities: Arc::clone(identities),
                checked,
            },
            tls_error,
        };
        Ok((Arc::new(tunnel), connection))
    }
}

impl Dialer {
    async fn start_http2(
        &self,
        to: SocketAddr,
        tls: Observed<TlsStream<TcpStream>>,
    ) -> Result<(client::SendRequest<Bytes>, Connection), Failure> {
        let http2 = &self.shared.config.http2;
        client::Builder::new()
            .initial_window_size(http2.stream_window)
            .initial_connection_window_size(http2.connection_window)
            .max_frame_size(http2.frame_size)
            .max_send_buffer_size(http2.send_buffer)
            .max_header_list_size(http2.max_header_list)
            .initial_max_send_streams(self.shared.config.pool.max_streams)
            .enable_push(false)
            .handshake(tls)
            .await
            .map_err(|error| Failure::TunnelLost { to, detail: error.to_string().into() })
    }
}

async fn start_tls(
    key: &TunnelKey,
    tcp: TcpStream,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, Failure> {
    let name = ServerName::IpAddress(key.address.ip().into());
    let tls = TlsConnector::from(config).connect(name, tcp);
    tls.await.map_err(|error| match tls_error(&error) {
        Some(error) => tls_failure(key.address, error, Side::Upstream),
        None => Failure::TunnelLost { to: key.address, detail: error.to_string().into() },
    })
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
