//! Readiness that is true: every condition is checked when asked, none is remembered as done.

use std::sync::Arc;

use tokio::sync::watch;
use undermesh_model::Wire;
use undermesh_snapshot::Snapshot;

use crate::{enrolment::EnrolmentView, status::PodState};

/// What readiness depends on.
pub(crate) struct Readiness {
    pub(crate) snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(crate) enrolment: Arc<EnrolmentView>,
    pub(crate) identities: Arc<undermesh_identity::IdentityStore>,
    pub(crate) shutdown: watch::Receiver<bool>,
}

impl Readiness {
    /// What is missing; empty when the agent is ready.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if *self.shutdown.borrow() {
            missing.push("the agent is stopping".to_owned());
        }
        let Some(snapshot) = self.snapshots.borrow().clone() else {
            missing.push("no configuration has been accepted yet".to_owned());
            return missing;
        };
        if !self.enrolment.first_pass_done() {
            missing.push("pods have not been looked at yet".to_owned());
        }
        for pod in self.enrolment.pods() {
            if pod.state == PodState::Pending {
                missing.push(format!(
                    "pod {}/{} is not enrolled: {}",
                    pod.namespace, pod.name, pod.detail
                ));
            }
        }
        for workload in &snapshot.local {
            if self.identities.server_config(&workload.identity, Wire::Hbone).is_err() {
                missing.push(format!("{} has no valid certificate", workload.identity));
            }
        }
        missing.sort();
        missing.dedup();
        missing
    }
}
