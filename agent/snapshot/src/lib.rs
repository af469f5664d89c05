//! The pure compiler: a [`Cluster`] goes in, an immutable [`Snapshot`] and diagnostics come out.
//!
//! **Invariant**: `compile` does no I/O, never fails, and gives the same answer for the same
//! input. Whatever cannot be compiled becomes a [`Diagnostic`] about the object that asked for it.
//!
//! [`Cluster`]: undermesh_model::Cluster
//! [`Diagnostic`]: undermesh_model::Diagnostic

mod authorizers;
mod blocks;
mod compile;
pub mod lint;
mod options;
mod policy;
mod snapshot;
mod tables;
pub mod traffic;
mod views;
mod workload;

pub use authorizers::{AuthorizerRoute, Authorizers, NoAuthorizer};
pub use blocks::{Blocks, any_address};
pub use compile::{Compiled, compile};
pub use options::{Options, OutboundPolicy, SameNode};
pub use policy::{
    Cause, CompiledLimit, CompiledPolicy, CompiledRule, ConnectionAttributes, Decision, Finding,
    FindingKind, Match, Matches, ModesOrigin, MtlsModes, Opinion, RequestAttributes, RequestMatch,
    Sight, Statement, asks, evaluate, evaluate_opaque, evaluate_request, limits_of_connection,
    limits_of_request, modes_of, review,
};
pub use snapshot::{Destination, EndpointTarget, ServicePortRoute, Snapshot};
pub use tables::{DatapathTables, addr, ip, socket};
pub use views::{ArrivingView, OutgoingView};
pub use workload::{PodPlace, WorkloadInfo};
