//! Who signs: a directory on disk now, a remote service later.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use rustls::pki_types::CertificateDer;
use undermesh_model::SpiffeId;

use crate::{AuthorityError, CaDirectory, Clock, Svid, SystemClock, ca};

/// The future of a signature.
pub type SignFuture<'a> = Pin<Box<dyn Future<Output = Result<Svid, AuthorityError>> + Send + 'a>>;

/// Signs workload certificates and says whom to trust.
pub trait CertificateAuthority: Send + Sync {
    /// Issues a certificate for `id`, valid for `lifetime` or as long as the issuer is.
    fn sign<'a>(&'a self, id: &'a SpiffeId, lifetime: Duration) -> SignFuture<'a>;

    /// The trust bundle as it is now.
    ///
    /// # Errors
    /// Where it cannot be read; the former one then stays in force.
    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError>;

    /// Something that changes when the issuer does, so that certificates are renewed under it.
    ///
    /// # Errors
    /// Where the issuer cannot be read.
    fn issuer(&self) -> Result<Vec<u8>, AuthorityError>;
}

/// A CA directory, read anew for every call: signatures are rare, and files change under us.
#[derive(Debug)]
pub struct DirectoryAuthority {
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

impl DirectoryAuthority {
    /// Opens a directory that `undermesh ca init` or `ca intermediate` has made.
    ///
    /// # Errors
    /// Where it is incomplete, inconsistent, or its keys can be read by others.
    pub fn open(path: &Path) -> Result<Self, AuthorityError> {
        Self::with_clock(path, Arc::new(SystemClock))
    }

    /// As [`DirectoryAuthority::open`], with another clock.
    ///
    /// # Errors
    /// The same.
    pub fn with_clock(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, AuthorityError> {
        CaDirectory::open(path)?;
        Ok(Self { path: path.to_owned(), clock })
    }
}

impl CertificateAuthority for DirectoryAuthority {
    fn sign<'a>(&'a self, id: &'a SpiffeId, lifetime: Duration) -> SignFuture<'a> {
        Box::pin(async move {
            let directory = CaDirectory::open(&self.path)?;
            directory.sign(id, lifetime, self.clock.now())
        })
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        ca::read_bundle(&self.path)
    }

    fn issuer(&self) -> Result<Vec<u8>, AuthorityError> {
        let path = self.path.join(ca::INTERMEDIATE_CERT);
        std::fs::read(&path).map_err(AuthorityError::file("read", path))
    }
}
