//! Making certificates. Profiles: RFC 5280; SPIFFE X.509-SVID, sections 2 to 4.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
    SigningKey,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use undermesh_model::SpiffeId;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::CaOptions;
use crate::AuthorityError;

/// Certificates are valid from a little before they are made, because clocks differ.
const BACKDATE: Duration = Duration::from_secs(60);

/// An intermediate's certificate and key.
pub(super) struct Intermediate {
    pub(super) key: KeyPair,
    pub(super) pem: String,
}

pub(super) fn check_lifetimes(options: &CaOptions) -> Result<(), AuthorityError> {
    if options.intermediate_lifetime > options.root_lifetime {
        return Err(AuthorityError::Setting(
            "the intermediate would outlive its root; choose a shorter --intermediate-lifetime"
                .to_owned(),
        ));
    }
    Ok(())
}

pub(super) fn root(
    options: &CaOptions,
    now: OffsetDateTime,
) -> Result<CertifiedIssuer<'static, KeyPair>, AuthorityError> {
    let (params, key) = ca_params(options, "root", options.root_lifetime, now)?;
    CertifiedIssuer::self_signed(params, key).map_err(failed("root"))
}

pub(super) fn intermediate<S: SigningKey>(
    root: &Issuer<'_, S>,
    options: &CaOptions,
    now: OffsetDateTime,
) -> Result<Intermediate, AuthorityError> {
    let (mut params, key) = ca_params(options, "intermediate", options.intermediate_lifetime, now)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = params.signed_by(&key, root).map_err(failed("intermediate"))?;
    Ok(Intermediate { key, pem: certificate.pem() })
}

fn ca_params(
    options: &CaOptions,
    role: &str,
    lifetime: Duration,
    now: OffsetDateTime,
) -> Result<(CertificateParams, KeyPair), AuthorityError> {
    let key = KeyPair::generate().map_err(failed(role))?;
    let mut params = base_params(now, now + lifetime);
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, options.trust_domain.as_str());
    // Roots must be told apart while they overlap.
    name.push(DnType::CommonName, format!("Undermesh {role} {}", hex(&random_serial()[..4])));
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(&format!("spiffe://{}", options.trust_domain), role)?];
    Ok((params, key))
}

pub(super) fn leaf<S: SigningKey>(
    id: &SpiffeId,
    issuer: &Issuer<'_, S>,
    key: &KeyPair,
    now: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<CertificateDer<'static>, AuthorityError> {
    let subject = id.to_string();
    let mut params = base_params(now, not_after);
    params.subject_alt_names = vec![uri(&subject, &subject)?];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(key, issuer).map_err(failed(&subject))?;
    Ok(certificate.der().clone())
}

fn base_params(now: OffsetDateTime, not_after: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - BACKDATE;
    params.not_after = not_after;
    params.serial_number = Some(SerialNumber::from_slice(&random_serial()));
    params.use_authority_key_identifier_extension = true;
    params
}

/// RFC 5280, section 4.1.2.2: positive, unpredictable, at most 20 bytes.
fn random_serial() -> [u8; 16] {
    let mut serial = [0; 16];
    // The generator fails only where the system has no entropy at all; the key that is made
    // beside it would have failed first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut serial);
    serial[0] = (serial[0] & 0x7f) | 0x40;
    serial
}

fn uri(text: &str, subject: &str) -> Result<SanType, AuthorityError> {
    text.to_owned().try_into().map(SanType::URI).map_err(failed(subject))
}

fn failed(subject: &str) -> impl FnOnce(rcgen::Error) -> AuthorityError {
    let subject = subject.to_owned();
    move |error| AuthorityError::Issue { subject, reason: error.to_string() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the certificate holds the key's public half.
pub(super) fn belongs_to(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| {
        parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
    })
}

/// Whether `issuer` signed `certificate`, by name and by key identifier.
pub(super) fn is_issued_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) =
        (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer))
    else {
        return false;
    };
    certificate.issuer() == issuer.subject()
}

pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Option<OffsetDateTime> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(parsed.validity().not_after.to_datetime())
}
