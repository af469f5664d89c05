//! Settings about connections on their way out.

use clap::ValueEnum;
use serde::Deserialize;
use undermesh_model::FailMode;
use undermesh_snapshot::OutboundPolicy;

/// What becomes of meshed connections while the agent is down.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OutboundFailure {
    /// Refused.
    Closed,
    /// Dialled directly.
    Open,
}

impl From<OutboundFailure> for FailMode {
    fn from(mode: OutboundFailure) -> Self {
        match mode {
            OutboundFailure::Closed => Self::Closed,
            OutboundFailure::Open => Self::Open,
        }
    }
}

/// What becomes of connections to destinations that nobody has registered, as Istio's mesh
/// configuration writes it.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum OutboundTrafficPolicy {
    /// Left alone.
    AllowAny,
    /// Refused.
    RegistryOnly,
}

impl From<OutboundTrafficPolicy> for OutboundPolicy {
    fn from(policy: OutboundTrafficPolicy) -> Self {
        match policy {
            OutboundTrafficPolicy::AllowAny => Self::AllowAny,
            OutboundTrafficPolicy::RegistryOnly => Self::RegistryOnly,
        }
    }
}
