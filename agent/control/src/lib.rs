//! Where configuration comes from. Sources read objects, check them, and publish a whole
//! [`Cluster`] or nothing.
//!
//! The path: `files` -> `documents` -> `node` -> `manifests` -> `convert`, `security` -> `assemble`
//! (with `enrolment` and `endpoints`) -> `source`. From `convert` on, nothing knows of files: what an API
//! server says (`kubernetes`) goes the same way from `node` on.
//!
//! **Invariant**: a state with an error in it is never published. Of a directory, the last good state stays
//! in force, and the rejection names object, file, line and remedy; of an API server, the last good version
//! of the one object does.
//!
//! [`Cluster`]: undermesh_model::Cluster

mod analysis;
mod api_server;
mod assemble;
mod convert;
mod definitions;
mod directory;
mod distribution;
mod documents;
mod endpoints;
mod enrolment;
mod field;
mod fields;
mod files;
#[cfg(test)]
mod fixtures;
mod kinds;
mod kube_client;
mod kubernetes;
mod manifests;
mod names;
mod network_policy;
mod node;
mod objects;
mod report;
mod security;
mod source;
mod traffic;

pub use analysis::{Analysis, Input, analyze, whole};
pub use api_server::{
    ACCEPTED, ApiError, ApiServer, CONTROLLER, Forwarded, JUDGED_KINDS, JudgedKind, Keeping,
    KeptSecret, Lease, LeaseState, ObjectPath, PodPlace, StatusWrite, TokenOwner,
};
pub use definitions::{definitions, definitions_page};
pub use directory::{ManifestSource, parse_manifests, read_objects};
pub use distribution::{
    Collector, ControllerConfig, ControllerSource, Delivery, EndKind, Hub, Link, Observer, Opened,
    Opening, PATH as DISTRIBUTION_PATH, Peer, StreamEnd, read_requests, read_responses,
};
pub use kinds::{KindDescription, describe_kinds};
pub use kubernetes::{
    Health, HealthReport, KubernetesConfig, KubernetesSource, ListReport, Timing,
};
pub use network_policy::{BlockedTunnel, Direction, TUNNEL_PORT, blocked_tunnels};
pub use source::{Loaded, SourceUpdate};
