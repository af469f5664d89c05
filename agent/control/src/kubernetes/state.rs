//! Everything that is known, list by list, and the cluster that comes of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use serde_json::Value;
use undermesh_model::{
    Cluster, Diagnostic, NamespacedName, PodLocation, ResourceRef, Severity, traffic::CA_SUFFIX,
};

use super::{
    entry::{Entry, Facts},
    reflector::Change,
    slot::{Slot, SlotId},
};
use crate::{
    assemble::assemble,
    kinds::Kind,
    objects::{MAX_OBJECTS, Objects, Room},
    report::Report,
    source::Loaded,
};

/// How often objects that contradict one another are looked for again, once some have been left out.
const ROUNDS: usize = 5;
/// Secrets and ConfigMaps that are watched by name.
const MAX_NAMED: usize = 512;

/// An object of a list.
type Object<'a> = (&'static Kind, &'a NamespacedName, &'a Entry);

/// One list.
pub(crate) struct Content {
    pub(crate) kind: &'static Kind,
    pub(crate) entries: BTreeMap<NamespacedName, Entry>,
    /// It has been read to its end. What is here before that comes from the cache.
    pub(crate) complete: bool,
}

/// All lists.
pub(crate) struct State {
    node: String,
    pub(crate) lists: BTreeMap<SlotId, Content>,
}

/// What other objects name, and is watched for that reason alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) config_maps: BTreeSet<NamespacedName>,
}

impl Named {
    /// The lists that are kept for it.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let secrets = self.secrets.iter().filter_map(|name| Slot::secrets(name));
        let maps = self.config_maps.iter();
        let maps = maps.filter_map(|name| Slot::config_map(&name.namespace, &name.name));
        secrets.chain(maps).collect()
    }
}

