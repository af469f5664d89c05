//! Finds the NetworkPolicies among the manifests.

use std::path::{Path, PathBuf};

use k8s_openapi::{
    api::networking::v1::NetworkPolicySpec, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Deserialize;
use undermesh_model::ResourceRef;

use crate::{
    documents::split,
    files,
    node::{Node, Value},
};

const KIND: &str = "NetworkPolicy";
/// Policies that are read; the rest would not change what a person does next.
const MAX_POLICIES: usize = 10_000;

/// The object as it is written. The library's type insists on `kind` and `apiVersion`, which the
/// items of a typed list leave out.
#[derive(Deserialize)]
struct NetworkPolicy {
    metadata: ObjectMeta,
    spec: Option<NetworkPolicySpec>,
}

/// A policy, its name, and the line that it begins at.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) origin: ResourceRef,
    pub(super) line: usize,
    pub(super) spec: NetworkPolicySpec,
}

/// Every policy of a directory. What cannot be read is left out: the API server would not have
/// taken it, and the source reports files that are no YAML.
pub(super) fn policies(dir: &Path) -> Vec<Policy> {
    in_texts(&files::read(dir).texts).into_iter().map(|(_, policy)| policy).collect()
}

/// Every policy in some files, with its file.
pub(super) fn in_texts(texts: &[(PathBuf, String)]) -> Vec<(&Path, Policy)> {
    let mut found = Vec::new();
    for (file, text) in texts {
        found.extend(in_text(text).into_iter().map(|policy| (file.as_path(), policy)));
        found.truncate(MAX_POLICIES);
    }
    found
}

/// The policies in one file.
pub(super) fn in_text(text: &str) -> Vec<Policy> {
    let documents = split(text).into_iter().filter(|document| document.text.contains(KIND));
    let nodes = documents.filter_map(|it| Node::parse(it.text, it.lines_before).ok());
    nodes.flat_map(|node| objects(&node).iter().filter_map(policy).collect::<Vec<_>>()).collect()
}

/// A list's items, or the one object that a document is.
fn objects(node: &Node) -> &[Node] {
    match node.get("items").map(|items| &items.value) {
        Some(Value::List(items)) => items,
        _ => std::slice::from_ref(node),
    }
}

fn policy(node: &Node) -> Option<Policy> {
    // The items of a NetworkPolicyList need not say what they are.
    let kind = node.get("kind").map(|kind| &kind.value);
    if kind.is_some_and(|kind| *kind != Value::Text(KIND.to_owned())) {
        return None;
    }
    let policy = node.read::<NetworkPolicy>().ok()?;
    let namespace = policy.metadata.namespace.unwrap_or_else(|| "default".to_owned());
    let origin = ResourceRef::namespaced(KIND, namespace, policy.metadata.name?);
    Some(Policy { origin, line: node.line, spec: policy.spec? })
}
