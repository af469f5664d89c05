//! An authority in memory: what a CA directory holds, or a Secret under the same names, and what it signs.
//! Beside the directory's files it may hold a root that is still being made known (`rotation.rs`).

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use rcgen::{Issuer, KeyPair};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use undermesh_model::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use super::{
    BUNDLE, CaDirectory, CaOptions, Fresh, INTERMEDIATE_CERT, INTERMEDIATE_KEY, ROOT_CERT,
    ROOT_KEY, files, inspect, issue,
};
use crate::{AuthorityError, CaCertificate, CertificateRequest, pem};

const NEXT_CERT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const SIGN_NEXT_FROM: &str = "sign-next-from";
const PRUNE_FROM: &str = "prune-from";

/// A CA certificate and its key.
pub(super) struct Pair {
    pub(super) pem: String,
    pub(super) der: CertificateDer<'static>,
    pub(super) key: Zeroizing<String>,
}

/// An authority that has been found complete and consistent. `Debug` shows no key.
pub struct CaMaterial {
    /// `None` where the root's key is kept elsewhere.
    pub(super) root: Option<Pair>,
    pub(super) intermediate: Pair,
    issuer: Issuer<'static, KeyPair>,
    /// Every root that is trusted, in PEM.
    pub(super) bundle: String,
    /// The root that will sign, and when it begins to.
    pub(super) next: Option<(Pair, OffsetDateTime)>,
    /// When former roots leave the bundle.
    pub(super) prune_from: Option<OffsetDateTime>,
}

/// A certificate that was made for somebody else's key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// In PEM: the certificate, the intermediate that has signed it, and all trusted roots.
    pub chain: Vec<String>,
    /// Serial number, in hexadecimal digits.
    pub serial: String,
    /// End of validity.
    pub not_after: OffsetDateTime,
}

/// A server's certificate with its key.
#[derive(Clone)]
pub struct Serving {
    pub(crate) key: Arc<CertifiedKey>,
    /// End of validity.
    pub not_after: OffsetDateTime,
}

impl Issued {
    /// End of validity, RFC 3339.
    pub fn expires(&self) -> String {
        self.not_after.format(&Rfc3339).unwrap_or_default()
    }
}

impl CaMaterial {
    /// A new authority.
    ///
    /// # Errors
    /// Where its lifetimes make no sense.
    pub fn make(options: &CaOptions) -> Result<Self, AuthorityError> {
        issue::check_lifetimes(options)?;
        let fresh = Fresh::make(options, OffsetDateTime::now_utc())?;
        let root = Pair::new(fresh.root.pem(), fresh.root.key(), ROOT_CERT)?;
        let intermediate =
            Pair::new(fresh.intermediate.pem, &fresh.intermediate.key, INTERMEDIATE_CERT)?;
        let bundle = root.pem.clone();
        Self::new(Some(root), intermediate, bundle, None, None)
    }

    /// What a CA directory holds.
    ///
    /// # Errors
    /// As [`CaDirectory::open`].
    pub fn read(path: &Path) -> Result<Self, AuthorityError> {
        CaDirectory::open(path)?;
        let mut entries = BTreeMap::new();
        for name in [INTERMEDIATE_CERT, INTERMEDIATE_KEY, BUNDLE] {
            let text = files::read_text(&path.join(name))?;
            entries.insert(name.to_owned(), Zeroizing::new(text.into_bytes()));
        }
        Self::from_entries(&entries)
    }

