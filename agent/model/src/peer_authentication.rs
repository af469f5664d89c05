//! PeerAuthentication: which connections workloads accept.
//!
//! Source: Istio, `security/v1beta1/peer_authentication.proto`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{NamespacedName, ResourceRef};

/// One PeerAuthentication. Modes that are UNSET are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// The object.
    pub origin: ResourceRef,
    /// Namespace and name.
    pub name: NamespacedName,
    /// `creationTimestamp` in seconds since 1970; the oldest of several wins, and one without is
    /// older than all.
    pub created: Option<i64>,
    /// Labels of the workloads that it is about; empty for all of its scope.
    pub selector: BTreeMap<String, String>,
    /// The mode of all ports.
    pub mode: Option<MtlsMode>,
    /// Modes of single ports, for workloads only.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// Which connections a workload accepts (Istio, `PeerAuthentication.MutualTLS.Mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MtlsMode {
    /// Plaintext; peers are not asked who they are, and do not use the tunnel.
    Disable,
    /// Plaintext and mutual TLS.
    #[default]
    Permissive,
    /// Mutual TLS (or the node-local path with a verified source) only.
    Strict,
}
