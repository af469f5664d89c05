//! The compiled form of policy: one [`CompiledPolicy`] per workload, one pure [`evaluate`], and the
//! kernel's table, which is nothing but answers of `evaluate` written down.
//!
//! Source: Istio, `pilot/pkg/serviceregistry/kube/controller/ambient/authorization.go` for what
//! layer 4 makes of rules about layer 7; ztunnel, `src/rbac.rs` for how rules match.

mod because;
mod compiled;
mod decision;
mod evaluate;
mod ids;
mod limits;
mod mtls;
mod request;
mod select;
mod table;
#[cfg(test)]
mod tests;

pub use compiled::{CompiledPolicy, CompiledRule, Match, Statement};
pub use decision::{Cause, Decision, Finding, FindingKind};
pub use evaluate::{
    ConnectionAttributes, Matches, Opinion, Sight, asks, evaluate, evaluate_opaque,
    evaluate_request, limits_of_connection, limits_of_request, review,
};
pub use limits::CompiledLimit;
pub(crate) use mtls::PeerAuthentications;
pub use mtls::{ModesOrigin, MtlsModes, modes_of};
pub use request::{RequestAttributes, RequestMatch};
pub(crate) use select::Authorizations;
pub(crate) use table::{PolicyTable, report};
