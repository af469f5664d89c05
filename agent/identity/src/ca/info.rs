//! What a CA directory holds, in words; never a key.

use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use time::format_description::well_known::Rfc3339;
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    time::ASN1Time,
};

/// What `undermesh ca show` prints. No keys.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaInfo {
    /// The directory.
    pub path: PathBuf,
    /// The issuing certificate.
    pub intermediate: CaCertificate,
    /// The trusted roots.
    pub roots: Vec<CaCertificate>,
    /// The root's key is here too.
    pub has_root_key: bool,
}

/// One CA certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaCertificate {
    /// Subject.
    pub subject: String,
    /// Serial number in hexadecimal digits.
    pub serial: String,
    /// Start of validity, RFC 3339.
    pub not_before: String,
    /// End of validity, RFC 3339.
    pub not_after: String,
}

impl CaCertificate {
    /// Reads a certificate; the error is the parser's.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        let text = |at: ASN1Time| at.to_datetime().format(&Rfc3339).unwrap_or_default();
        Ok(Self {
            subject: parsed.subject().to_string(),
            serial: parsed.raw_serial_as_string().replace(':', ""),
            not_before: text(validity.not_before),
            not_after: text(validity.not_after),
        })
    }
}
