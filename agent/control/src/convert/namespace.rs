//! Namespace.

use k8s_openapi::api::core::v1::Namespace;
use undermesh_model as model;

use crate::{
    enrolment::{self, Choice},
    objects::Placed,
    report::{Report, Subject},
};

/// A namespace, and what it chooses for its pods.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceRecord {
    pub(crate) namespace: model::Namespace,
    pub(crate) choice: Option<Choice>,
}

/// Reads a Namespace's labels.
pub(crate) fn namespace(
    namespace: &Namespace,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<NamespaceRecord> {
    let labels = namespace.metadata.labels.clone().unwrap_or_default();
    let choice = enrolment::choice(&labels, subject, report);
    let namespace = model::Namespace { origin: subject.origin.clone(), labels };
    Placed::new(NamespaceRecord { namespace, choice }, subject)
}
