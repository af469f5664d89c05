//! What `deploy/kubernetes` holds: objects that an API server takes as they are written, and rights on exactly
//! what is read. `cargo xtask lint` says whether the file is of the chart in `deploy/helm`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of it is part of tests")]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration,
        apps::v1::{DaemonSet, Deployment},
        core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use undermesh_control::{JUDGED_KINDS, KindDescription, describe_kinds};

const MANIFEST: &str = include_str!("../../../deploy/kubernetes/undermesh.yaml");

fn objects() -> Vec<Value> {
    let objects: Vec<Value> = MANIFEST
        .split("\n---\n")
        .skip(1)
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
        .collect();
    assert!(objects.len() > 15, "{} objects", objects.len());
    objects
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn the<T: DeserializeOwned>(kind: &str, name: &str) -> T {
    let is_it =
        |object: &Value| (text(object, "/kind"), text(object, "/metadata/name")) == (kind, name);
    let found: Vec<Value> = objects().into_iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    serde_json::from_value(found[0].clone()).unwrap()
}

/// Reads an object and writes it again; what its type does not know is not there any more.
fn known<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let read: T = serde_json::from_value(object.clone())
        .unwrap_or_else(|error| panic!("{error}: {object:#}"));
    serde_json::to_value(read).unwrap()
}

fn written_again(object: &Value) -> Value {
    let read = match (text(object, "/apiVersion"), text(object, "/kind")) {
        ("v1", "Namespace") => known::<Namespace>,
        ("v1", "ConfigMap") => known::<ConfigMap>,
        ("v1", "Service") => known::<Service>,
        ("v1", "ServiceAccount") => known::<ServiceAccount>,
        ("apps/v1", "DaemonSet") => known::<DaemonSet>,
        ("apps/v1", "Deployment") => known::<Deployment>,
        ("policy/v1", "PodDisruptionBudget") => known::<PodDisruptionBudget>,
        ("networking.k8s.io/v1", "NetworkPolicy") => known::<NetworkPolicy>,
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => known::<ClusterRole>,
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => known::<ClusterRoleBinding>,
        ("rbac.authorization.k8s.io/v1", "Role") => known::<Role>,
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => known::<RoleBinding>,
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            known::<CustomResourceDefinition>
        }
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration") => {
            known::<ValidatingWebhookConfiguration>
        }
        (version, kind) => panic!("nothing is known of {kind} of {version}"),
    };
    read(object)
}

/// Where `written` has something that `known` has not.
fn lost(written: &Value, known: &Value, path: &str, found: &mut Vec<String>) {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (key, value) in written {
                let path = format!("{path}/{key}");
                lost(value, known.get(key).unwrap_or(&Value::Null), &path, found);
            }
        }
        (Value::Array(written), Value::Array(known)) if written.len() == known.len() => {
            for (index, (written, known)) in written.iter().zip(known).enumerate() {
                lost(written, known, &format!("{path}/{index}"), found);
            }
        }
        // Bounds of schemas are read as numbers with a point.
        (Value::Number(written), Value::Number(known)) if written.as_f64() == known.as_f64() => {}
        (written, known) if written == known => {}
        (written, known) => found.push(format!("{path}: {written} is read as {known}")),
    }
}

#[test]
fn every_object_has_only_fields_that_its_kind_has() {
    for object in objects() {
        let mut found = Vec::new();
        lost(&object, &written_again(&object), "", &mut found);
        let (kind, name) = (text(&object, "/kind"), text(&object, "/metadata/name"));
        assert!(found.is_empty(), "{kind} {name}: {found:#?}");
    }
}

#[test]
fn a_field_that_does_not_exist_is_noticed() {
    let mut object = objects().into_iter().find(|it| it["kind"] == "DaemonSet").unwrap();
    object["spec"]["template"]["spec"]["hostPid"] = Value::Bool(true);
    let mut found = Vec::new();
    lost(&object, &written_again(&object), "", &mut found);
    assert_eq!(found, ["/spec/template/spec/hostPid: true is read as null"]);
}

/// Group and plural of a kind: what rights are about.
fn resource(kind: &KindDescription) -> (String, String) {
    let group = kind.api_versions[0].split_once('/').map_or("", |(group, _)| group);
    let lower = kind.kind.to_lowercase();
    let plural = match lower.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if lower.ends_with('s') => format!("{lower}es"),
        None => format!("{lower}s"),
    };
    (group.to_owned(), plural)
}

