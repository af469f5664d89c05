//! Making certificates. Profiles: RFC 5280; SPIFFE X.509-SVID, sections 2 to 4.

use std::{net::IpAddr, time::Duration};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber, SigningKey,
};
use time::OffsetDateTime;
use undermesh_model::SpiffeId;

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
    if options.intermediate_lifetime.is_zero() {
        return Err(AuthorityError::Setting(
            "the intermediate would never be valid; choose a longer --intermediate-lifetime"
                .to_owned(),
        ));
    }
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
    let not_after = end(now, options.root_lifetime)?;
    let (params, key) = ca_params(options, "root", now, not_after)?;
    CertifiedIssuer::self_signed(params, key).map_err(failed("root"))
}

/// Makes an intermediate, valid as long as `options` say but no longer than its root.
pub(super) fn intermediate<S: SigningKey>(
    root: &Issuer<'_, S>,
    root_not_after: OffsetDateTime,
    options: &CaOptions,
    now: OffsetDateTime,
) -> Result<Intermediate, AuthorityError> {
    let not_after = end(now, options.intermediate_lifetime)?.min(root_not_after);
    let (mut params, key) = ca_params(options, "intermediate", now, not_after)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = params.signed_by(&key, root).map_err(failed("intermediate"))?;
    Ok(Intermediate { key, pem: certificate.pem() })
}

fn ca_params(
    options: &CaOptions,
    role: &str,
    now: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<(CertificateParams, KeyPair), AuthorityError> {
    let key = KeyPair::generate().map_err(failed(role))?;
    let mut params = base_params(now, not_after);
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

/// A certificate for one identity and, of a server, for the names that it is dialled by.
pub(super) fn leaf<S: SigningKey>(
    id: &SpiffeId,
    names: &[String],
    issuer: &Issuer<'_, S>,
    key: &impl PublicKeyData,
    now: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<Certificate, AuthorityError> {
    let subject = id.to_string();
    let mut params = base_params(now, not_after);
    params.subject_alt_names = vec![uri(&subject, &subject)?];
    for name in names {
        let name = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.clone().try_into().map_err(failed(&subject))?),
        };
        params.subject_alt_names.push(name);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(key, issuer).map_err(failed(&subject))
}

/// When a lifetime that starts now is over. X.509 has four digits for the year.
pub(super) fn end(
    now: OffsetDateTime,
    lifetime: Duration,
) -> Result<OffsetDateTime, AuthorityError> {
    time::Duration::try_from(lifetime).ok().and_then(|it| now.checked_add(it)).ok_or_else(|| {
        AuthorityError::Setting(format!(
            "a lifetime of {} days ends after the year 9999; choose a shorter one",
            lifetime.as_secs() / (24 * 3600)
        ))
    })
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
