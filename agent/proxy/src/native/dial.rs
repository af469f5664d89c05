//! Opens connections of the native wire: TCP out of the pod, TLS with its identity.

use std::{io, net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, HandshakeKind, pki_types::ServerName};
use time::OffsetDateTime;
use tokio_rustls::{TlsConnector, TlsStream};
use undermesh_identity::{NATIVE_ALPN, peer_expiry};
use undermesh_model::Wire;

use super::{connection::Connection, io::Io};
use crate::{
    connect::connect,
    error::{Failure, Side},
    follow::note,
    identity,
    metrics::{Direction, GaugeGuard, Handshake, Role},
    observed::tls_error,
    terminate::tls_failure,
    tunnel::{Dialer, TunnelKey},
};

/// Reasons of failed handshakes that say no more than that nobody speaks the native wire there: no
/// TLS, none of ours, or that of an application. All others are about an identity.
const NOT_SPOKEN: [&str; 6] = [
    "tls_not_tls",
    "tls_incompatible",
    "tls_refused_by_peer",
    "tls_failed",
    "tls_unknown_issuer",
    "handshake_timeout",
];

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The native wire is not spoken there; another may be.
    NotSpoken(Failure),
    /// Another wire would fail as well, or must.
    Failed(Failure),
}

impl DialError {
    /// What happened.
    pub(crate) fn failure(&self) -> &Failure {
        match self {
            Self::NotSpoken(failure) | Self::Failed(failure) => failure,
        }
    }
}

/// An open connection, and for how long it may be used.
pub(crate) struct Dialled {
    pub(crate) connection: Connection,
    pub(crate) remains: Remains,
}

/// What belongs to a connection while a session has it.
pub(crate) struct Remains {
    pub(crate) proof: Proof,
    _gauge: GaugeGuard,
}

impl Dialled {
    /// Takes the connection out, for a session.
    pub(crate) fn split(self) -> (Connection, Remains) {
        (self.connection, self.remains)
    }
}

impl Remains {
    /// Puts the connection back, after it.
    pub(crate) fn with(self, connection: Connection) -> Dialled {
        Dialled { connection, remains: self }
    }
}

/// What a connection's handshake was made with.
pub(crate) struct Proof {
    config: Arc<ClientConfig>,
    /// The store's generation at which `config` was last found current.
    checked: u64,
    /// When the peer's certificate expires.
    peer_until: OffsetDateTime,
}

impl Proof {
    /// False once this side's certificate or the trust bundle was replaced, or the peer's
    /// certificate has expired.
    pub(crate) fn holds(&mut self, dialer: &Dialer, key: &TunnelKey) -> bool {
        let identities = &dialer.shared.identities;
        if self.peer_until < identities.now() {
            return false;
        }
        let generation = identities.generation();
        if self.checked == generation {
            return true;
        }
        let (source, wire) = (&dialer.source, Wire::Native);
        let current = identity::is_current(identities, source, &key.identity, wire, &self.config);
        if current {
            self.checked = generation;
        }
        current
    }
}

/// Connects and shakes hands.
pub(crate) async fn dial(dialer: &Dialer, key: &TunnelKey) -> Result<Dialled, DialError> {
    let shared = &dialer.shared;
    // Before the configuration is fetched: a change in between is then looked at once more.
    let checked = shared.identities.generation();
    let config = identity::client_config(shared, &dialer.source, &key.identity, Wire::Native).await;
    let config = config.map_err(DialError::Failed)?;
    let mut handshake = shared.metrics.tls.handshake(Role::Client);
    let attempt = shake_hands(dialer, key, Arc::clone(&config), &mut handshake);
    let result = tokio::time::timeout(shared.config.native.handshake_timeout, attempt)
        .await
        .unwrap_or_else(|_| {
            let (peer, side) = (key.address, Side::Upstream);
            Err(DialError::NotSpoken(Failure::HandshakeTimeout { peer, side }))
        });
    let outcome = match &result {
        Ok((_, _, HandshakeKind::Resumed)) => "resumed",
        Ok(_) => "full",
        Err(error) => error.failure().reason(),
    };
    handshake.failed(outcome);
    shared.metrics.native.record_handshake(Direction::Outbound, outcome);
    note("handshake", || format!("{outcome}, with {} at {}", key.identity, key.address));
    let (connection, peer_until, _) = result?;
    let _gauge = shared.metrics.native.connection(Direction::Outbound);
    let proof = Proof { config, checked, peer_until };
    Ok(Dialled { connection, remains: Remains { proof, _gauge } })
}

async fn shake_hands(
    dialer: &Dialer,
    key: &TunnelKey,
    config: Arc<ClientConfig>,
    handshake: &mut Handshake<'_>,
) -> Result<(Connection, OffsetDateTime, HandshakeKind), DialError> {
    let (shared, address) = (&dialer.shared, key.address);
    let tcp = connect(&*dialer.sockets, None, address, &shared.config).await;
    let tcp = Io::new(tcp.map_err(DialError::NotSpoken)?);
    let name = ServerName::IpAddress(address.ip().into());
    handshake.begin();
    let tls = TlsConnector::from(config).connect(name, tcp).await;
    let tls = tls.map_err(|error| refused(address, &error))?;
    let session = tls.get_ref().1;
    // A resumed session shows the certificates of the handshake that it goes back to.
    let certificates = session.peer_certificates();
    identity::of_server(shared, certificates, key).map_err(DialError::Failed)?;
    let until = certificates.and_then(peer_expiry).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let kind = session.handshake_kind().unwrap_or(HandshakeKind::Full);
    if session.alpn_protocol() != Some(NATIVE_ALPN) {
        let error = rustls::Error::NoApplicationProtocol;
        return Err(DialError::NotSpoken(tls_failure(address, &error, Side::Upstream)));
    }
    handshake.done(kind);
    Ok((Connection::new(TlsStream::from(tls)), until, kind))
}

/// A handshake that was not completed.
fn refused(peer: SocketAddr, error: &io::Error) -> DialError {
    let Some(error) = tls_error(error) else {
        return DialError::NotSpoken(Failure::Tls {
            peer,
            reason: "tls_interrupted",
            detail: error.to_string().into(),
            side: Side::Upstream,
        });
    };
    let failure = tls_failure(peer, error, Side::Upstream);
    if NOT_SPOKEN.contains(&failure.reason()) {
        DialError::NotSpoken(failure)
    } else {
        DialError::Failed(failure)
    }
}