/// The verbs of all that rules without names are about.
fn rights(rules: &[PolicyRule]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut rights: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for rule in rules.iter().filter(|rule| rule.resource_names.is_none()) {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let verbs = rights.entry((group.clone(), resource.clone())).or_default();
                verbs.extend(rule.verbs.iter().cloned());
            }
        }
    }
    rights
}

fn verbs(verbs: &[&str]) -> BTreeSet<String> {
    verbs.iter().map(|&verb| verb.to_owned()).collect()
}

#[test]
fn agents_may_read_exactly_the_kinds_that_their_source_reads_and_write_nothing() {
    let role: ClusterRole = the("ClusterRole", "undermesh-agent");
    let found = rights(role.rules.as_deref().unwrap());
    // Secrets are read by names that the installation says: `agent.secretNames`.
    let kinds = describe_kinds().filter(|kind| kind.kind != "Secret");
    let mut wanted: BTreeMap<_, _> =
        kinds.map(|kind| (resource(&kind), verbs(&["get", "list", "watch"]))).collect();
    let definitions = ("apiextensions.k8s.io".to_owned(), "customresourcedefinitions".to_owned());
    wanted.insert(definitions, verbs(&["get", "list", "watch"]));
    assert_eq!(found, wanted);
}

#[test]
fn the_controller_may_write_the_statuses_of_judged_kinds_and_what_it_keeps() {
    let role: ClusterRole = the("ClusterRole", "undermesh-controller");
    let found = rights(role.rules.as_deref().unwrap());
    let mut wanted = BTreeMap::new();
    for kind in describe_kinds() {
        let (group, plural) = resource(&kind);
        if JUDGED_KINDS.iter().any(|judged| judged.kind == kind.kind) {
            wanted.insert((group.clone(), format!("{plural}/status")), verbs(&["update"]));
            wanted.insert((group, plural), verbs(&["get", "list"]));
        } else if ["Namespace", "Service", "ReferenceGrant", "Pod"].contains(&kind.kind) {
            wanted.insert((group, plural), verbs(&["get", "list"]));
        }
    }
    let reviews = ("authentication.k8s.io".to_owned(), "tokenreviews".to_owned());
    wanted.insert(reviews, verbs(&["create"]));
    assert_eq!(found, wanted);

    let role: Role = the("Role", "undermesh-controller");
    let rules = role.rules.unwrap();
    // Only what has a name may be read and changed; everything else may be made.
    assert!(rights(&rules).values().all(|it| *it == verbs(&["create"])));
    let names: Vec<_> = rules.iter().filter_map(|rule| rule.resource_names.as_deref()).collect();
    assert_eq!(names, [["undermesh-ca"], ["undermesh-ca-roots"], ["undermesh-controller"]]);
}

#[test]
fn the_webhook_never_stands_in_the_way() {
    let found: ValidatingWebhookConfiguration =
        the("ValidatingWebhookConfiguration", "undermesh-controller");
    let webhooks = found.webhooks.unwrap();
    let webhook = &webhooks[0];
    assert_eq!(webhook.failure_policy.as_deref(), Some("Ignore"));
    let selector = webhook.namespace_selector.as_ref().unwrap();
    let exempt = &selector.match_expressions.as_ref().unwrap()[0];
    assert_eq!(exempt.operator, "NotIn");
    assert_eq!(exempt.values.as_ref().unwrap(), &["kube-system", "undermesh-system"]);
    let service = webhook.client_config.service.as_ref().unwrap();
    let there: Service = the("Service", &service.name);
    let ports = there.spec.unwrap().ports.unwrap();
    assert!(ports.iter().any(|port| Some(port.port) == service.port));
}

#[test]
fn an_agent_is_not_privileged_and_takes_no_port_of_its_node_for_itself() {
    let found: DaemonSet = the("DaemonSet", "undermesh-agent");
    let spec = found.spec.unwrap();
    let pod = spec.template.spec.unwrap();
    assert_eq!((pod.host_network, pod.host_pid), (Some(true), Some(true)));
    let container = &pod.containers[0];
    // Declared, they would be ports of the node, of which each can be had once.
    assert_eq!(container.ports, None);
    let security = container.security_context.as_ref().unwrap();
    assert_eq!(security.privileged, Some(false));
    let capabilities = security.capabilities.as_ref().unwrap();
    assert_eq!(capabilities.drop.as_deref().unwrap(), ["ALL"]);
}
