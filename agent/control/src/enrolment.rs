//! Which pods are in the mesh, by the labels that users know.
//!
//! A pod's own label beats its namespace's. On one object, `undermesh.io/mesh` beats
//! `istio.io/dataplane-mode`. Pods in the host's network namespace and pods that have finished
//! are never enrolled.

use std::collections::BTreeMap;

use undermesh_model::Enrolment;

use crate::report::{Report, Subject};

const OWN: &str = "undermesh.io/mesh";
const ISTIO: &str = "istio.io/dataplane-mode";

type Labels = BTreeMap<String, String>;

/// What the labels of one object say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    enrol: bool,
    because: String,
}

impl Choice {
    /// Whether it is for the mesh.
    pub(crate) fn enrols(&self) -> bool {
        self.enrol
    }
}

/// Reads the labels of a Namespace or Pod, and reports values that mean nothing.
pub(crate) fn choice(
    labels: &Labels,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Choice> {
    let own = meaning(labels, OWN, ("enabled", "disabled"), subject, report);
    let istio = meaning(labels, ISTIO, ("ambient", "none"), subject, report);
    if let (Some(own), Some(istio)) = (own, istio)
        && own != istio
    {
        let message = format!("its labels {OWN} and {ISTIO} contradict each other; {OWN} wins");
        let path = ["metadata", "labels", ISTIO];
        report.warning(subject, &path, "contradicting-labels", message, "remove one of them");
    }
    let (label, enrol) = match (own, istio) {
        (Some(enrol), _) => (OWN, enrol),
        (None, Some(enrol)) => (ISTIO, enrol),
        (None, None) => return None,
    };
    let value = labels.get(label).map(String::as_str).unwrap_or_default();
    Some(Choice { enrol, because: format!("label {label}={value} on {}", subject.origin) })
}

fn meaning(
    labels: &Labels,
    label: &str,
    (yes, no): (&str, &str),
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<bool> {
    let value = labels.get(label)?;
    if value == yes {
        return Some(true);
    }
    if value != no {
        let message = format!("label {label} is {value:?}, which means nothing");
        let path = ["metadata", "labels", label];
        let remedy = format!("write {yes:?} or {no:?}");
        report.warning(subject, &path, "unknown-label-value", message, &remedy);
        return None;
    }
    Some(false)
}

/// Decides for one pod. `obstacle` is what keeps it from being in the mesh, if anything does.
pub(crate) fn decide(
    obstacle: Option<&str>,
    pod: Option<&Choice>,
    namespace: Option<&Choice>,
) -> Enrolment {
    match (pod.or(namespace), obstacle) {
        (Some(Choice { enrol: true, .. }), Some(obstacle)) => {
            Enrolment::Impossible(obstacle.to_owned())
        }
        (_, Some(obstacle)) => Enrolment::NotEnrolled(obstacle.to_owned()),
        (Some(Choice { enrol: true, because }), None) => Enrolment::Enrolled(because.clone()),
        (Some(Choice { enrol: false, because }), None) => Enrolment::NotEnrolled(because.clone()),
        (None, None) => Enrolment::NotEnrolled("no label enrols it or its namespace".to_owned()),
    }
}

#[cfg(test)]
mod tests;
