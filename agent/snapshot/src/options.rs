//! What a node's own configuration contributes to its snapshot.

use serde::{Deserialize, Serialize};
use undermesh_model::{FailMode, MtlsMode, SourceAddress, TrustDomain};

/// Settings of the node that the compiler needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The node that this agent runs on.
    pub node: String,
    /// Trust domain of every identity in the mesh.
    pub trust_domain: TrustDomain,
    /// Cluster name, for metrics and logs.
    pub cluster: String,
    /// What enrolled pods accept where no PeerAuthentication of the mesh says it.
    pub mtls: MtlsMode,
    /// The namespace whose policies are about the whole mesh.
    pub root_namespace: String,
    /// What happens to meshed connections while the agent is down.
    pub outbound_failure: FailMode,
    /// Where connections come from that the agent delivers to applications.
    pub source_address: SourceAddress,
    /// How connections between two pods of this node travel.
    pub same_node: SameNode,
    /// What becomes of connections to destinations that nobody has registered.
    pub outbound_policy: OutboundPolicy,
}

/// What becomes of connections to destinations that nobody has registered (Istio:
/// `outboundTrafficPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundPolicy {
    /// They are left alone.
    #[default]
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

/// How connections between two pods of this node travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameNode {
    /// Inside the kernel: nothing leaves the node, so there is nothing to encrypt.
    #[default]
    Direct,
    /// Through the proxy and a tunnel, as between nodes.
    Encrypt,
}
