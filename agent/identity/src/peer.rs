//! Who a peer is, and why it was refused.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustls::{CertificateError, Error, OtherError, pki_types::CertificateDer};
use time::OffsetDateTime;
use undermesh_model::{IdentityError, SpiffeId, TrustDomain};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// Names of a certificate that are told, at most.
const MAX_NAMES: usize = 8;

/// Why a certificate does not prove an identity of this mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// There is no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the peer's certificate cannot be read: {0}")]
    Unreadable(String),
    /// SPIFFE X.509-SVID, section 2: exactly one URI SAN.
    #[error("the peer's certificate has {0} URI names instead of exactly one")]
    UriNames(usize),
    /// The URI is not an identity.
    #[error("the peer's certificate names no workload: {0}")]
    Identity(#[from] IdentityError),
    /// It belongs to another mesh.
    #[error("the peer is {id}, of another trust domain than {expected}")]
    TrustDomain {
        /// Who it is.
        id: SpiffeId,
        /// Our trust domain.
        expected: TrustDomain,
    },
    /// It is somebody else than was dialled.
    #[error("the peer is {found} instead of {expected}")]
    Unexpected {
        /// Who it is.
        found: SpiffeId,
        /// Who was dialled, comma-separated.
        expected: String,
    },
    /// A server outside the mesh has a certificate for other names than those that are asked for.
    #[error("the server's certificate is for {presented} instead of {wanted}")]
    WrongName {
        /// Its names, comma-separated.
        presented: String,
        /// Those of which it has to have one, comma-separated.
        wanted: String,
    },
    /// It has expired since the handshake that proved it (a resumed session).
    #[error("the peer's certificate has expired")]
    Expired,
}

impl PeerError {
    /// Stable code for logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "tls_no_certificate",
            Self::Unreadable(_) | Self::UriNames(_) | Self::Identity(_) => "tls_no_identity",
            Self::TrustDomain { .. } => "tls_wrong_trust_domain",
            Self::Unexpected { .. } => "tls_unexpected_identity",
            Self::WrongName { .. } => "tls_wrong_name",
            Self::Expired => "tls_expired_certificate",
        }
    }

    pub(crate) fn into_tls(self) -> Error {
        CertificateError::Other(OtherError(Arc::new(self))).into()
    }
}

/// The identity in a certificate, whatever mesh it belongs to.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Result<SpiffeId, PeerError> {
    let unreadable = |error: String| PeerError::Unreadable(error);
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| unreadable(error.to_string()))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| unreadable(error.to_string()))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => Ok(uri.parse()?),
        uris => Err(PeerError::UriNames(uris.len())),
    }
}

/// Whether a certificate has this very name, be it a host's (a wildcard too) or a URI.
pub(crate) fn has_name(certificate: &CertificateDer<'_>, wanted: &str) -> bool {
    let parsed = X509Certificate::from_der(certificate).ok();
    let extension = parsed.as_ref().and_then(|(_, one)| one.subject_alternative_name().ok()?);
    let names = extension.map(|one| one.value.general_names.as_slice()).unwrap_or_default();
    names.iter().any(|name| match name {
        GeneralName::DNSName(name) => name.eq_ignore_ascii_case(wanted),
        GeneralName::URI(uri) => *uri == wanted,
        _ => false,
    })
}

/// The names of a server's certificate, for people.
pub(crate) fn names_of(certificate: &CertificateDer<'_>) -> String {
    let parsed = X509Certificate::from_der(certificate).ok();
    let extension = parsed.as_ref().and_then(|(_, one)| one.subject_alternative_name().ok()?);
    let names = extension.map(|one| one.value.general_names.as_slice()).unwrap_or_default();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Ipv4Addr::new(a, b, c, d).to_string(),
            _ => <[u8; 16]>::try_from(*bytes)
                .map_or_else(|_| name.to_string(), |bytes| Ipv6Addr::from(bytes).to_string()),
        },
        other => other.to_string(),
    };
    let names: Vec<_> = names.iter().take(MAX_NAMES).map(text).collect();
    if names.is_empty() { "no name".to_owned() } else { names.join(", ") }
}

/// Who a peer is, from the certificates of a finished handshake. Validity is looked at again: a
/// resumed session presents the certificates of the handshake that it goes back to.
///
/// # Errors
/// Where they prove nothing (any more).
pub fn peer_identity(
    certificates: Option<&[CertificateDer<'_>]>,
    now: OffsetDateTime,
) -> Result<SpiffeId, PeerError> {
    let leaf = certificates.and_then(<[_]>::first).ok_or(PeerError::NoCertificate)?;
    let (_, parsed) = X509Certificate::from_der(leaf)
        .map_err(|error| PeerError::Unreadable(error.to_string()))?;
    if parsed.validity().not_after.to_datetime() < now {
        return Err(PeerError::Expired);
    }
    identity_of(leaf)
}

/// When the certificate of a finished handshake expires; `None` where there is none to be read.
pub fn peer_expiry(certificates: &[CertificateDer<'_>]) -> Option<OffsetDateTime> {
    let (_, parsed) = X509Certificate::from_der(certificates.first()?).ok()?;
    Some(parsed.validity().not_after.to_datetime())
}

/// A failed handshake in words.
pub fn explain(error: &Error) -> String {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return error.to_string();
    };
    other.0.downcast_ref::<PeerError>().map_or_else(|| error.to_string(), ToString::to_string)
}

/// A stable code for a failed handshake, for logs and metrics.
pub fn classify(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "tls_expired_certificate"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "tls_certificate_not_yet_valid"
            }
            CertificateError::UnknownIssuer => "tls_unknown_issuer",
            CertificateError::BadSignature => "tls_bad_signature",
            CertificateError::Revoked => "tls_revoked",
            CertificateError::UnknownRevocationStatus
            | CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => "tls_revocation_unknown",
            CertificateError::Other(other) => other
                .0
                .downcast_ref::<PeerError>()
                .map_or("tls_invalid_certificate", PeerError::reason),
            _ => "tls_invalid_certificate",
        },
        Error::InvalidCertRevocationList(_) => "tls_revocation_unknown",
        Error::NoCertificatesPresented => "tls_no_certificate",
        Error::AlertReceived(_) => "tls_refused_by_peer",
        Error::InvalidMessage(_) => "tls_not_tls",
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => "tls_incompatible",
        _ => "tls_failed",
    }
}
