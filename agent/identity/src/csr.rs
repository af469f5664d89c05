//! Requests for certificates (PKCS #10, RFC 2986), as strangers send them. All that is taken from one is
//! the key: whom the certificate will be for is said, and checked, elsewhere.

use rcgen::{PublicKeyData, SubjectPublicKeyInfo};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest, prelude::FromDer, public_key::PublicKey,
};

/// Longest request in PEM. One with an RSA key of 8192 bits has about 3 KiB.
pub(crate) const MAX_PEM: usize = 16 << 10;
/// Sizes of RSA keys, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a request is not acted upon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is too long to be looked at.
    #[error("the request has {0} bytes, and {MAX_PEM} are the most that are read")]
    TooLong(usize),
    /// It is no PEM.
    #[error("the request is not a CERTIFICATE REQUEST in PEM: {0}")]
    Pem(String),
    /// Several in one.
    #[error("there are {0} requests instead of one")]
    Several(usize),
    /// It is no PKCS #10.
    #[error("the request cannot be read: {0}")]
    Der(String),
    /// Whoever sends it does not have the key.
    #[error("the request is not signed with the key that it names")]
    Signature,
    /// No key that is vouched for.
    #[error(
        "the key is {0}; ECDSA with P-256 or P-384, Ed25519 and RSA of 2048 to 4096 bits are taken"
    )]
    Key(String),
}

/// A request whose sender has the key.
#[derive(Debug)]
pub struct CertificateRequest {
    key: SubjectPublicKeyInfo,
}

impl CertificateRequest {
    /// Reads a request and checks its signature.
    ///
    /// # Errors
    /// Where it is none, is not signed with its own key, or that key is too weak or of an unknown kind.
    pub fn parse(pem: &str) -> Result<Self, RequestError> {
        if pem.len() > MAX_PEM {
            return Err(RequestError::TooLong(pem.len()));
        }
        let found: Result<Vec<_>, _> =
            CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes()).collect();
        let found = found.map_err(|error| RequestError::Pem(error.to_string()))?;
        let der = match found.as_slice() {
            [] => return Err(RequestError::Pem("there is none".to_owned())),
            [der] => der,
            several => return Err(RequestError::Several(several.len())),
        };
        let (rest, parsed) = X509CertificationRequest::from_der(der)
            .map_err(|error| RequestError::Der(error.to_string()))?;
        if !rest.is_empty() {
            return Err(RequestError::Der(format!("{} bytes follow it", rest.len())));
        }
        let key = &parsed.certification_request_info.subject_pki;
        check_key(key.parsed().map_err(|error| RequestError::Der(error.to_string()))?)?;
        let taken = SubjectPublicKeyInfo::from_der(key.raw)
            .map_err(|_| RequestError::Key("of an unknown kind".to_owned()))?;
        parsed.verify_signature().map_err(|_| RequestError::Signature)?;
        Ok(Self { key: taken })
    }

    /// The bits of the public key.
    pub fn public_key(&self) -> &[u8] {
        self.key.der_bytes()
    }

    /// The public key.
    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }
}

fn check_key(key: PublicKey<'_>) -> Result<(), RequestError> {
    match key {
        PublicKey::RSA(key) if !RSA_BITS.contains(&key.key_size()) => {
            Err(RequestError::Key(format!("RSA of {} bits", key.key_size())))
        }
        PublicKey::EC(point) if !matches!(point.key_size(), 256 | 384) => {
            Err(RequestError::Key(format!("ECDSA of {} bits", point.key_size())))
        }
        // Ed25519 has no variant of its own there.
        PublicKey::RSA(_) | PublicKey::EC(_) | PublicKey::Unknown(_) => Ok(()),
        PublicKey::DSA(_) => Err(RequestError::Key("DSA".to_owned())),
        _ => Err(RequestError::Key("of an unknown kind".to_owned())),
    }
}

#[cfg(test)]
mod tests;
