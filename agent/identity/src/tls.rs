//! TLS configurations: version 1.3 only, mutual, one cryptography provider.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, Error, RootCertStore, ServerConfig, SignatureScheme,
    WantsVerifier,
    client::{ResolvesClientCert, Resumption, WantsClientCert},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache},
    sign::CertifiedKey,
    version::TLS13,
};
use undermesh_model::{SpiffeId, TrustDomain, Wire};

use crate::{
    Clock, Protocols, Svid,
    clock::RustlsClock,
    outside::NamedServer,
    tickets::Tickets,
    verifier::{ClientVerifier, ServerVerifier},
};

/// HTTP/2, which HBONE is spoken in.
const HBONE_ALPN: &[u8] = b"h2";
/// The native wire.
pub const NATIVE_ALPN: &[u8] = b"undermesh/1";
/// Sessions that a server configuration remembers; it serves one identity.
const SERVER_SESSIONS: usize = 2048;

/// Tickets that a server gives with every handshake. One is used up by the next, and connections that
/// are made at the same time, or in advance, need theirs before those have brought new ones.
const TICKETS: usize = 4;

/// The protocol (ALPN) that a wire is spoken in. A configuration has one, so that no peer can be
/// taken for a speaker of the other, nor a session of one wire be resumed on the other.
const fn alpn(wire: Wire) -> &'static [u8] {
    match wire {
        Wire::Native => NATIVE_ALPN,
        Wire::Hbone => HBONE_ALPN,
    }
}

/// The cryptography provider: the two suites that Istio's ztunnel offers, AES-256 first, and the
/// hybrid key exchange before the classical ones, so that what is recorded today stays closed to
/// a quantum computer. Peers without it take the X25519 share that the same hello carries; it
/// costs them no round trip. The list is explicit because the provider's default depends on a
/// feature that any crate of the build could switch.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    Arc::new(provider)
}

/// What both kinds of configuration are made from.
#[derive(Debug)]
pub(crate) struct Trust {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Trust {
    /// A client that shows `svid` and accepts only `expected`.
    pub(crate) fn client(
        &self,
        svid: &Svid,
        expected: &[SpiffeId],
        wire: Wire,
    ) -> Result<ClientConfig, Error> {
        let verifier = ServerVerifier::new(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
            self.trust_domain.clone(),
            expected,
        );
        let time = Arc::new(RustlsClock(Arc::clone(&self.clock)));
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Always(svid.certified_key())));
        config.alpn_protocols = vec![alpn(wire).to_vec()];
        // Sessions live and die with this configuration, which serves one pair of identities and
        // one generation of certificates.
        config.resumption = Resumption::store(Arc::new(Tickets::default()));
        config.enable_sni = false;
        Ok(config)
    }

    /// A client that shows `svid` to a server that is spoken to as if it were outside the mesh, and accepts
    /// it with a certificate of the mesh for one of `names`.
    pub(crate) fn outside(
        &self,
        svid: &Svid,
        names: &[String],
        alpn: Protocols,
    ) -> Result<ClientConfig, Error> {
        let (roots, provider) = (Arc::clone(&self.roots), Arc::clone(&self.provider));
        let verifier = NamedServer::new(roots, provider, names.to_vec(), Vec::new())?;
        let time = Arc::new(RustlsClock(Arc::clone(&self.clock)));
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Always(svid.certified_key())));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed session is not verified again.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// A server that shows `svid` and demands a certificate of the trust domain.
    pub(crate) fn server(&self, svid: &Svid, wire: Wire) -> Result<ServerConfig, Error> {
        let verifier = ClientVerifier::new(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
            self.trust_domain.clone(),
        )?;
        let time = Arc::new(RustlsClock(Arc::clone(&self.clock)));
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Always(svid.certified_key())));
        config.alpn_protocols = vec![alpn(wire).to_vec()];
        config.send_tls13_tickets = TICKETS;
        config.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS);
        // A resumed session is not verified again. It cannot outlive this configuration, which is
        // replaced with every change of the bundle; that the client's certificate has not expired
        // meanwhile is looked at after the handshake (`peer_identity`).
        Ok(config)
    }
}

impl Trust {
    /// A server whose clients may show a certificate of the trust domain, and may show none.
    pub(crate) fn optional(&self, key: Arc<CertifiedKey>) -> Result<ServerConfig, Error> {
        let verifier = ClientVerifier::optional(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
            self.trust_domain.clone(),
        )?;
        let config = self.server_builder()?.with_client_cert_verifier(Arc::new(verifier));
        Ok(config.with_cert_resolver(Arc::new(Always(key))))
    }

    /// A server that asks its clients for no certificate.
    pub(crate) fn anonymous(&self, key: Arc<CertifiedKey>) -> Result<ServerConfig, Error> {
        let config = self.server_builder()?.with_no_client_auth();
        Ok(config.with_cert_resolver(Arc::new(Always(key))))
    }

    fn server_builder(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, Error> {
        let time = Arc::new(RustlsClock(Arc::clone(&self.clock)));
        ServerConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&TLS13])
    }

    /// A client without a certificate, of a server that is dialled by a name.
    pub(crate) fn named(&self) -> Result<ClientConfig, Error> {
        let mut config = self.named_builder()?.with_no_client_auth();
        config.alpn_protocols = vec![HBONE_ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// The same with a certificate.
    pub(crate) fn named_as(&self, svid: &Svid) -> Result<ClientConfig, Error> {
        let shown = Arc::new(Always(svid.certified_key()));
        let mut config = self.named_builder()?.with_client_cert_resolver(shown);
        config.alpn_protocols = vec![HBONE_ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn named_builder(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
        let (roots, provider) = (Arc::clone(&self.roots), Arc::clone(&self.provider));
        let verifier = NamedServer::new(roots, provider, Vec::new(), Vec::new())?;
        let time = Arc::new(RustlsClock(Arc::clone(&self.clock)));
        Ok(ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier)))
    }
}

/// Shows the same certificate to everybody.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