    /// Reads what [`CaMaterial::entries`] has written.
    ///
    /// # Errors
    /// Where something is missing, or does not belong together.
    pub fn from_entries(
        entries: &BTreeMap<String, Zeroizing<Vec<u8>>>,
    ) -> Result<Self, AuthorityError> {
        let text = |name: &str| -> Result<Option<&str>, AuthorityError> {
            let Some(bytes) = entries.get(name) else { return Ok(None) };
            let text = std::str::from_utf8(bytes);
            text.map(Some).map_err(|_| AuthorityError::content(name, "it is no text"))
        };
        let needed = |name: &str| {
            text(name)?.ok_or_else(|| AuthorityError::content(name, "it is not there"))
        };
        let pair = |certificate: &str, key: &str| -> Result<Option<Pair>, AuthorityError> {
            let (Some(pem), Some(text)) = (text(certificate)?, text(key)?) else { return Ok(None) };
            let parsed = KeyPair::from_pem(text)
                .map_err(|_| AuthorityError::content(key, "it is not a private key in PEM"))?;
            Pair::new(pem.to_owned(), &parsed, certificate).map(Some)
        };
        let moment = |name: &str| -> Result<Option<OffsetDateTime>, AuthorityError> {
            let Some(text) = text(name)? else { return Ok(None) };
            let moment = OffsetDateTime::parse(text.trim(), &Rfc3339);
            moment.map(Some).map_err(|error| AuthorityError::content(name, error.to_string()))
        };
        needed(INTERMEDIATE_CERT)?;
        let intermediate = pair(INTERMEDIATE_CERT, INTERMEDIATE_KEY)?
            .ok_or_else(|| AuthorityError::content(INTERMEDIATE_KEY, "it is not there"))?;
        let next = match (pair(NEXT_CERT, NEXT_KEY)?, moment(SIGN_NEXT_FROM)?) {
            (Some(pair), Some(from)) => Some((pair, from)),
            (None, None) => None,
            _ => return Err(AuthorityError::content(NEXT_CERT, "the next root is incomplete")),
        };
        let bundle = needed(BUNDLE)?.to_owned();
        Self::new(pair(ROOT_CERT, ROOT_KEY)?, intermediate, bundle, next, moment(PRUNE_FROM)?)
    }

    pub(super) fn new(
        root: Option<Pair>,
        intermediate: Pair,
        bundle: String,
        next: Option<(Pair, OffsetDateTime)>,
        prune_from: Option<OffsetDateTime>,
    ) -> Result<Self, AuthorityError> {
        let unusable = |reason: String| AuthorityError::content(INTERMEDIATE_CERT, reason);
        let key = KeyPair::from_pem(&intermediate.key)
            .map_err(|_| unusable("its key cannot be read".to_owned()))?;
        let issuer = Issuer::from_ca_cert_pem(&intermediate.pem, key)
            .map_err(|error| unusable(error.to_string()))?;
        let roots = pem::certificates(&bundle, Path::new(BUNDLE))?;
        if !roots.iter().any(|root| inspect::is_issued_by(&intermediate.der, root)) {
            let reason = format!("it does not hold the root that issued {INTERMEDIATE_CERT}");
            return Err(AuthorityError::content(BUNDLE, reason));
        }
        Ok(Self { root, intermediate, issuer, bundle, next, prune_from })
    }

    /// Everything, to be kept in a Secret.
    pub fn entries(&self) -> BTreeMap<String, Zeroizing<Vec<u8>>> {
        let mut entries = BTreeMap::new();
        let mut add = |name: &str, text: &str| {
            entries.insert(name.to_owned(), Zeroizing::new(text.as_bytes().to_vec()));
        };
        add(INTERMEDIATE_CERT, &self.intermediate.pem);
        add(INTERMEDIATE_KEY, &self.intermediate.key);
        add(BUNDLE, &self.bundle);
        if let Some(root) = &self.root {
            add(ROOT_CERT, &root.pem);
            add(ROOT_KEY, &root.key);
        }
        let text = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        if let Some((next, from)) = &self.next {
            add(NEXT_CERT, &next.pem);
            add(NEXT_KEY, &next.key);
            add(SIGN_NEXT_FROM, &text(*from));
        }
        if let Some(from) = self.prune_from {
            add(PRUNE_FROM, &text(from));
        }
        entries
    }

