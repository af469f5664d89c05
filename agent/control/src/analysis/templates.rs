//! Pods that are still to be made: the templates of Deployments and their like, as far as selectors and
//! service accounts go. A repository of manifests rarely has a Pod in it.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    documents::split,
    node::{Node, Value},
};

const CONTROLLERS: [&str; 6] =
    ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"];

/// The field that all of them have.
const TEMPLATE: &str = "template";

/// Labels of pods, with the namespace that they will be in.
#[derive(Clone, Debug, Default)]
pub(super) struct Templates(pub(super) Vec<(String, BTreeMap<String, String>)>);

impl Templates {
    /// The templates in some files. What cannot be read is left out; a source says so.
    pub(super) fn read(texts: &[(PathBuf, String)]) -> Self {
        let documents = texts.iter().flat_map(|(_, text)| split(text));
        let documents = documents.filter(|it| it.text.contains(TEMPLATE));
        let nodes = documents.filter_map(|it| Node::parse(it.text, it.lines_before).ok());
        let mut found = Vec::new();
        for node in nodes {
            match node.get("items").map(|items| &items.value) {
                Some(Value::List(items)) => found.extend(items.iter().filter_map(template)),
                _ => found.extend(template(&node)),
            }
        }
        Self(found)
    }
}

fn template(object: &Node) -> Option<(String, BTreeMap<String, String>)> {
    let kind = text(object.get("kind")?)?;
    if !CONTROLLERS.contains(&kind) {
        return None;
    }
    let mut spec = object.get("spec")?;
    if kind == "CronJob" {
        spec = spec.get("jobTemplate")?.get("spec")?;
    }
    let metadata = spec.get(TEMPLATE)?.get("metadata");
    let labels = metadata.and_then(|own| own.get("labels")).map(|labels| &labels.value);
    let labels = match labels {
        Some(Value::Map(entries)) => entries
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), text(value)?.to_owned())))
            .collect(),
        _ => BTreeMap::new(),
    };
    let namespace = object.get("metadata").and_then(|own| own.get("namespace")).and_then(text);
    Some((namespace.unwrap_or("default").to_owned(), labels))
}

fn text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}
