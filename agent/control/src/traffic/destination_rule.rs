//! DestinationRule: how a host's endpoints are used.
//!
//! Source: Istio, `networking/v1/destination_rule.proto`; `pkg/config/validation/validation.go` and the
//! schema of the CustomResourceDefinition, for what is refused; `cluster_traffic_policy.go`, for what
//! a 0 means.

mod balancer;
mod known;
mod locality;
mod outlier;
mod policy;
mod pool;
mod shapes;
mod tls;

pub(crate) use shapes::DestinationRule;

use std::collections::BTreeSet;

use undermesh_model::{NamespacedName, traffic as model, traffic::Scope};

use super::{
    common, istio,
    place::{self, Place},
};
use crate::{
    names,
    objects::Placed,
    report::{Report, Subject},
};
use shapes::Spec;

/// Reads a DestinationRule.
pub(crate) fn destination_rule(
    object: &DestinationRule,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<model::DestinationRule> {
    known::check(subject, report);
    let DestinationRule { metadata, spec } = object;
    let precedence = common::precedence(metadata, subject, report);
    let namespace = &subject.origin.namespace;
    let read = place::read(subject, report, "invalid-destination-rule", |object| {
        let at = object.field("spec");
        let selector = spec.workload_selector.as_ref().map(|one| one.match_labels.clone());
        check_scope(&at, spec);
        model::DestinationRule {
            origin: subject.origin.clone(),
            name: NamespacedName::new(namespace, &subject.origin.name),
            precedence,
            created: common::created(metadata),
            host: host(&at, &spec.host),
            selector: selector.unwrap_or_default(),
            scope: scope(spec, namespace),
            policy: policy::policy(&at.field("trafficPolicy"), spec.traffic_policy.as_ref()),
            subsets: subsets(&at.field("subsets"), &spec.subsets),
        }
    });
    Placed::new(read, subject)
}

fn host(at: &Place<'_>, host: &str) -> String {
    if !istio::is_wildcard_name(host) {
        let what = if host.is_empty() {
            "is missing".to_owned()
        } else {
            format!("{host:?} is no DNS name")
        };
        let remedy = "write a Service's name, a full name or *.NAME";
        at.field("host").refuse(what, remedy);
    }
    istio::full_host(host, at.namespace())
}

/// A rule that selects clients is for its own namespace, whatever it says.
fn scope(spec: &Spec, namespace: &str) -> Scope {
    match &spec.workload_selector {
        Some(_) => Scope::Namespaces([namespace.to_owned()].into()),
        None => common::scope(&spec.export_to, namespace),
    }
}

fn check_scope(at: &Place<'_>, spec: &Spec) {
    istio::check_scope(at, &spec.export_to, false);
    let Some(selector) = &spec.workload_selector else { return };
    istio::check_selector(
        &at.field("workloadSelector").field("matchLabels"),
        &selector.match_labels,
    );
    if selector.match_labels.is_empty() {
        let what = "has no labels, and so selects all pods of the namespace";
        at.field("workloadSelector").warn("empty-selector", what, "write matchLabels");
    }
    let own = |name: &String| name == "." || name == at.namespace();
    if !spec.export_to.iter().all(own) {
        let what = "a rule with a workloadSelector is for its own namespace alone";
        at.field("exportTo").refuse(what, "write \".\", or leave it out");
    }
}

fn subsets(at: &Place<'_>, shapes: &[shapes::Subset]) -> Vec<model::Subset> {
    let mut seen = BTreeSet::new();
    let mut read = Vec::with_capacity(shapes.len());
    for (index, shape) in shapes.iter().enumerate() {
        let at = at.item(index);
        let name = shape.name.as_str();
        if !names::is_label(name) {
            let remedy = "write lower-case letters, digits and '-'";
            at.field("name").refuse(format!("{name:?} is no name of a subset"), remedy);
        }
        if !seen.insert(name) {
            let what = format!("{name:?} is the name of another subset as well");
            at.field("name").refuse(what, "give every subset a name of its own");
        }
        istio::check_labels(&at.field("labels"), &shape.labels);
        read.push(model::Subset {
            name: shape.name.clone(),
            labels: shape.labels.clone(),
            policy: policy::policy(&at.field("trafficPolicy"), shape.traffic_policy.as_ref()),
        });
    }
    read
}

#[cfg(test)]
mod tests;
