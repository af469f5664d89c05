//! AuthorizationPolicy, as far as layer 4 goes.
//!
//! Source: Istio, `pkg/config/validation/validation.go`, for what is refused.

mod values;

use std::{collections::BTreeMap, num::NonZeroU16};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::IgnoredAny};
use undermesh_model::{self as model, NamespacedName, PolicyAction};

use super::{Selector, annotation, invalid, labels};
use crate::{
    fields,
    objects::Placed,
    report::{Report, Subject},
};
use values::Reader;

const DRY_RUN: &str = "istio.io/dry-run";

const KNOWN: [fields::Known; 7] = [
    ("", &["apiVersion", "kind", "metadata", "spec", "status"]),
    ("spec", &["selector", "targetRef", "targetRefs", "rules", "action", "provider"]),
    ("spec.selector", &["matchLabels"]),
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
struct Rule {
    from: Vec<From>,
    to: Vec<To>,
    when: Vec<Condition>,
}

/// Lists of texts by the names of their fields; which of them mean something is said below.
type Lists = BTreeMap<String, Vec<String>>;

#[derive(Clone, Debug, Default, Deserialize)]
struct From {
    source: Option<Lists>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct To {
    operation: Option<Lists>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    key: String,
    #[serde(default)]
    values: Vec<String>,
    #[serde(default)]
    not_values: Vec<String>,
}

/// Reads an AuthorizationPolicy; `None` where none of it is for layer 4.
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
        Action::Custom => {
            return not_for_layer_4("action CUSTOM is", "action", subject, report);
        }
    };
    if spec.target_ref.is_some() {
        return not_for_layer_4("targetRefs are", "targetRef", subject, report);
    }
    if !spec.target_refs.is_empty() {
        return not_for_layer_4("targetRefs are", "targetRefs", subject, report);
    }
    let rules = spec.rules.iter().enumerate();
    let rules: Vec<model::Rule> =
        rules.map(|(index, rule)| Reader::new(index, subject, report).rule(rule)).collect();
    say_layer_7(&rules, action, subject, report);
    let read = model::AuthorizationPolicy {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        action,
        selector: labels(spec.selector.as_ref()),
        dry_run: dry_run(metadata, subject, report),
        rules,
    };
    Some(Placed::new(read, subject))
}

fn not_for_layer_4<T>(
    what: &str,
    field: &str,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<T> {
    let message = format!("{what} for layer 7, and nothing enforces it here");
    let remedy = "it has no effect; write an ALLOW or DENY policy with a selector";
    report.warning(subject, &["spec", field], "not-enforced", message, remedy);
    None
}

fn dry_run(metadata: &ObjectMeta, subject: &Subject<'_>, report: &mut Report) -> bool {
    match annotation(metadata, DRY_RUN) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let message = format!("annotation {DRY_RUN} is {other:?}");
            let path = ["metadata", "annotations", DRY_RUN];
            invalid(report, subject, &path, message, "write \"true\" or \"false\"");
            false
        }
    }
}

/// Istio's status message of such a policy, in our words.
fn say_layer_7(
    rules: &[model::Rule],
    action: PolicyAction,
    subject: &Subject<'_>,
    report: &mut Report,
) {
    let mut names: Vec<&str> =
        rules.iter().flat_map(|rule| &rule.layer7).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let what = match action {
        PolicyAction::Allow => "rules that have them allow nothing",
        PolicyAction::Deny => "rules that have them deny whatever the rest of them matches",
        PolicyAction::Audit => "rules that have them report whatever the rest of them matches",
    };
    let message = format!("layer 4 cannot tell {}: {what}", names.join(", "));
    let remedy = "write rules for layer 4 only";
    report.warning(subject, &["spec", "rules"], "layer-7-attributes", message, remedy);
}

/// A port as Istio writes it: text.
fn port(text: &str) -> Option<u16> {
    text.parse().ok().map(NonZeroU16::get)
}
