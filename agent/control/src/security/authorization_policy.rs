//! AuthorizationPolicy, as far as layer 4 goes.
//!
//! Source: Istio, `pkg/config/validation/validation.go`, for what is refused.

mod values;

use std::{collections::BTreeMap, num::NonZeroU16};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::IgnoredAny};
use undermesh_model::{self as model, NamespacedName, PolicyAction};

use super::{Selector, annotation, fields, invalid, labels};
use crate::{
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
    placed: &Placed<AuthorizationPolicy>,
    report: &mut Report,
) -> Option<model::AuthorizationPolicy> {
    let subject = placed.subject();
    fields::check(&placed.text, &KNOWN, &subject, report);
    let AuthorizationPolicy { metadata, spec } = &placed.object;
    let action = match spec.action {
        Action::Allow => PolicyAction::Allow,
        Action::Deny => PolicyAction::Deny,
        Action::Audit => PolicyAction::Audit,
        Action::Custom => {
            return not_for_layer_4("action CUSTOM is", &subject, report);
        }
    };
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        return not_for_layer_4("targetRefs are", &subject, report);
    }
    let mut reader = Reader::new(&placed.origin.namespace, &subject, report);
    let rules: Vec<model::Rule> = spec.rules.iter().map(|rule| reader.rule(rule)).collect();
    say_layer_7(&rules, action, &subject, report);
    Some(model::AuthorizationPolicy {
        origin: placed.origin.clone(),
        name: NamespacedName::new(&placed.origin.namespace, &placed.origin.name),
        action,
        selector: labels(spec.selector.as_ref()),
        dry_run: dry_run(metadata, &subject, report),
        rules,
    })
}

fn not_for_layer_4<T>(what: &str, subject: &Subject, report: &mut Report) -> Option<T> {
    let message = format!("{what} for layer 7, and nothing enforces it here");
    let remedy = "it has no effect; write an ALLOW or DENY policy with a selector";
    report.warning(subject, "not-enforced", message, remedy);
    None
}

fn dry_run(metadata: &ObjectMeta, subject: &Subject, report: &mut Report) -> bool {
    match annotation(metadata, DRY_RUN) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let message = format!("annotation {DRY_RUN} is {other:?}");
            invalid(report, subject, message, "write \"true\" or \"false\"");
            false
        }
    }
}

/// Istio's status message of such a policy, in our words.
fn say_layer_7(
    rules: &[model::Rule],
    action: PolicyAction,
    subject: &Subject,
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
    report.warning(subject, "layer-7-attributes", message, "write rules for layer 4 only");
}

/// A port as Istio writes it: text.
fn port(text: &str) -> Option<u16> {
    text.parse().ok().map(NonZeroU16::get)
}
