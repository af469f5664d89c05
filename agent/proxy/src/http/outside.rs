//! TLS towards endpoints outside the mesh, where a rule asks for it. Endpoints in the mesh are reached
//! over its own wires, which no rule can switch off or replace.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use undermesh_identity::{classify, explain};
use undermesh_model::traffic::{ClientTls, TlsMode};
use undermesh_snapshot::traffic::ClusterSpec;

use crate::{
    duplex::{Socket, TlsStream},
    error::{Failure, Side},
    observed::tls_error,
    plan::Target,
    proxy::Shared,
};

/// The TLS that a rule wants for an endpoint.
pub(crate) fn wanted<'a>(spec: &'a ClusterSpec, target: &Target) -> Option<&'a ClientTls> {
    let tls = spec.settings.tls.as_ref().filter(|tls| tls.mode != TlsMode::Disable);
    tls.filter(|_| target.workload.is_none())
}

/// The name that a server is asked for by: the rule's, the cluster's, or, where that is a pattern, the
/// request's.
pub(crate) fn name<'a>(tls: &'a ClientTls, spec: &'a ClusterSpec, requested: &'a str) -> &'a str {
    let own = spec.key.host.as_str();
    let host = if own.starts_with('*') { requested } else { own };
    tls.sni.as_deref().filter(|name| !name.is_empty()).unwrap_or(host)
}

/// Shakes hands over a connection that was just made.
pub(crate) async fn secure(
    shared: &Shared,
    tls: &ClientTls,
    name: &str,
    alpn: &'static [u8],
    (socket, to): (Socket, SocketAddr),
) -> Result<TlsStream, Failure> {
    let config = shared.outside.client_config(tls, alpn);
    let config = config.map_err(|error| unusable(to, error.to_string()))?;
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| unusable(to, format!("{name:?} is no name of a server")))?;
    let handshake = TlsStream::connect(config, name, socket);
    let timeout = shared.config.handshake_timeout;
    match tokio::time::timeout(timeout, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Failure::Tls {
            peer: to,
            reason: tls_error(&error).map_or("tls_interrupted", classify),
            detail: tls_error(&error).map_or_else(|| error.to_string(), explain).into(),
            side: Side::Upstream,
        }),
        Err(_) => Err(Failure::HandshakeTimeout { peer: to, side: Side::Upstream }),
    }
}

/// A rule asks for TLS that cannot be had; plaintext instead would be worse than nothing.
fn unusable(to: SocketAddr, detail: String) -> Failure {
    Failure::Tls { peer: to, reason: "tls_rule", detail: detail.into(), side: Side::Local }
}
