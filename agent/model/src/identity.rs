//! SPIFFE identities, as Istio shapes them: `spiffe://<trust-domain>/ns/<namespace>/sa/<account>`.
//!
//! Source: SPIFFE-ID specification, sections 2.1 to 2.4; Istio's `pkg/spiffe`.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Longest SPIFFE ID that may be accepted, in bytes (SPIFFE-ID, section 2.3).
const MAX_ID_LEN: usize = 2048;

/// Why a string is not an identity of this mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The trust domain is empty, too long, or has a character outside `[a-z0-9._-]`.
    #[error("trust domain {0:?} must be 1 to 255 characters of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain(String),
    /// The URI does not start with `spiffe://`.
    #[error("{0:?} is not a SPIFFE URI")]
    NotSpiffe(String),
    /// The path is not `/ns/<namespace>/sa/<service-account>`.
    #[error("path of {0:?} is not /ns/<namespace>/sa/<service-account>")]
    Path(String),
}

/// The name that all identities of one mesh share, `cluster.local` by default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The domain as written in an identity.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("cluster.local".to_owned())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if text.is_empty() || text.len() > 255 || !text.bytes().all(valid) {
            return Err(IdentityError::TrustDomain(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The identity of a workload: its trust domain, namespace and service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The mesh that vouches for the workload.
    pub trust_domain: TrustDomain,
    /// The workload's namespace.
    pub namespace: String,
    /// The workload's service account.
    pub service_account: String,
}

impl SpiffeId {
    /// Puts an identity together from parts that configuration has validated.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: impl Into<String>,
        service_account: impl Into<String>,
    ) -> Self {
        Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() }
    }

    /// How it is written, in its parts: for whoever has none of its own text to format.
    pub fn words(&self) -> [&str; 6] {
        let Self { trust_domain, namespace, service_account } = self;
        ["spiffe://", trust_domain.as_str(), "/ns/", namespace, "/sa/", service_account]
    }

    /// The identity without its scheme, as Istio's policies and metric labels write principals:
    /// `cluster.local/ns/shop/sa/cart`.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.words().into_iter().try_for_each(|word| f.write_str(word))
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("spiffe://")
            .filter(|_| text.len() <= MAX_ID_LEN)
            .ok_or_else(|| IdentityError::NotSpiffe(text.chars().take(128).collect()))?;
        let path_error = || IdentityError::Path(text.to_owned());
        let mut parts = rest.split('/');
        let trust_domain = parts.next().unwrap_or_default().parse()?;
        let (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(path_error());
        };
        if !is_segment(namespace) || !is_segment(service_account) {
            return Err(path_error());
        }
        Ok(Self::new(trust_domain, namespace, service_account))
    }
}

/// A path segment as SPIFFE-ID section 2.2 allows it: no empty and no dot segments, no escapes.
fn is_segment(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_formatting_and_parsing() {
        let id = SpiffeId::new(TrustDomain::default(), "shop", "cart");
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in [
            "",
            "http://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns/a/sa/b/",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/../sa/b",
            "spiffe://cluster.local/ns/a%2f/sa/b",
            "spiffe://CLUSTER.local/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://user@cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text:?} was accepted");
        }
    }
}
