//! Who is accepted as a host outside the mesh.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime},
    server::{ParsedCertificate, VerifierBuilderError},
};

use crate::peer::{PeerError, has_name, names_of};

/// A server with a certificate of a trusted root for one of some names.
#[derive(Debug)]
pub(crate) struct NamedServer {
    /// Looks at chains and at what was revoked, and then at the name that was asked for.
    chain: Arc<WebPkiServerVerifier>,
    /// DNS names, addresses and SPIFFE identities; empty for the name that was asked for.
    names: Vec<String>,
}

impl NamedServer {
    /// With any list of revoked certificates, the issuer of each certificate of a chain has to have one
    /// that has not expired, as OpenSSL and Envoy want it.
    ///
    /// # Errors
    /// Where there are no roots, or a list cannot be read.
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        names: Vec<String>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, Error> {
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .with_crls(revoked)
            .enforce_revocation_expiration()
            .build()
            .map_err(unusable)?;
        Ok(Self { chain, names })
    }

    fn is_one_of(&self, parsed: &ParsedCertificate<'_>, certificate: &CertificateDer<'_>) -> bool {
        self.names.iter().any(|name| {
            has_name(certificate, name)
                || ServerName::try_from(name.as_str())
                    .is_ok_and(|name| verify_server_name(parsed, &name).is_ok())
        })
    }
}

impl ServerCertVerifier for NamedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        // The name comes last: with another one, everything else is in order.
        let has_name = match verified {
            Ok(_) => true,
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => false,
            Err(error) => return Err(error),
        };
        let named = match self.names.as_slice() {
            [] => has_name,
            _ => self.is_one_of(&parsed, end_entity),
        };
        if !named {
            let wanted = match self.names.as_slice() {
                [] => server_name.to_str().into_owned(),
                names => names.join(", "),
            };
            return Err(PeerError::WrongName { presented: names_of(end_entity), wanted }.into_tls());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn unusable(error: VerifierBuilderError) -> Error {
    match error {
        VerifierBuilderError::InvalidCrl(error) => error.into(),
        other => Error::General(other.to_string()),
    }
}

/// Any server, as `insecureSkipVerify` asks for.
#[derive(Debug)]
pub(super) struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl AnyServer {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
