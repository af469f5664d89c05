//! What the proxy asks of the identity store, in the proxy's own errors.

use std::{net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, ServerConfig, pki_types::CertificateDer};
use undermesh_identity::{IdentityStore, peer_identity};
use undermesh_model::SpiffeId;

use crate::{
    error::{Failure, Side},
    proxy::Shared,
};

/// The configuration for tunnels from `source` to `destination`; waits for the certificate of a
/// pod that has just been enrolled.
pub(crate) async fn client_config(
    shared: &Shared,
    source: &SpiffeId,
    destination: &SpiffeId,
) -> Result<Arc<ClientConfig>, Failure> {
    ready(shared, source).await?;
    let expected = std::slice::from_ref(destination);
    let config = shared.identities.client_config(source, expected);
    config.map_err(|error| no_certificate(source, error))
}

/// The configuration for tunnels that end in `workload`.
pub(crate) async fn server_config(
    shared: &Shared,
    workload: &SpiffeId,
) -> Result<Arc<ServerConfig>, Failure> {
    ready(shared, workload).await?;
    let config = shared.identities.server_config(workload);
    config.map_err(|error| no_certificate(workload, error))
}

/// True while tunnels from `source` to `destination` would still be made with `config`: neither
/// the certificate nor the trust bundle was replaced since.
pub(crate) fn is_current(
    identities: &IdentityStore,
    source: &SpiffeId,
    destination: &SpiffeId,
    config: &Arc<ClientConfig>,
) -> bool {
    identities
        .client_config(source, std::slice::from_ref(destination))
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