    /// Issues a certificate for `id` and the key of `request`. It never outlives its issuer.
    ///
    /// # Errors
    /// Where the issuer has expired.
    pub fn sign(
        &self,
        id: &SpiffeId,
        request: &CertificateRequest,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, AuthorityError> {
        let not_after = self.end(&id.to_string(), lifetime, now)?;
        let leaf = issue::leaf(id, &[], &self.issuer, request.key(), now, not_after)?;
        let described = CaCertificate::read(leaf.der())
            .map_err(|reason| AuthorityError::Issue { subject: id.to_string(), reason })?;
        let chain = vec![leaf.pem(), self.intermediate.pem.clone(), self.bundle.clone()];
        Ok(Issued { chain, serial: described.serial, not_after })
    }

    /// Makes the certificate of a server that is dialled by `names`.
    ///
    /// # Errors
    /// Where the issuer has expired or a name is none.
    pub fn serve(
        &self,
        id: &SpiffeId,
        names: &[String],
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Serving, AuthorityError> {
        let failed = |reason: String| AuthorityError::Issue { subject: id.to_string(), reason };
        let not_after = self.end(&id.to_string(), lifetime, now)?;
        let key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let leaf = issue::leaf(id, names, &self.issuer, &key, now, not_after)?;
        let chain = vec![leaf.der().clone(), self.intermediate.der.clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let key = any_supported_type(&key).map_err(|error| failed(error.to_string()))?;
        Ok(Serving { key: Arc::new(CertifiedKey::new(chain, key)), not_after })
    }

    fn end(
        &self,
        subject: &str,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<OffsetDateTime, AuthorityError> {
        let ends = inspect::not_after(&self.intermediate.der).filter(|ends| *ends > now);
        let ends = ends.ok_or_else(|| AuthorityError::Issue {
            subject: subject.to_owned(),
            reason: "the issuing certificate has expired".to_owned(),
        })?;
        Ok(issue::end(now, lifetime)?.min(ends))
    }

    /// Every root that is trusted, in PEM.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// The roots that are trusted.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn roots(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        pem::certificates(&self.bundle, Path::new(BUNDLE))
    }

    /// The certificate that signs.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn describe_issuer(&self) -> Result<CaCertificate, AuthorityError> {
        let described = CaCertificate::read(&self.intermediate.der);
        described.map_err(|reason| AuthorityError::content(INTERMEDIATE_CERT, reason))
    }

    /// The trust domain that the signing certificate names, if it names one.
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        inspect::trust_domain(&self.intermediate.der)
    }

    /// Whether certificates under a former root may still be good.
    pub fn is_after_promotion(&self) -> bool {
        self.prune_from.is_some()
    }

    /// Seconds until the certificate that signs expires; negative afterwards.
    pub fn issuer_expires_in_seconds(&self) -> i64 {
        let ends = inspect::not_after(&self.intermediate.der);
        ends.map_or(0, |ends| (ends - OffsetDateTime::now_utc()).whole_seconds())
    }

    /// Whether new intermediates can be made here.
    pub fn has_root_key(&self) -> bool {
        self.root.is_some()
    }
}

impl Pair {
    pub(super) fn new(pem: String, key: &KeyPair, name: &str) -> Result<Self, AuthorityError> {
        let der = pem::certificates(&pem, Path::new(name))?.swap_remove(0);
        if !inspect::belongs_to(&der, key) {
            return Err(AuthorityError::content(name, "its key is another one's"));
        }
        Ok(Self { pem, der, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// To be moved into an authority that differs in something else.
    pub(super) fn again(&self) -> Self {
        Self { pem: self.pem.clone(), der: self.der.clone(), key: self.key.clone() }
    }
}

impl PartialEq for CaMaterial {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl fmt::Debug for CaMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaMaterial")
            .field("issuer", &self.describe_issuer().ok())
            .field("has_root_key", &self.has_root_key())
            .field("next", &self.next.as_ref().map(|(_, from)| from))
            .field("prune_from", &self.prune_from)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
