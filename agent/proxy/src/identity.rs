//! What the proxy asks of the identity store, in the proxy's own errors.

use std::{net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};
use undermesh_identity::{IdentityStore, Protocols, peer_identity};
use undermesh_model::{SpiffeId, Wire};

use crate::{
    error::{Failure, Side},
    proxy::Shared,
    tunnel::TunnelKey,
};

/// The configuration for tunnels from `source` to `destination`; waits for the certificate of a
/// pod that has just been enrolled.
pub(crate) async fn client_config(
    shared: &Shared,
    source: &SpiffeId,
    destination: &SpiffeId,
    wire: Wire,
) -> Result<Arc<ClientConfig>, Failure> {
    ready(shared, source).await?;
    let expected = std::slice::from_ref(destination);
    let config = shared.identities.client_config(source, expected, wire);
    config.map_err(|error| no_certificate(source, error))
}

/// The configuration for connections from `source` to servers outside the mesh's wires that have a
/// certificate of the mesh for one of `names`.
pub(crate) async fn outside_config(
    shared: &Shared,
    source: &SpiffeId,
    names: &[String],
    alpn: Protocols,
) -> Result<Arc<ClientConfig>, Failure> {
    ready(shared, source).await?;
    let config = shared.identities.outside_config(source, names, alpn);
    config.map_err(|error| no_certificate(source, error))
}

/// The configuration for tunnels that end in `workload`.
pub(crate) async fn server_config(
    shared: &Shared,
    workload: &SpiffeId,
    wire: Wire,
) -> Result<Arc<ServerConfig>, Failure> {
    ready(shared, workload).await?;
    let config = shared.identities.server_config(workload, wire);
    config.map_err(|error| no_certificate(workload, error))
}

/// True while tunnels from `source` to `destination` would still be made with `config`: neither
/// the certificate nor the trust bundle was replaced since.
pub(crate) fn is_current(
    identities: &IdentityStore,
    source: &SpiffeId,
    destination: &SpiffeId,
    wire: Wire,
    config: &Arc<ClientConfig>,
) -> bool {
    identities
        .client_config(source, std::slice::from_ref(destination), wire)
        .is_ok_and(|current| Arc::ptr_eq(&current, config))
}

async fn ready(shared: &Shared, identity: &SpiffeId) -> Result<(), Failure> {
    let ready = shared.identities.ready(identity);
    tokio::time::timeout(shared.config.identity_timeout, ready)
        .await
        .map_err(|_| no_certificate(identity, "none was issued in time"))
}

fn no_certificate(identity: &SpiffeId, detail: impl ToString) -> Failure {
    Failure::NoCertificate { identity: identity.to_string(), detail: detail.to_string().into() }
}

/// Makes sure that the server of a finished handshake is who was dialled. TLS has done so for a full
/// handshake; a resumed one shows the certificates of an earlier one, which may have expired since.
pub(crate) fn of_server(
    shared: &Shared,
    certificates: Option<&[CertificateDer<'_>]>,
    key: &TunnelKey,
) -> Result<(), Failure> {
    let failure = |reason, detail: Arc<str>| Failure::Tls {
        peer: key.address,
        reason,
        detail,
        side: Side::Upstream,
    };
    let found = peer_identity(certificates, shared.identities.now())
        .map_err(|error| failure(error.reason(), error.to_string().into()))?;
    if found == key.identity {
        return Ok(());
    }
    let detail = format!("the peer is {found} instead of {}", key.identity);
    Err(failure("tls_unexpected_identity", detail.into()))
}

/// True while connections that end in `workload` would still be made with `config`.
pub(crate) fn is_current_server(
    identities: &IdentityStore,
    workload: &SpiffeId,
    wire: Wire,
    config: &Arc<ServerConfig>,
) -> bool {
    identities.server_config(workload, wire).is_ok_and(|current| Arc::ptr_eq(&current, config))
}

/// Who a peer is. TLS has verified its certificates; they must still be valid, and name one
/// identity.
pub(crate) fn of_peer(
    shared: &Shared,
    certificates: Option<&[CertificateDer<'_>]>,
    peer: SocketAddr,
) -> Result<SpiffeId, Failure> {
    peer_identity(certificates, shared.identities.now()).map_err(|error| Failure::Tls {
        peer,
        reason: error.reason(),
        detail: error.to_string().into(),
        side: Side::Downstream,
    })
}
