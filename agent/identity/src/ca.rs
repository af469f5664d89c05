//! A certificate authority in a directory.
//!
//! ```text
//! root.crt          the root certificate
//! root.key          its key (0600); not needed on nodes
//! intermediate.crt  the issuing certificate
//! intermediate.key  its key (0600)
//! bundle.pem        every root that is trusted: the current one, and its predecessors while they
//!                   overlap
//! ```

mod files;
mod issue;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use undermesh_model::{SpiffeId, TrustDomain};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{AuthorityError, Svid, pem};

pub(crate) const ROOT_CERT: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
pub(crate) const INTERMEDIATE_CERT: &str = "intermediate.crt";
const INTERMEDIATE_KEY: &str = "intermediate.key";
const BUNDLE: &str = "bundle.pem";

/// What a new authority should be like.
#[derive(Clone, Debug)]
pub struct CaOptions {
    /// Trust domain of the identities that it will vouch for.
    pub trust_domain: TrustDomain,
    /// Lifetime of the root.
    pub root_lifetime: Duration,
    /// Lifetime of the intermediate.
    pub intermediate_lifetime: Duration,
}

impl Default for CaOptions {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            trust_domain: TrustDomain::default(),
            root_lifetime: Duration::from_secs(3650 * DAY),
            intermediate_lifetime: Duration::from_secs(365 * DAY),
        }
    }
}

/// A CA directory that has been found complete and consistent.
#[derive(Debug)]
pub struct CaDirectory {
    path: PathBuf,
    intermediate: CertificateDer<'static>,
    intermediate_pem: String,
}

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
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaCertificate {
    /// Subject.
    pub subject: String,
    /// Serial number in hexadecimal digits.
    pub serial: String,
    /// End of validity, RFC 3339.
    pub not_after: String,
}

impl CaDirectory {
    /// Makes a root and an intermediate in a new or empty directory.
    ///
    /// # Errors
    /// Where there is an authority already, or the files cannot be written.
    pub fn init(path: &Path, options: &CaOptions) -> Result<Self, AuthorityError> {
        if [ROOT_CERT, INTERMEDIATE_CERT, BUNDLE].iter().any(|name| path.join(name).exists()) {
            return Err(AuthorityError::Exists(path.to_owned()));
        }
        issue::check_lifetimes(options)?;
        files::create_private_dir(path)?;
        let now = OffsetDateTime::now_utc();
        let root = issue::root(options, now)?;
        files::write_key(&path.join(ROOT_KEY), root.key())?;
        files::write(&path.join(ROOT_CERT), &root.pem())?;
        files::write(&path.join(BUNDLE), &root.pem())?;
        write_intermediate(path, &root, options, now)?;
        Self::open(path)
    }

    /// Opens a directory and checks all that can be checked: files, permissions of the keys, that
    /// key and certificate belong together, and that the bundle holds the issuer's root.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file that it is wrong with.
    pub fn open(path: &Path) -> Result<Self, AuthorityError> {
        let certificate = path.join(INTERMEDIATE_CERT);
        let intermediate_pem =
            fs::read_to_string(&certificate).map_err(AuthorityError::file("read", &certificate))?;
        let intermediate = pem::certificates(&intermediate_pem, &certificate)?.swap_remove(0);
        if path.join(ROOT_KEY).exists() {
            files::check_private(&path.join(ROOT_KEY))?;
        }
        let key = files::read_key(&path.join(INTERMEDIATE_KEY))?;
        if !issue::belongs_to(&intermediate, &key) {
            return Err(AuthorityError::content(
                path.join(INTERMEDIATE_KEY),
                format!("it is not the key of {INTERMEDIATE_CERT}"),
            ));
        }
        let roots = read_bundle(path)?;
        if !roots.iter().any(|root| issue::is_issued_by(&intermediate, root)) {
            return Err(AuthorityError::content(
                path.join(BUNDLE),
                format!("it does not hold the root that issued {INTERMEDIATE_CERT}"),
            ));
        }
        Ok(Self { path: path.to_owned(), intermediate, intermediate_pem })
    }

    /// Makes a new root and intermediate. The bundle holds the old roots and the new one before
    /// anything is signed by it; `settle` is called in between, and should wait until every
    /// agent has read the new bundle.
    ///
    /// # Errors
    /// Where the root's key is not here, or a file cannot be written.
    pub fn rotate(
        path: &Path,
        options: &CaOptions,
        settle: impl FnOnce(),
    ) -> Result<Self, AuthorityError> {
        Self::open(path)?;
        files::read_key(&path.join(ROOT_KEY))?;
        issue::check_lifetimes(options)?;
        let now = OffsetDateTime::now_utc();
        let root = issue::root(options, now)?;
        let bundle_path = path.join(BUNDLE);
        let old =
            fs::read_to_string(&bundle_path).map_err(AuthorityError::file("read", &bundle_path))?;
        files::write(&bundle_path, &format!("{}{old}", root.pem()))?;
        settle();
        files::write_key(&path.join(ROOT_KEY), root.key())?;
        files::write(&path.join(ROOT_CERT), &root.pem())?;
        write_intermediate(path, &root, options, now)?;
        Self::open(path)
    }

