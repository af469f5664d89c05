//! What every source has in common: a whole state or a rejection, and nothing said twice.

use std::sync::Arc;

use undermesh_model::{Cluster, Diagnostic, Generation};

use crate::{assemble::assemble, objects::Objects, report::Report};

/// A state that has been read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The state, if there is no error in it.
    pub cluster: Option<Cluster>,
    /// Every finding.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    /// Puts the objects of a reading together; one error rejects all of them.
    pub(crate) fn new(objects: Objects, mut report: Report) -> Self {
        let cluster = assemble(objects, &mut report);
        let cluster = (!report.has_errors()).then_some(cluster);
        Self { cluster, diagnostics: report.into_diagnostics() }
    }
}

/// What a watched source says.
#[derive(Clone, Debug)]
pub enum SourceUpdate {
    /// A new state, complete and without errors.
    State {
        /// The state.
        cluster: Arc<Cluster>,
        /// Its number.
        generation: Generation,
        /// Warnings.
        diagnostics: Vec<Diagnostic>,
    },
    /// What is there cannot be used; the last state stays in force.
    Rejected {
        /// Why not.
        diagnostics: Vec<Diagnostic>,
    },
}

/// Numbers the states of a source, and knows what it has said last.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    good: Option<Arc<Cluster>>,
    generation: Generation,
    /// Whether the last update was a rejection, and its findings.
    last: Option<(bool, Vec<Diagnostic>)>,
}

impl Publisher {
    /// What to say about a new reading; nothing where it says what is known already. A state that
    /// returns after a rejection is published again: the rejection is over.
    pub(crate) fn publish(&mut self, loaded: Loaded) -> Option<SourceUpdate> {
        let Loaded { cluster, diagnostics } = loaded;
        let rejected = cluster.is_none();
        let same_cluster = cluster.as_ref() == self.good.as_deref();
        let said = (rejected, diagnostics.clone());
        if self.last.as_ref() == Some(&said) && (rejected || same_cluster) {
            return None;
        }
        self.last = Some(said);
        let Some(cluster) = cluster else { return Some(SourceUpdate::Rejected { diagnostics }) };
        let cluster = Arc::new(cluster);
        self.good = Some(Arc::clone(&cluster));
        self.generation = self.generation.next();
        Some(SourceUpdate::State { cluster, generation: self.generation, diagnostics })
    }
}

#[cfg(test)]
mod tests {
    use undermesh_model::{Namespace, ResourceRef, Severity};

    use super::*;

    fn state(namespace: &str) -> Loaded {
        let mut cluster = Cluster::default();
        let origin = ResourceRef::cluster_scoped("Namespace", namespace);
        let value = Namespace { origin, labels: Default::default() };
        cluster.namespaces.insert(namespace.to_owned(), value);
        Loaded { cluster: Some(cluster), diagnostics: Vec::new() }
    }

    fn finding(message: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            code: "test",
            object: None,
            position: None,
            message: message.to_owned(),
            remedy: String::new(),
        }
    }

    fn rejection(message: &str) -> Loaded {
        Loaded { cluster: None, diagnostics: vec![finding(message)] }
    }

    #[test]
    fn only_news_is_published() {
        let with_warning = Loaded { diagnostics: vec![finding("w")], ..state("b") };
        let mut publisher = Publisher::default();
        let steps = [
            ("the first state", state("a"), Some(Some(1))),
            ("the same again", state("a"), None),
            ("another state", state("b"), Some(Some(2))),
            ("the same with a warning", with_warning, Some(Some(3))),
            ("a rejection", rejection("x"), Some(None)),
            ("the same rejection", rejection("x"), None),
            ("another rejection", rejection("y"), Some(None)),
            ("the old state after it", state("b"), Some(Some(4))),
        ];
        for (what, loaded, expected) in steps {
            let said = publisher.publish(loaded).map(|update| match update {
                SourceUpdate::State { generation, .. } => Some(generation.0),
                SourceUpdate::Rejected { .. } => None,
            });
            assert_eq!(said, expected, "{what}");
        }
    }
}
