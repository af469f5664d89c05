//! TLS towards endpoints outside the mesh, where a rule asks for it. Endpoints in the mesh are reached
//! over its own wires, which no rule can switch off or replace.

use std::{net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use undermesh_identity::{Protocols, classify, explain};
use undermesh_model::{
    SpiffeId,
    traffic::{ClientTls, TlsMode},
};
use undermesh_snapshot::traffic::ClusterSpec;

use crate::{
    duplex::{Socket, TlsStream},
    error::{Failure, Side},
    identity,
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

/// What a connection is going to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    Http1,
    Http2,
    /// Whatever the client says.
    Anything,
}

impl Carries {
    /// What is offered (ALPN). With certificates of the mesh, as Istio's sidecars do it: `istio` tells a
    /// sidecar that its client is one, too. Without `istio-peer-exchange`, which would have it speak first.
    fn protocols(self, mode: TlsMode) -> Protocols {
        match (mode, self) {
            (TlsMode::IstioMutual, Self::Http1) => &[b"istio-http/1.1", b"istio", b"http/1.1"],
            (TlsMode::IstioMutual, Self::Http2) => &[b"istio-h2", b"istio", b"h2"],
            (TlsMode::IstioMutual, Self::Anything) => &[b"istio"],
            (_, Self::Http1) => &[b"http/1.1"],
            (_, Self::Http2) => &[b"h2"],
            (_, Self::Anything) => &[],
        }
    }
}

/// Shakes hands over a connection that was just made on behalf of `source`, or of the agent itself.
pub(crate) async fn secure(
    shared: &Shared,
    source: Option<&SpiffeId>,
    (tls, name): (&ClientTls, &str),
    carries: Carries,
    (socket, to): (Socket, SocketAddr),
) -> Result<TlsStream, Failure> {
    let config = config(shared, source, tls, carries, to).await?;
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

async fn config(
    shared: &Shared,
    source: Option<&SpiffeId>,
    tls: &ClientTls,
    carries: Carries,
    to: SocketAddr,
) -> Result<Arc<ClientConfig>, Failure> {
    let alpn = carries.protocols(tls.mode);
    match source.filter(|_| tls.mode == TlsMode::IstioMutual) {
        // Anybody in the mesh could say to be it.
        Some(_) if tls.subject_alt_names.is_empty() => {
            let detail = "nobody says who the endpoint is: write subjectAltNames in the DestinationRule \
                          or ServiceEntry, or the endpoint's serviceAccount";
            Err(unusable(to, detail.to_owned()))
        }
        Some(source) => {
            identity::outside_config(shared, source, &tls.subject_alt_names, alpn).await
        }
        None => {
            let config = shared.outside.client_config(tls, alpn);
            config.map_err(|error| unusable(to, error.to_string()))
        }
    }
}

/// A rule asks for TLS that cannot be had; plaintext instead would be worse than nothing.
fn unusable(to: SocketAddr, detail: String) -> Failure {
    Failure::Tls { peer: to, reason: "tls_rule", detail: detail.into(), side: Side::Local }
}