    /// Takes every root out of the bundle but the one that issued the intermediate; returns how
    /// many. Certificates under them are refused from then on.
    ///
    /// # Errors
    /// Where the bundle cannot be read or written.
    pub fn prune(path: &Path) -> Result<usize, AuthorityError> {
        let directory = Self::open(path)?;
        let bundle = path.join(BUNDLE);
        let text = fs::read_to_string(&bundle).map_err(AuthorityError::file("read", &bundle))?;
        let is_current = |block: &&str| {
            pem::certificates(block, &bundle)
                .is_ok_and(|found| issue::is_issued_by(&directory.intermediate, &found[0]))
        };
        let (current, old): (Vec<&str>, Vec<&str>) = pem::blocks(&text).partition(is_current);
        files::write(&bundle, &(current.join("\n") + "\n"))?;
        Ok(old.len())
    }

    /// Makes a directory for another node: an intermediate of its own under the same root, and the
    /// bundle, but not the root's key.
    ///
    /// # Errors
    /// Where the root's key is not here, `out` holds an authority, or a file cannot be written.
    pub fn issue_intermediate(
        path: &Path,
        out: &Path,
        options: &CaOptions,
    ) -> Result<Self, AuthorityError> {
        Self::open(path)?;
        if out.join(INTERMEDIATE_CERT).exists() {
            return Err(AuthorityError::Exists(out.to_owned()));
        }
        let root_path = path.join(ROOT_CERT);
        let root_pem =
            fs::read_to_string(&root_path).map_err(AuthorityError::file("read", &root_path))?;
        let key = files::read_key(&path.join(ROOT_KEY))?;
        let issuer = Issuer::from_ca_cert_pem(&root_pem, key)
            .map_err(|error| AuthorityError::content(&root_path, error.to_string()))?;
        files::create_private_dir(out)?;
        let bundle = path.join(BUNDLE);
        let text = fs::read_to_string(&bundle).map_err(AuthorityError::file("read", &bundle))?;
        files::write(&out.join(BUNDLE), &text)?;
        let made = issue::intermediate(&issuer, options, OffsetDateTime::now_utc())?;
        files::write_key(&out.join(INTERMEDIATE_KEY), &made.key)?;
        files::write(&out.join(INTERMEDIATE_CERT), &made.pem)?;
        Self::open(out)
    }

    /// Issues a workload certificate. It never outlives its issuer.
    ///
    /// # Errors
    /// Where the issuer has expired or its key cannot be read.
    pub fn sign(
        &self,
        id: &SpiffeId,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Svid, AuthorityError> {
        let failed = |reason: String| AuthorityError::Issue { subject: id.to_string(), reason };
        let key = files::read_key(&self.path.join(INTERMEDIATE_KEY))?;
        let issuer = Issuer::from_ca_cert_pem(&self.intermediate_pem, key)
            .map_err(|error| failed(error.to_string()))?;
        let leaf_key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let not_after = issue::not_after(&self.intermediate)
            .ok_or_else(|| failed("the issuer cannot be read".to_owned()))?;
        if not_after <= now {
            return Err(failed(format!(
                "the issuing certificate {} has expired; run `undermesh ca rotate`",
                self.path.join(INTERMEDIATE_CERT).display()
            )));
        }
        let leaf = issue::leaf(id, &issuer, &leaf_key, now, (now + lifetime).min(not_after))?;
        let key = PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into());
        Svid::new(id.clone(), vec![leaf, self.intermediate.clone()], &key)
    }

    /// What is here, without keys.
    ///
    /// # Errors
    /// Where the bundle cannot be read.
    pub fn describe(&self) -> Result<CaInfo, AuthorityError> {
        let describe = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(certificate)
                .map_err(|error| AuthorityError::content(&self.path, error.to_string()))?;
            let not_after = parsed.validity().not_after.to_datetime();
            Ok::<_, AuthorityError>(CaCertificate {
                subject: parsed.subject().to_string(),
                serial: parsed.raw_serial_as_string().replace(':', ""),
                not_after: not_after.format(&Rfc3339).unwrap_or_default(),
            })
        };
        Ok(CaInfo {
            path: self.path.clone(),
            intermediate: describe(&self.intermediate)?,
            roots: read_bundle(&self.path)?.iter().map(describe).collect::<Result<_, _>>()?,
            has_root_key: self.path.join(ROOT_KEY).exists(),
        })
    }
}

/// The roots of a directory's bundle.
pub(crate) fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let path = path.join(BUNDLE);
    let text = fs::read_to_string(&path).map_err(AuthorityError::file("read", &path))?;
    pem::certificates(&text, &path)
}

fn write_intermediate(
    path: &Path,
    root: &rcgen::CertifiedIssuer<'_, KeyPair>,
    options: &CaOptions,
    now: OffsetDateTime,
) -> Result<(), AuthorityError> {
    let made = issue::intermediate(root, options, now)?;
    files::write_key(&path.join(INTERMEDIATE_KEY), &made.key)?;
    files::write(&path.join(INTERMEDIATE_CERT), &made.pem)
}
