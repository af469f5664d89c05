//! The two ends of a connection, as labels and log fields name them.

use undermesh_model::SpiffeId;

/// What Istio writes where it does not know.
pub(crate) const UNKNOWN: &str = "unknown";

/// One end of a connection. Empty fields are printed as `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Name of the Deployment or other owner.
    pub workload: String,
    /// Name of the pod; only logged, as a label it would have no bound.
    pub pod: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Identity, where one has been proven or is known from configuration.
    pub principal: Option<SpiffeId>,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// Istio's canonical service.
    pub canonical_service: String,
    /// Istio's canonical revision.
    pub canonical_revision: String,
    /// Name of the cluster.
    pub cluster: String,
}

impl Peer {
    /// An end that nothing is known of.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// An end of which only the identity is known.
    pub fn from_identity(principal: SpiffeId) -> Self {
        Self {
            namespace: principal.namespace.clone(),
            principal: Some(principal),
            ..Self::default()
        }
    }
}

/// The service that a connection was meant for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceLabel {
    /// `cart.shop.svc.cluster.local`.
    pub host: String,
    /// `cart`.
    pub name: String,
    /// `shop`.
    pub namespace: String,
}

/// `text`, or `unknown` where it is empty.
pub(crate) fn or_unknown(text: &str) -> String {
    if text.is_empty() { UNKNOWN.to_owned() } else { text.to_owned() }
}
