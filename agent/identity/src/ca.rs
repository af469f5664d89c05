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
mod info;
mod inspect;
mod issue;
mod material;
mod rotation;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{CertifiedIssuer, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;
use undermesh_model::{SpiffeId, TrustDomain};

use self::files::Batch;
pub use self::{
    info::{CaCertificate, CaInfo},
    material::{CaMaterial, Issued, Serving},
    rotation::Rotation,
};
use crate::{AuthorityError, Svid, pem};

pub(crate) const ROOT_CERT: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
pub(crate) const INTERMEDIATE_CERT: &str = "intermediate.crt";
const INTERMEDIATE_KEY: &str = "intermediate.key";
const BUNDLE: &str = "bundle.pem";
/// What may be lost if an authority is made where there is one.
const ALL: [&str; 5] = [ROOT_CERT, ROOT_KEY, INTERMEDIATE_CERT, INTERMEDIATE_KEY, BUNDLE];

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

impl CaDirectory {
    /// Makes a root and an intermediate in a new or empty directory.
    ///
    /// # Errors
    /// Where any file of an authority is there already, or the files cannot be written.
    pub fn init(path: &Path, options: &CaOptions) -> Result<Self, AuthorityError> {
        check_vacant(path)?;
        issue::check_lifetimes(options)?;
        let fresh = Fresh::make(options, OffsetDateTime::now_utc())?;
        files::create_private_dir(path)?;
        let mut batch = Batch::default();
        batch.add(path.join(BUNDLE), &fresh.root.pem())?;
        fresh.add_to(&mut batch, path)?;
        batch.commit()?;
        Self::open(path)
    }

    /// Opens a directory and checks all that can be checked: files, permissions of the keys, that
    /// key and certificate belong together, and that the bundle holds the issuer's root.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file that it is wrong with.
    pub fn open(path: &Path) -> Result<Self, AuthorityError> {
        let certificate = path.join(INTERMEDIATE_CERT);
        let intermediate_pem = files::read_text(&certificate)?;
        let intermediate = pem::certificates(&intermediate_pem, &certificate)?.swap_remove(0);
        if path.join(ROOT_KEY).exists() {
            files::check_private(&path.join(ROOT_KEY))?;
        }
        let directory = Self { path: path.to_owned(), intermediate, intermediate_pem };
        directory.issuing_key()?;
        let roots = read_bundle(path)?;
        if !roots.iter().any(|root| inspect::is_issued_by(&directory.intermediate, root)) {
            return Err(AuthorityError::content(
                path.join(BUNDLE),
                format!("it does not hold the root that issued {INTERMEDIATE_CERT}"),
            ));
        }
        Ok(directory)
    }

    /// Makes a new root and intermediate. The bundle holds the old roots and the new one before
    /// anything is signed by it; `settle` is called in between, and should wait until every
    /// agent has read the new bundle.
    ///
    /// # Errors
    /// Where the root's key is not here, `options` name another trust domain, or a file cannot be
    /// written.
    pub fn rotate(
        path: &Path,
        options: &CaOptions,
        settle: impl FnOnce(),
    ) -> Result<Self, AuthorityError> {
        Self::open(path)?.check_trust_domain(options)?;
        files::read_key(&path.join(ROOT_KEY))?;
        issue::check_lifetimes(options)?;
        let fresh = Fresh::make(options, OffsetDateTime::now_utc())?;
        let old = files::read_text(&path.join(BUNDLE))?;
        files::write(path.join(BUNDLE), &format!("{}{old}", fresh.root.pem()))?;
        settle();
        let mut batch = Batch::default();
        fresh.add_to(&mut batch, path)?;
        batch.commit()?;
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
        let text = files::read_text(&bundle)?;
        let is_current = |block: &&str| {
            pem::certificates(block, &bundle)
                .is_ok_and(|found| inspect::is_issued_by(&directory.intermediate, &found[0]))
        };
        let (current, old): (Vec<&str>, Vec<&str>) = pem::blocks(&text).partition(is_current);
        files::write(bundle, &(current.join("\n") + "\n"))?;
        Ok(old.len())
    }

