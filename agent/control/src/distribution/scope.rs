//! What decides how much a node has to know: its pods, and how far they reach.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    enrolment,
    report::{Report, Subject},
};

/// What a node's agent says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// The node.
    pub(super) node: String,
    /// The namespace whose policies are about the whole mesh, for this agent.
    pub(super) root: String,
    /// Its pods reach nothing that is not registered, so that it need not know what they may not reach.
    pub(super) narrow: bool,
}

/// How much a node has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) node: String,
    pub(super) root: String,
    /// Namespaces of its pods that are in the mesh.
    pub(super) local: BTreeSet<String>,
    /// Namespaces of all of its pods.
    pub(super) homes: BTreeSet<String>,
    /// Namespaces that they may reach; `None` for all.
    pub(super) reach: Option<BTreeSet<String>>,
}

impl Scope {
    pub(super) fn reaches(&self, namespace: &str) -> bool {
        match &self.reach {
            _ if self.local.is_empty() => false,
            None => true,
            Some(namespaces) => namespaces.contains(namespace),
        }
    }
}

/// What scopes are made of. Every change of it has a number, so that nobody computes his scope in vain.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Pods of each node.
    nodes: BTreeMap<String, Home>,
    /// The node of each pod that has one.
    pods: BTreeMap<(String, String), String>,
    /// Namespaces that enrol their pods.
    enrolled: BTreeSet<String>,
    sidecars: BTreeMap<(String, String), Sidecar>,
    /// When a namespace or Sidecar has changed last.
    changed: u64,
}

#[derive(Debug, Default)]
struct Home {
    pods: BTreeMap<(String, String), Resident>,
    changed: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Resident {
    uid: String,
    /// What its own labels say about the mesh.
    choice: Option<bool>,
    ended: bool,
}

/// What a Sidecar says about what pods of its namespace reach.
#[derive(Debug, PartialEq, Eq)]
struct Sidecar {
    /// It is about some pods alone.
    selects: bool,
    /// `None` for everything.
    namespaces: Option<BTreeSet<String>>,
}

impl Places {
    /// Takes note of an object that is there, or is no more.
    pub(super) fn note(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        object: Option<&Value>,
        at: u64,
    ) {
        let key = || (namespace.to_owned(), name.to_owned());
        match kind {
            "Pod" => self.pod(key(), object, at),
            "Namespace" => {
                let enrols = object.and_then(choice) == Some(true);
                let changed = match enrols {
                    true => self.enrolled.insert(name.to_owned()),
                    false => self.enrolled.remove(name),
                };
                if changed {
                    self.changed = at;
                }
            }
            "Sidecar" => {
                let former = match object.map(|object| Sidecar::read(namespace, object)) {
                    Some(sidecar) if self.sidecars.get(&key()) == Some(&sidecar) => return,
                    Some(sidecar) => self.sidecars.insert(key(), sidecar),
                    None => self.sidecars.remove(&key()),
                };
                drop(former);
                self.changed = at;
            }
            _ => {}
        }
    }

    fn pod(&mut self, key: (String, String), object: Option<&Value>, at: u64) {
        let node = object.and_then(|object| object["spec"]["nodeName"].as_str());
        let node = node.filter(|node| !node.is_empty()).map(str::to_owned);
        let former = match &node {
            Some(node) => self.pods.insert(key.clone(), node.clone()),
            None => self.pods.remove(&key),
        };
        if let Some(former) = former.filter(|former| Some(former) != node.as_ref())
            && let Some(home) = self.nodes.get_mut(&former)
        {
            home.pods.remove(&key);
            home.changed = at;
            if home.pods.is_empty() {
                self.nodes.remove(&former);
            }
        }
        let (Some(node), Some(object)) = (node, object) else { return };
        let phase = object["status"]["phase"].as_str();
        let resident = Resident {
            uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            choice: choice(object),
            ended: matches!(phase, Some("Succeeded" | "Failed")),
        };
        let home = self.nodes.entry(node).or_default();
        if home.pods.get(&key) != Some(&resident) {
            home.pods.insert(key, resident);
            home.changed = at;
        }
    }

    /// When what a node's scope follows from has changed last. Of a node without pods, nothing is known.
    pub(super) fn changed(&self, node: &str) -> Option<u64> {
        Some(self.nodes.get(node)?.changed.max(self.changed))
    }

    /// Whether a pod, with this UID, runs on a node.
    pub(super) fn is_on(&self, node: &str, namespace: &str, name: &str, uid: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let resident = self.nodes.get(node).and_then(|home| home.pods.get(&key));
        resident.is_some_and(|resident| resident.uid == uid && !resident.ended)
    }

    /// How much a node has to know.
    pub(super) fn scope(&self, terms: &Terms) -> Scope {
        let mut scope =
            Scope { node: terms.node.clone(), root: terms.root.clone(), ..Scope::default() };
        let pods = self.nodes.get(&terms.node).map(|home| &home.pods);
        for ((namespace, _), resident) in pods.into_iter().flatten() {
            scope.homes.insert(namespace.clone());
            let is_in = resident.choice.unwrap_or_else(|| self.enrolled.contains(namespace));
            if is_in && !resident.ended {
                scope.local.insert(namespace.clone());
            }
        }
        if terms.narrow {
            scope.reach = self.reach(&scope.local, &terms.root);
        }
        scope
    }

    /// Namespaces that pods of these may reach. A namespace of which no Sidecar says it reaches everything, as does
    /// one of which only some pods are spoken for.
    fn reach(&self, local: &BTreeSet<String>, root: &str) -> Option<BTreeSet<String>> {
        let mut reach = local.clone();
        for namespace in local {
            let of = |namespace: &str| {
                let from = (namespace.to_owned(), String::new());
                let namespace = namespace.to_owned();
                self.sidecars
                    .range(from..)
                    .take_while(move |((own, _), _)| *own == namespace)
                    .map(|(_, sidecar)| sidecar)
            };
            let whole =
                of(namespace).find(|it| !it.selects).or_else(|| of(root).find(|it| !it.selects));
            let some = of(namespace).filter(|it| it.selects);
            reach.extend(whole?.namespaces.clone()?);
            for sidecar in some {
                reach.extend(sidecar.namespaces.clone()?);
            }
        }
        Some(reach)
    }
}

impl Sidecar {
    /// What cannot be read reaches everything.
    fn read(namespace: &str, object: &Value) -> Self {
        let spec = &object["spec"];
        let mut namespaces = Some(BTreeSet::from([namespace.to_owned()]));
        let egress = spec["egress"].as_array().filter(|list| !list.is_empty());
        for listener in egress.map(Vec::as_slice).unwrap_or(&[Value::Null]) {
            let hosts = listener["hosts"].as_array().filter(|hosts| !hosts.is_empty());
            for host in hosts.map(Vec::as_slice).unwrap_or(&[Value::Null]) {
                match host.as_str().and_then(|host| host.split_once('/')) {
                    Some(("." | "~", _)) => {}
                    Some(("*", _)) | None => namespaces = None,
                    Some((name, _)) => {
                        if let Some(all) = &mut namespaces {
                            all.insert(name.to_owned());
                        }
                    }
                }
            }
        }
        Self { selects: !spec["workloadSelector"].is_null(), namespaces }
    }
}

/// What an object's labels say about the mesh.
fn choice(object: &Value) -> Option<bool> {
    let labels = object["metadata"]["labels"].as_object()?;
    let labels = labels
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect();
    // What there is to say about them, agents say.
    enrolment::choice(&labels, &Subject::nobody(), &mut Report::default())
        .map(|choice| choice.enrols())
}

#[cfg(test)]
mod tests;
