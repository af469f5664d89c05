//! Certificates, keys and lists of revoked certificates, wherever they come from.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use crate::ResourceRef;

/// Bytes that are not shown, and that are wiped when the last holder lets go of them.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Arc<Zeroizing<Vec<u8>>>);

impl SecretBytes {
    /// What they are.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// Where certificates and keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyMaterial {
    /// A file of the node.
    File(String),
    /// PEM.
    Inline(SecretBytes),
    /// They are not where they should be, and this is why: whoever needs them cannot go on.
    Missing(String),
}

impl KeyMaterial {
    /// PEM.
    pub fn inline(pem: impl Into<Vec<u8>>) -> Self {
        Self::Inline(pem.into().into())
    }
}

/// At the end of the name of a Secret that has the roots for another one.
pub const CA_SUFFIX: &str = "-cacert";

/// A Kubernetes Secret, as far as TLS is concerned: PEM by what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSecret {
    /// The Secret object.
    pub origin: ResourceRef,
    /// A certificate and its chain.
    pub certificate: Option<SecretBytes>,
    /// Its key.
    pub key: Option<SecretBytes>,
    /// Roots to verify others with.
    pub ca: Option<SecretBytes>,
    /// Certificates that are not to be accepted any more.
    pub crl: Option<SecretBytes>,
}
