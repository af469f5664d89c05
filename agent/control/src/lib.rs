//! Where configuration comes from. Sources read objects, check them, and publish a whole
//! [`Cluster`] or nothing.
//!
//! **Invariant**: a state with an error in it is never published. The last good one stays in
//! force, and the rejection names object, file, line and remedy.
//!
//! [`Cluster`]: undermesh_model::Cluster

mod assemble;
mod convert;
mod documents;
mod endpoints;
mod enrolment;
mod files;
mod objects;
mod report;
mod security;
mod source;

pub use objects::{Objects, parse_manifests};
pub use report::Report;
pub use source::{Loaded, ManifestSource, SourceUpdate};
