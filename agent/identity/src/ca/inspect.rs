//! Questions about CA certificates that are on disk already.

use rcgen::{KeyPair, PublicKeyData};
use rustls::{crypto::aws_lc_rs, pki_types::CertificateDer};
use time::OffsetDateTime;
use undermesh_model::TrustDomain;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// Whether the certificate holds the key's public half.
pub(super) fn belongs_to(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        parsed.public_key().subject_public_key.data.as_ref() == key.der_bytes()
    })
}

/// Whether `issuer` signed `certificate`: by name, and by the signature itself.
pub(super) fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) =
        (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer))
    else {
        return false;
    };
    let key = issuer.public_key().subject_public_key.data.as_ref();
    let signed = certificate.tbs_certificate.as_ref();
    let signature = certificate.signature_value.data.as_ref();
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    certificate.issuer() == issuer.subject()
        && algorithms
            .iter()
            .any(|algorithm| algorithm.verify_signature(key, signed, signature).is_ok())
}

/// End of a certificate's validity.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<OffsetDateTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.to_datetime())
}

/// The trust domain that a signing certificate names (SPIFFE X.509-SVID, section 3.2: it may), or
/// none if it was made by other means.
pub(super) fn trust_domain(certificate: &CertificateDer<'_>) -> Option<TrustDomain> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://")?.parse().ok(),
        _ => None,
    })
}
