//! Where configuration comes from. Sources read objects, check them, and publish a whole
//! [`Cluster`] or nothing.
//!
//! The path: `files` -> `documents` -> `node` -> `manifests` -> `convert`, `security` -> `assemble`
//! (with `enrolment` and `endpoints`) -> `source`. From `convert` on, nothing knows of files.
//!
//! **Invariant**: a state with an error in it is never published. The last good one stays in
//! force, and the rejection names object, file, line and remedy.
//!
//! [`Cluster`]: undermesh_model::Cluster

mod assemble;
mod convert;
mod directory;
mod documents;
mod endpoints;
mod enrolment;
mod field;
mod fields;
mod files;
#[cfg(test)]
mod fixtures;
mod kinds;
mod manifests;
mod names;
mod network_policy;
mod node;
mod objects;
mod report;
mod security;
mod source;
mod traffic;

pub use directory::{ManifestSource, parse_manifests};
pub use kinds::{KindDescription, describe_kinds};
pub use network_policy::{BlockedTunnel, Direction, TUNNEL_PORT, blocked_tunnels};
pub use source::{Loaded, SourceUpdate};
