//! What there is: `/api`, `/apis`, and the resources of each group and version.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{answer::Refusal, resource::Resource};

const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A discovery document; `None` where the path is not one of them.
pub(super) fn page(path: &str, resources: &[Resource]) -> Option<Result<Value, Refusal>> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Some(match parts.as_slice() {
        ["version"] => Ok(json!({"major": "1", "minor": "32", "gitVersion": "v1.32.0"})),
        ["api"] => Ok(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => Ok(groups(resources)),
        ["apis", name] => group(name, resources).ok_or_else(Refusal::no_such_page),
        ["api", version] => list("", version, resources),
        ["apis", group, version] => list(group, version, resources),
        _ => return None,
    })
}

/// Versions of every group but the core.
fn by_group(resources: &[Resource]) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in resources.iter().filter(|one| !one.group.is_empty()) {
        let versions = groups.entry(&resource.group).or_default();
        for version in &resource.versions {
            if !versions.contains(&version.as_str()) {
                versions.push(version);
            }
        }
    }
    groups
}

fn groups(resources: &[Resource]) -> Value {
    let names = by_group(resources);
    let groups: Vec<Value> = names.keys().filter_map(|name| group(name, resources)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(name: &str, resources: &[Resource]) -> Option<Value> {
    let groups = by_group(resources);
    let of =
        |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let versions: Vec<Value> = groups.get(name)?.iter().map(|version| of(version)).collect();
    Some(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name,
        "preferredVersion": versions.first()?, "versions": versions,
    }))
}

fn list(group: &str, version: &str, resources: &[Resource]) -> Result<Value, Refusal> {
    let served =
        |one: &&Resource| one.group == group && one.versions.iter().any(|it| it == version);
    let mut found = Vec::new();
    for one in resources.iter().filter(served) {
        let row = |name: &str, verbs: &[&str]| {
            json!({
                "name": name, "singularName": one.kind.to_lowercase(), "namespaced": one.namespaced,
                "kind": one.kind, "verbs": verbs,
            })
        };
        found.push(row(&one.plural, &VERBS));
        if one.status {
            found.push(row(&format!("{}/status", one.plural), &["get", "patch", "update"]));
        }
    }
    if found.is_empty() {
        return Err(Refusal::no_such_page());
    }
    let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": found,
    }))
}

/// The resource that a CustomResourceDefinition describes.
pub(super) fn of_definition(definition: &Value) -> Option<Resource> {
    let spec = &definition["spec"];
    let versions: Vec<&str> = spec["versions"]
        .as_array()?
        .iter()
        .filter(|version| version["served"] == true)
        .filter_map(|version| version["name"].as_str())
        .collect();
    let names = &spec["names"];
    let custom = Resource::custom(
        spec["group"].as_str()?,
        &versions,
        names["kind"].as_str()?,
        names["plural"].as_str()?,
    );
    Some(Resource { namespaced: spec["scope"] == "Namespaced", ..custom })
}

/// The CustomResourceDefinition of a resource, as somebody would write it.
pub(super) fn definition(resource: &Resource) -> Value {
    let versions: Vec<Value> = resource
        .versions
        .iter()
        .enumerate()
        .map(|(index, name)| {
            json!({
                "name": name, "served": true, "storage": index == 0, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            })
        })
        .collect();
    let singular = resource.kind.to_lowercase();
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": resource.full_name()},
        "spec": {
            "group": resource.group,
            "names": {
                "kind": resource.kind, "listKind": format!("{}List", resource.kind),
                "plural": resource.plural, "singular": singular,
            },
            "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
            "versions": versions,
        },
    });
    if resource.group.ends_with(".k8s.io") {
        // What a real server demands of groups of the community.
        definition["metadata"]["annotations"] =
            json!({"api-approved.kubernetes.io": "unapproved, for tests"});
    }
    definition
}