    /// Makes a directory for another node: an intermediate of its own under the same root, and the
    /// bundle, but not the root's key.
    ///
    /// # Errors
    /// Where the root's key is not here, `out` holds an authority, `options` name another trust
    /// domain, the root has expired, or a file cannot be written.
    pub fn issue_intermediate(
        path: &Path,
        out: &Path,
        options: &CaOptions,
    ) -> Result<Self, AuthorityError> {
        Self::open(path)?.check_trust_domain(options)?;
        check_vacant(out)?;
        let now = OffsetDateTime::now_utc();
        let root_path = path.join(ROOT_CERT);
        let root_pem = files::read_text(&root_path)?;
        let root = pem::certificates(&root_pem, &root_path)?.swap_remove(0);
        let root_not_after = inspect::not_after(&root)
            .filter(|not_after| *not_after > now)
            .ok_or_else(|| AuthorityError::content(&root_path, "it has expired"))?;
        let key = files::read_key(&path.join(ROOT_KEY))?;
        let issuer = Issuer::from_ca_cert_pem(&root_pem, key)
            .map_err(|error| AuthorityError::content(&root_path, error.to_string()))?;
        let made = issue::intermediate(&issuer, root_not_after, options, now)?;
        files::create_private_dir(out)?;
        let mut batch = Batch::default();
        batch.add(out.join(BUNDLE), &files::read_text(&path.join(BUNDLE))?)?;
        batch.add_key(out.join(INTERMEDIATE_KEY), &made.key)?;
        batch.add(out.join(INTERMEDIATE_CERT), &made.pem)?;
        batch.commit()?;
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
        let issuer = Issuer::from_ca_cert_pem(&self.intermediate_pem, self.issuing_key()?)
            .map_err(|error| failed(error.to_string()))?;
        let leaf_key = KeyPair::generate().map_err(|error| failed(error.to_string()))?;
        let issuer_ends = inspect::not_after(&self.intermediate)
            .ok_or_else(|| failed("the issuer cannot be read".to_owned()))?;
        if issuer_ends <= now {
            return Err(failed(format!(
                "the issuing certificate {} has expired; run `undermesh ca rotate`",
                self.path.join(INTERMEDIATE_CERT).display()
            )));
        }
        let not_after = issue::end(now, lifetime)?.min(issuer_ends);
        let leaf = issue::leaf(id, &[], &issuer, &leaf_key, now, not_after)?;
        let key = PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into());
        Svid::new(id.clone(), vec![leaf.der().clone(), self.intermediate.clone()], &key)
    }

    /// The intermediate's key. It is compared with the certificate whenever it is read, as the
    /// files may have been replaced since the directory was opened.
    fn issuing_key(&self) -> Result<KeyPair, AuthorityError> {
        let path = self.path.join(INTERMEDIATE_KEY);
        let key = files::read_key(&path)?;
        if inspect::belongs_to(&self.intermediate, &key) {
            return Ok(key);
        }
        Err(AuthorityError::content(path, format!("it is not the key of {INTERMEDIATE_CERT}")))
    }

    /// Refuses to go on in another name than the one that workloads have now.
    fn check_trust_domain(&self, options: &CaOptions) -> Result<(), AuthorityError> {
        match inspect::trust_domain(&self.intermediate) {
            Some(ours) if ours != options.trust_domain => Err(AuthorityError::Setting(format!(
                "the authority in {} is that of {ours}, not of {}; say `--trust-domain {ours}`",
                self.path.display(),
                options.trust_domain
            ))),
            _ => Ok(()),
        }
    }

    /// What is here, without keys.
    ///
    /// # Errors
    /// Where the bundle cannot be read.
    pub fn describe(&self) -> Result<CaInfo, AuthorityError> {
        let describe = |certificate: &CertificateDer<'_>| {
            CaCertificate::read(certificate)
                .map_err(|reason| AuthorityError::content(&self.path, reason))
        };
        Ok(CaInfo {
            path: self.path.clone(),
            intermediate: describe(&self.intermediate)?,
            roots: read_bundle(&self.path)?.iter().map(describe).collect::<Result<_, _>>()?,
            has_root_key: self.path.join(ROOT_KEY).exists(),
        })
    }
}

/// A root and an intermediate that are not on disk yet.
struct Fresh {
    root: CertifiedIssuer<'static, KeyPair>,
    intermediate: issue::Intermediate,
}

impl Fresh {
    fn make(options: &CaOptions, now: OffsetDateTime) -> Result<Self, AuthorityError> {
        let root_not_after = issue::end(now, options.root_lifetime)?;
        let root = issue::root(options, now)?;
        let intermediate = issue::intermediate(&root, root_not_after, options, now)?;
        Ok(Self { root, intermediate })
    }

    /// Adds everything but the bundle, which holds other roots as well.
    fn add_to(&self, batch: &mut Batch, path: &Path) -> Result<(), AuthorityError> {
        batch.add_key(path.join(ROOT_KEY), self.root.key())?;
        batch.add(path.join(ROOT_CERT), &self.root.pem())?;
        batch.add_key(path.join(INTERMEDIATE_KEY), &self.intermediate.key)?;
        batch.add(path.join(INTERMEDIATE_CERT), &self.intermediate.pem)
    }
}

/// Refuses a directory that holds any file of an authority; a lone key is one too.
fn check_vacant(path: &Path) -> Result<(), AuthorityError> {
    if ALL.iter().any(|name| path.join(name).exists()) {
        return Err(AuthorityError::Exists(path.to_owned()));
    }
    Ok(())
}

/// The roots of a directory's bundle.
pub(crate) fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let path = path.join(BUNDLE);
    pem::certificates(&files::read_text(&path)?, &path)
}

#[cfg(test)]
mod tests;
