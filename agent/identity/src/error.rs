//! What can go wrong with certificates, by the level that it concerns.

use std::{io, path::PathBuf};

use undermesh_model::SpiffeId;

/// An error of a certificate authority. Keys are never part of one.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `init` found something there.
    #[error("{} holds a certificate authority already; use `undermesh ca rotate` to replace it, or another directory", .0.display())]
    Exists(PathBuf),
    /// A private key can be read by others.
    #[error("{} can be read by others (mode {mode:o}); run `chmod 600` on it", path.display())]
    Permissions {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error("{} is not usable: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate for {subject}: {reason}")]
    Issue {
        /// For whom.
        subject: String,
        /// Why not.
        reason: String,
    },
    /// A setting makes no sense.
    #[error("{0}")]
    Setting(String),
}

impl AuthorityError {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn content(path: impl Into<PathBuf>, reason: impl Into<String>) -> Self {
        Self::Content { path: path.into(), reason: reason.into() }
    }
}

/// Why there is no TLS configuration to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The identity is not in use on this node, or has no certificate yet.
    #[error("no certificate for {0} yet{reason}", reason = detail(.1))]
    NoCertificate(SpiffeId, Option<String>),
    /// The certificate has expired and could not be renewed.
    #[error("the certificate for {0} has expired{reason}", reason = detail(.1))]
    Expired(SpiffeId, Option<String>),
    /// rustls refuses the certificate.
    #[error("TLS cannot use the certificate for {0}: {1}")]
    Tls(SpiffeId, String),
}

fn detail(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}
