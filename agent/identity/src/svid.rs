//! A workload's certificate and key.

use std::{fmt, sync::Arc};

use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use undermesh_model::SpiffeId;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::AuthorityError;

/// A certificate for one identity, with its chain and its key. `Debug` shows no key.
pub struct Svid {
    id: SpiffeId,
    key: Arc<CertifiedKey>,
    serial: String,
    issuer: String,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Svid {
    /// Puts a chain (leaf first) and its key together.
    ///
    /// # Errors
    /// Where the leaf cannot be read or the key is of no use to TLS.
    pub fn new(
        id: SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, AuthorityError> {
        let failed = |reason: String| AuthorityError::Issue { subject: id.to_string(), reason };
        let leaf = chain.first().ok_or_else(|| failed("the chain is empty".to_owned()))?;
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|error| failed(error.to_string()))?;
        let validity = parsed.validity();
        let (not_before, not_after) =
            (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let issuer = parsed.issuer().to_string();
        let key = any_supported_type(key).map_err(|error| failed(error.to_string()))?;
        let key = Arc::new(CertifiedKey::new(chain, key));
        Ok(Self { id, key, serial, issuer, not_before, not_after })
    }

    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number, in hexadecimal digits.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Subject of the certificate that signed it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Start of validity.
    pub fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// End of validity.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// Whether it has expired at `now`.
    pub(crate) fn is_over(&self, now: OffsetDateTime) -> bool {
        self.not_after <= now
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("issuer", &self.issuer)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
