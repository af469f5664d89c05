//! From nouns to a snapshot.

use undermesh_model::{Cluster, Diagnostic, Generation};

use crate::{Options, Snapshot};

/// What [`compile`] gives.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// The snapshot; complete even where there are diagnostics.
    pub snapshot: Snapshot,
    /// What could not be used, or not as meant.
    pub diagnostics: Vec<Diagnostic>,
}

/// Compiles one state of the configuration for one node.
pub fn compile(_cluster: &Cluster, options: &Options, generation: Generation) -> Compiled {
    let snapshot = Snapshot {
        generation,
        options: options.clone(),
        ..Snapshot::default()
    };
    Compiled {
        snapshot,
        diagnostics: Vec::new(),
    }
}