impl State {
    pub(crate) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), lists: BTreeMap::new() }
    }

    /// Makes room for a list, which may be there from the cache.
    pub(crate) fn add(&mut self, slot: &Slot) {
        if let Some(kind) = slot.kind {
            let empty = || Content { kind, entries: BTreeMap::new(), complete: false };
            self.lists.entry(slot.id.clone()).or_insert_with(empty);
        }
    }

    /// Puts an object in that has been read; the number of objects in the list afterwards.
    pub(crate) fn insert(
        &mut self,
        id: &SlotId,
        name: NamespacedName,
        entry: Entry,
    ) -> Option<usize> {
        let list = self.lists.get_mut(id)?;
        list.entries.insert(name, entry);
        Some(list.entries.len())
    }

    /// Removes an object; the number of objects in the list afterwards.
    pub(crate) fn remove(&mut self, id: &SlotId, name: &NamespacedName) -> Option<usize> {
        let list = self.lists.get_mut(id)?;
        list.entries.remove(name);
        Some(list.entries.len())
    }

    /// Puts an object in a list, as it was when it was cached, with its good version before it.
    pub(crate) fn restore(&mut self, id: SlotId, kind: &'static Kind, versions: &[Value]) {
        let list = Content { kind, entries: BTreeMap::new(), complete: false };
        let list = self.lists.entry(id).or_insert(list);
        for object in versions {
            let name = name_of(object);
            let entry = Entry::new(kind, object, list.entries.get(&name));
            list.entries.insert(name, entry);
        }
    }

    /// Takes note of a change; the number of objects in the list afterwards.
    pub(crate) fn change(&mut self, id: &SlotId, change: Change) -> Option<usize> {
        let list = self.lists.get_mut(id)?;
        match change {
            Change::Listed(objects) => {
                let former = std::mem::take(&mut list.entries);
                for object in objects {
                    let name = name_of(&object);
                    let entry = match former.get(&name) {
                        Some(same) if *same.raw == *object.to_string().as_bytes() => same.clone(),
                        former => Entry::new(list.kind, &object, former),
                    };
                    list.entries.insert(name, entry);
                }
                list.complete = true;
            }
            Change::Applied(object) => {
                let name = name_of(&object);
                let entry = Entry::new(list.kind, &object, list.entries.get(&name));
                list.entries.insert(name, entry);
            }
            Change::Deleted(object) => drop(list.entries.remove(&name_of(&object))),
            Change::Missing => {}
        }
        Some(list.entries.len())
    }

    /// Whether all of these have been read to their end.
    pub(crate) fn is_complete<'a>(&self, ids: impl IntoIterator<Item = &'a SlotId>) -> bool {
        ids.into_iter().all(|id| self.lists.get(id).is_none_or(|list| list.complete))
    }

    /// What is to be watched by name.
    pub(crate) fn named(&self) -> Named {
        let mut named = Named::default();
        for objects in self.lists.values().flat_map(|list| list.entries.values()) {
            for rule in &objects.objects.destination_rules {
                for name in rule.value.tls().filter_map(|tls| tls.credential.as_deref()) {
                    let own = name.strip_suffix(CA_SUFFIX).unwrap_or(name);
                    named.secrets.extend([own.to_owned(), format!("{own}{CA_SUFFIX}")]);
                }
            }
            for policy in &objects.objects.backend_tls_policies {
                named.config_maps.extend(policy.value.roots().cloned());
            }
        }
        named.secrets = named.secrets.into_iter().take(MAX_NAMED).collect();
        named.config_maps = named.config_maps.into_iter().take(MAX_NAMED).collect();
        named
    }

    /// Puts everything together. Objects that cannot be together are left out and reported: one mistake
    /// must not keep all else from being in force.
    pub(crate) fn load(&self) -> Loaded {
        let all: Vec<Object<'_>> = self
            .lists
            .values()
            .flat_map(|list| list.entries.iter().map(|(name, entry)| (list.kind, name, entry)))
            .collect();
        let all = once(all);
        if all.len() > MAX_OBJECTS {
            let diagnostic = Diagnostic {
                severity: Severity::Error,
                code: "too-many-objects",
                object: None,
                position: None,
                message: Room::complaint(),
                remedy: "the last state stays in force".to_owned(),
            };
            return Loaded { cluster: None, diagnostics: vec![diagnostic] };
        }
        let mut findings: Vec<Diagnostic> =
            all.iter().flat_map(|(.., entry)| entry.findings.iter().cloned()).collect();
        let mut left_out: BTreeSet<ResourceRef> = BTreeSet::new();
        let mut complaints = Vec::new();
        for _ in 0..ROUNDS {
            let mut report = Report::default();
            let cluster = self.assemble(&all, &left_out, &mut report);
            let bad: BTreeSet<ResourceRef> = report
                .diagnostics()
                .iter()
                .filter(|found| found.severity == Severity::Error)
                .filter_map(|found| found.object.clone())
                .filter(|object| !left_out.contains(object))
                .collect();
            let had_errors = report.has_errors();
            let found = report.into_diagnostics();
            if bad.is_empty() {
                findings.extend(complaints);
                findings.extend(found);
                return Loaded { cluster: (!had_errors).then_some(cluster), diagnostics: findings };
            }
            complaints.extend(found.into_iter().filter(|one| one.severity == Severity::Error));
            complaints.extend(bad.iter().map(left_out_finding));
            left_out.extend(bad);
        }
        findings.extend(complaints);
        Loaded { cluster: None, diagnostics: findings }
    }

    fn assemble(
        &self,
        all: &[Object<'_>],
        left_out: &BTreeSet<ResourceRef>,
        report: &mut Report,
    ) -> Cluster {
        let mut objects = Objects::default();
        let mut pods = Vec::new();
        for (kind, name, entry) in all {
            let before = objects.pods.len();
            if left_out.is_empty() || !left_out.contains(&origin(kind, name)) {
                objects.absorb(&entry.objects);
            } else {
                objects.absorb(&entry.without(kind));
            }
            pods.extend((before..objects.pods.len()).map(|_| &entry.facts));
        }
        self.place(&mut objects, &pods, report);
        assemble(objects, report)
    }

    /// Says where this node's pods run, whatever they say themselves: their authors may write annotations,
    /// and must not say whose namespace is theirs. An address that two pods have is the newer one's.
    fn place(&self, objects: &mut Objects, facts: &[&Facts], report: &mut Report) {
        let mut owners: HashMap<IpAddr, usize> = HashMap::new();
        // Static pods run under their hash. Nobody may claim another's uid so, nor two the same hash.
        let mut claims: HashMap<String, usize> = HashMap::new();
        for (index, pod) in objects.pods.iter().enumerate() {
            for claim in pod.value.static_pod.iter().chain([&facts[index].uid]) {
                *claims.entry(claim.clone()).or_default() += 1;
            }
            let workload = &pod.value.workload;
            if workload.terminated || workload.host_network {
                continue;
            }
            for address in &workload.addresses {
                let age = |index: usize| (&facts[index].created, &facts[index].uid);
                owners
                    .entry(*address)
                    .and_modify(|owner| {
                        if age(index) > age(*owner) {
                            *owner = index;
                        }
                    })
                    .or_insert(index);
            }
        }
        for (index, pod) in objects.pods.iter_mut().enumerate() {
            let here = pod.value.workload.node.as_ref() == Some(&self.node);
            let uid = pod.value.static_pod.clone().filter(|hash| claims.get(hash) == Some(&1));
            let uid = uid.unwrap_or_else(|| facts[index].uid.clone());
            let subject = pod.subject();
            let workload = &mut pod.value.workload;
            workload.location = (here && !uid.is_empty()).then_some(PodLocation::Uid(uid));
            if workload.terminated || workload.host_network {
                continue;
            }
            workload.addresses.retain(|address| {
                let is_owner = owners.get(address) == Some(&index);
                if !is_owner {
                    let message = format!("its address {address} belongs to a newer pod");
                    let remedy = "none is needed where the pod is about to go";
                    report.warning(&subject, &[], "duplicate-address", message, remedy);
                }
                is_owner
            });
        }
    }
}

/// A pod that is scheduled comes to one list before it has left the other, and may be in both for as long as
/// the server is away: the newer one counts, and of the same one that of this node, which comes last.
fn once<'a>(mut all: Vec<Object<'a>>) -> Vec<Object<'a>> {
    let mut newest: HashMap<&NamespacedName, &'a Facts> = HashMap::new();
    let is_pod = |kind: &Kind| kind.description.kind == "Pod";
    for (kind, name, entry) in &all {
        if is_pod(kind) {
            let newest = newest.entry(name).or_insert(&entry.facts);
            if entry.facts.created >= newest.created {
                *newest = &entry.facts;
            }
        }
    }
    all.retain(|(kind, name, entry)| {
        !is_pod(kind) || newest.get(name).is_some_and(|facts| std::ptr::eq(*facts, &entry.facts))
    });
    all
}

fn origin(kind: &Kind, name: &NamespacedName) -> ResourceRef {
    let NamespacedName { namespace, name } = name;
    if kind.description.namespaced {
        ResourceRef::namespaced(kind.description.kind, namespace, name)
    } else {
        ResourceRef::cluster_scoped(kind.description.kind, name)
    }
}

fn left_out_finding(object: &ResourceRef) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: "object-left-out",
        object: Some(object.clone()),
        position: None,
        message: "cannot be in force beside the others, and is left out".to_owned(),
        remedy: "correct what is said of it".to_owned(),
    }
}

fn name_of(object: &Value) -> NamespacedName {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    NamespacedName::new(text("namespace"), text("name"))
}

#[cfg(test)]
mod tests;
