//! Step *terminate*: the destination's end of a tunnel's TLS and HTTP/2 handshakes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::server;
use rustls::{HandshakeKind, ServerConfig};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use undermesh_identity::peer_expiry;
use undermesh_model::Wire;

use crate::{
    config::Http2Config,
    error::{Failure, Side},
    identity,
    metrics::{Direction, Handshake, Role},
    observed::tls_error,
    pod::Pod,
    record::Caller,
};

/// How long a refused peer may take to read why.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it sent meanwhile is read and thrown away.
const LINGER_BYTES: usize = 64 << 10;

/// The HTTP/2 connection under a tunnel.
pub(crate) type Connection = server::Connection<TlsStream<TcpStream>, Bytes>;

/// Shakes hands with a peer under the pod's identity, within the configured time.
pub(crate) async fn terminate(
    pod: &Pod,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(Connection, Caller), Failure> {
    let metrics = &pod.shared.metrics;
    let mut handshake = metrics.tls.handshake(Role::Server);
    let timeout = pod.shared.config.handshake_timeout;
    let result = tokio::time::timeout(timeout, shake_hands(pod, stream, peer, &mut handshake))
        .await
        .unwrap_or(Err(Failure::HandshakeTimeout { peer, side: Side::Downstream }));
    let outcome = result.as_ref().err().map_or("ok", Failure::reason);
    handshake.failed(outcome);
    metrics.record_handshake(Direction::Inbound, outcome);
    result
}

async fn shake_hands(
    pod: &Pod,
    stream: TcpStream,
    peer: SocketAddr,
    handshake: &mut Handshake<'_>,
) -> Result<(Connection, Caller), Failure> {
    let config = identity::server_config(&pod.shared, &pod.workload.identity, Wire::Hbone).await?;
    handshake.begin();
    let (tls, caller) = authenticate(pod, config, stream, peer).await?;
    handshake.done(tls.get_ref().1.handshake_kind().unwrap_or(HandshakeKind::Full));
    let connection = builder(&pod.shared.config.http2).handshake(tls).await;
    let connection = connection.map_err(|error| Failure::Tls {
        peer,
        reason: "http2_handshake",
        detail: error.to_string().into(),
        side: Side::Downstream,
    })?;
    Ok((connection, caller))
}

/// The server's side of a TLS handshake, and who the peer has proven to be.
pub(crate) async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    pod: &Pod,
    config: Arc<ServerConfig>,
    stream: S,
    peer: SocketAddr,
) -> Result<(TlsStream<S>, Caller), Failure> {
    let handshake = TlsAcceptor::from(config).accept(stream).into_fallible();
    let tls = match handshake.await {
        Ok(tls) => tls,
        Err((error, stream)) => {
            linger(stream).await;
            return Err(handshake_failure(peer, &error));
        }
    };
    let certificates = tls.get_ref().1.peer_certificates();
    let caller = Caller {
        address: peer,
        identity: identity::of_peer(&pod.shared, certificates, peer)?,
        until: certificates.and_then(peer_expiry).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    };
    Ok((tls, caller))
}

fn builder(http2: &Http2Config) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(http2.stream_window)
        .initial_connection_window_size(http2.connection_window)
        .max_frame_size(http2.frame_size)
        .max_send_buffer_size(http2.send_buffer)
        .max_header_list_size(http2.max_header_list)
        .max_concurrent_streams(http2.max_inbound_streams)
        .max_concurrent_reset_streams(http2.max_reset_streams)
        .max_pending_accept_reset_streams(http2.max_reset_streams)
        .max_local_error_reset_streams(Some(http2.max_reset_streams));
    builder
}

fn handshake_failure(peer: SocketAddr, error: &io::Error) -> Failure {
    match tls_error(error) {
        Some(error) => tls_failure(peer, error, Side::Downstream),
        None => Failure::Tls {
            peer,
            reason: "tls_interrupted",
            detail: error.to_string().into(),
            side: Side::Downstream,
        },
    }
}

/// A failed TLS handshake, with the reason that the identity crate gives it.
pub(crate) fn tls_failure(peer: SocketAddr, error: &rustls::Error, side: Side) -> Failure {
    Failure::Tls {
        peer,
        reason: undermesh_identity::classify(error),
        detail: error.to_string().into(),
        side,
    }
}

/// Closes a refused connection so that the alert arrives. The peer has sent more than was read
/// (in TLS 1.3 its handshake is over); closing now would reset the connection, and the reset may
/// overtake the alert that says why.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scratch).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        io::Result::Ok(())
    };
    // Whatever goes wrong here, the connection is refused already.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
