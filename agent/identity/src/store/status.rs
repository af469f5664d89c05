//! What the store tells status pages, dumps and metrics.

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use undermesh_model::SpiffeId;

use super::{Entry, IdentityStore};
use crate::CaCertificate;

/// One certificate, for status pages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// Whose it is.
    pub id: SpiffeId,
    /// Whether it can be used.
    pub state: CertificateState,
    /// Serial number; empty while there is none.
    pub serial: String,
    /// Subject of the certificate that signed it; empty while there is none.
    pub issuer: String,
    /// Start of validity, RFC 3339; empty while there is none.
    pub not_before: String,
    /// End of validity, RFC 3339; empty while there is none.
    pub not_after: String,
    /// Seconds until then; negative afterwards, 0 while there is none.
    pub expires_in_seconds: i64,
    /// How much of the time is over that it was good for when it came, in percent; `None` while there is none.
    pub life_percent: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub last_error: Option<String>,
}

impl CertificateStatus {
    /// It should have been renewed at half of its life, and was not.
    pub fn is_overdue(&self, percent: i64) -> bool {
        self.last_error.is_some() && self.life_percent.is_some_and(|spent| spent >= percent)
    }
}

/// Whether a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CertificateState {
    /// None has been issued yet.
    Pending,
    /// It is in use.
    Valid,
    /// It has expired and could not be renewed.
    Expired,
}

impl CertificateStatus {
    fn new(id: &SpiffeId, entry: &Entry, now: OffsetDateTime) -> Self {
        let svid = entry.svid.as_deref();
        let text = |at: Option<OffsetDateTime>| {
            at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
        };
        Self {
            id: id.clone(),
            state: match svid {
                None => CertificateState::Pending,
                Some(svid) if svid.is_over(now) => CertificateState::Expired,
                Some(_) => CertificateState::Valid,
            },
            serial: svid.map(|svid| svid.serial().to_owned()).unwrap_or_default(),
            issuer: svid.map(|svid| svid.issuer().to_owned()).unwrap_or_default(),
            not_before: text(svid.map(crate::Svid::not_before)),
            not_after: text(svid.map(crate::Svid::not_after)),
            expires_in_seconds: svid.map_or(0, |svid| (svid.not_after() - now).whole_seconds()),
            life_percent: entry.life_percent(now),
            last_error: entry.last_error.clone(),
        }
    }
}

impl IdentityStore {
    /// Every identity in use.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        let now = self.now();
        let status = |(id, entry): (&SpiffeId, &Entry)| CertificateStatus::new(id, entry, now);
        self.lock().entries.iter().map(status).collect()
    }

    /// The roots that are trusted. One that cannot be read is left out.
    pub fn roots(&self) -> Vec<CaCertificate> {
        self.lock().roots.iter().filter_map(|root| CaCertificate::read(root).ok()).collect()
    }

    /// How many roots are trusted.
    pub fn root_count(&self) -> usize {
        self.lock().roots.len()
    }
}
