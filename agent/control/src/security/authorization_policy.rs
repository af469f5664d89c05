//! AuthorizationPolicy: who may connect, and which requests are answered.
//!
//! Source: Istio, `pkg/config/validation/validation.go`, for what is refused.

mod values;

use std::{collections::BTreeMap, num::NonZeroU16};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};
use undermesh_model::{self as model, NamespacedName, PolicyAction};

use super::{Selector, annotation, invalid, labels};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
};
pub(super) use values::{Reader, in_brackets};

const DRY_RUN: &str = "istio.io/dry-run";

const KNOWN: [fields::Known; 8] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["selector", "targetRef", "targetRefs", "rules", "action", "provider"]),
    ("spec.selector", &["matchLabels"]),
    ("spec.provider", &["name"]),
    ("spec.rules.[]", &["from", "to", "when"]),
    ("spec.rules.[].from.[]", &["source"]),
    ("spec.rules.[].to.[]", &["operation"]),
    ("spec.rules.[].when.[]", &["key", "values", "notValues"]),
];

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AuthorizationPolicy {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<Selector>,
    target_ref: Option<IgnoredAny>,
    target_refs: Vec<IgnoredAny>,
    rules: Vec<Rule>,
    action: Action,
    provider: Option<Provider>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Provider {
    name: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Action {
    #[default]
    Allow,
    Deny,
    Audit,
    Custom,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rule {
    pub(super) from: Vec<From>,
    pub(super) to: Vec<To>,
    pub(super) when: Vec<Condition>,
}

/// Lists of texts by the names of their fields; which of them mean something is said below.
type Lists = BTreeMap<String, Vec<String>>;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(super) struct From {
    /// Those who match all of its lists.
    #[schemars(schema_with = "values::source_schema")]
    source: Option<Lists>,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(super) struct To {
    /// What matches all of its lists.
    #[schemars(schema_with = "values::operation_schema")]
    operation: Option<Lists>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    /// What is looked at.
    key: String,
    /// One of them has to match.
    #[serde(default)]
    values: Vec<String>,
    /// None of them may match.
    #[serde(default)]
    not_values: Vec<String>,
}

/// Reads an AuthorizationPolicy; `None` where it is not about workloads.
pub(crate) fn authorization_policy(
    object: &AuthorizationPolicy,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<model::AuthorizationPolicy>> {
    fields::check(&KNOWN, subject, report);
    let AuthorizationPolicy { metadata, spec } = object;
    let action = match spec.action {
        Action::Allow => PolicyAction::Allow,
        Action::Deny => PolicyAction::Deny,
        Action::Audit => PolicyAction::Audit,
        Action::Custom => PolicyAction::Custom,
    };
    if spec.target_ref.is_some() {
        return has_target("targetRef", subject, report);
    }
    if !spec.target_refs.is_empty() {
        return has_target("targetRefs", subject, report);
    }
    let rules = spec.rules.iter().enumerate();
    let rules: Vec<model::Rule> =
        rules.map(|(index, rule)| Reader::new(index, subject, report).rule(rule)).collect();
    let read = model::AuthorizationPolicy {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        action,
        provider: provider(spec, subject, report),
        selector: labels(spec.selector.as_ref()),
        dry_run: dry_run(metadata, action, subject, report),
        rules,
    };
    Some(Placed::new(read, subject))
}

fn has_target<T>(field: &str, subject: &Subject<'_>, report: &mut Report) -> Option<T> {
    let message = "it is about a gateway or waypoint, of which this mesh has none".to_owned();
    let remedy = "it has no effect; write a selector for the labels of the pods instead";
    report.warning(subject, &["spec", field], "not-enforced", message, remedy);
    None
}

/// CUSTOM needs a provider, and nothing else takes one.
fn provider(spec: &Spec, subject: &Subject<'_>, report: &mut Report) -> Option<String> {
    let name = spec.provider.as_ref().map(|provider| provider.name.clone());
    let name = name.filter(|name| !name.is_empty());
    let custom = matches!(spec.action, Action::Custom);
    if custom != name.is_some() {
        let (message, remedy) = if custom {
            ("action CUSTOM has no provider", "write spec.provider.name")
        } else {
            ("a provider is only for action CUSTOM", "leave it out")
        };
        invalid(report, subject, &["spec", "provider"], message.to_owned(), remedy);
    }
    name
}

fn dry_run(
    metadata: &ObjectMeta,
    action: PolicyAction,
    subject: &Subject<'_>,
    report: &mut Report,
) -> bool {
    match annotation(metadata, DRY_RUN) {
        None | Some("false") => false,
        Some("true") if action == PolicyAction::Custom => {
            let message = format!("annotation {DRY_RUN} has no effect on action CUSTOM");
            let path = ["metadata", "annotations", DRY_RUN];
            report.warning(subject, &path, "no-effect", message, "the policy is in force");
            false
        }
        Some("true") => true,
        Some(other) => {
            let message = format!("annotation {DRY_RUN} is {other:?}");
            let path = ["metadata", "annotations", DRY_RUN];
            invalid(report, subject, &path, message, "write \"true\" or \"false\"");
            false
        }
    }
}

/// A port as Istio writes it: text.
fn port(text: &str) -> Option<u16> {
    text.parse().ok().map(NonZeroU16::get)
}
