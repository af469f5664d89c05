//! What has come of a state, until all of it has.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::Value;
use undermesh_model::NamespacedName;

use super::{
    catalogue::{TYPE_URL, resource_name, version},
    proto::{DeltaDiscoveryResponse, Object, Resource},
};
use crate::{
    kinds::Kind,
    kubernetes::{
        entry::Entry,
        slot::SlotId,
        state::{Content, State},
    },
};

/// Resources that one state may bring, and names that it may take away.
const MAX_CHANGES: usize = 500_000;

/// Changes that are not in force yet.
#[derive(Default)]
pub(super) struct Received(Vec<One>);

enum One {
    There { kind: &'static Kind, name: NamespacedName, entry: Entry },
    Gone { kind: &'static Kind, name: NamespacedName },
}

impl Received {
    /// Adds what a response says.
    ///
    /// # Errors
    /// Where it says what makes no sense: of such a sender, nothing is to be put in force.
    pub(super) fn add(
        &mut self,
        response: DeltaDiscoveryResponse,
        state: &State,
    ) -> Result<(), String> {
        let more = response.resources.len() + response.removed_resources.len();
        if self.0.len() + more > MAX_CHANGES {
            return Err(format!("a state of more than {MAX_CHANGES} changes"));
        }
        for name in &response.removed_resources {
            let (kind, name) = parts(name)?;
            self.0.extend(Kind::find(kind).map(|kind| One::Gone { kind, name }));
        }
        for resource in response.resources {
            self.0.extend(read(resource, state)?);
        }
        Ok(())
    }

    /// Each change in words.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |one: &One| {
            let (sign, kind, name) = match one {
                One::There { kind, name, .. } => ('+', kind, name),
                One::Gone { kind, name } => ('-', kind, name),
            };
            let NamespacedName { namespace, name } = name;
            format!("{sign}{}", resource_name(kind.description.kind, namespace, name))
        };
        self.0.iter().map(line).collect()
    }

    /// Puts it into a state; the number of objects in each list that has changed.
    pub(super) fn apply(self, state: &mut State) -> BTreeMap<SlotId, usize> {
        let mut counts = BTreeMap::new();
        for one in self.0 {
            let kind = match &one {
                One::There { kind, .. } | One::Gone { kind, .. } => *kind,
            };
            let id = list_of(kind);
            let empty = || Content { kind, entries: BTreeMap::new(), complete: true };
            state.lists.entry(id.clone()).or_insert_with(empty);
            let count = match one {
                One::There { name, entry, .. } => state.insert(&id, name, entry),
                One::Gone { name, .. } => state.remove(&id, &name),
            };
            counts.insert(id, count.unwrap_or_default());
        }
        counts
    }
}

/// The list that objects of a kind are in.
fn list_of(kind: &Kind) -> SlotId {
    SlotId::new(&kind.description.kind.to_lowercase())
}

/// Kind, namespace and name.
fn parts(name: &str) -> Result<(&str, NamespacedName), String> {
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(namespace), Some(name), None) if !name.is_empty() => {
            Ok((kind, NamespacedName::new(namespace, name)))
        }
        _ => Err(format!("{name:?} is no name of a resource")),
    }
}

/// Reads a resource; nothing, where it is of a kind that this version does not read.
fn read(resource: Resource, state: &State) -> Result<Option<One>, String> {
    let Resource { name, resource, .. } = resource;
    let (kind, named) = parts(&name)?;
    let any = resource.unwrap_or_default();
    if any.type_url != TYPE_URL {
        return Err(format!("{name} is of another type: {}", any.type_url));
    }
    let object = Object::decode(any.value).map_err(|error| format!("{name}: {error}"))?;
    // What stands there may be a secret.
    let json: Value = serde_json::from_slice(&object.json)
        .map_err(|error| format!("{name} is no JSON: {:?}", error.classify()))?;
    let is_named = |field: &str, expected: &str| {
        json["metadata"][field].as_str().unwrap_or_default() == expected
    };
    let is_itself = object.kind == kind
        && json["kind"] == *kind
        && is_named("namespace", &named.namespace)
        && is_named("name", &named.name);
    if !is_itself {
        return Err(format!("{name} is another object than its name says"));
    }
    Ok(Kind::find(kind).map(|kind| {
        let former = state.lists.get(&list_of(kind)).and_then(|list| list.entries.get(&named));
        let entry = Entry::new(kind, &json, former);
        One::There { kind, name: named, entry }
    }))
}

/// What a state holds, by name and version.
pub(super) fn versions(state: &State) -> BTreeMap<String, String> {
    let lists = state.lists.values();
    let entries = lists.flat_map(|list| list.entries.iter().map(move |entry| (list.kind, entry)));
    entries
        .map(|(kind, (name, entry))| {
            let name = resource_name(kind.description.kind, &name.namespace, &name.name);
            (name, version(&entry.raw))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::distribution::{proto::resource::Any, testing::service};

    fn resource(name: &str, kind: &str, json: &Value) -> Resource {
        let object = Object { kind: kind.to_owned(), json: json.to_string().into_bytes().into() };
        let any = Any { type_url: TYPE_URL.to_owned(), value: object.encode_to_vec().into() };
        Resource { name: name.to_owned(), version: "1".to_owned(), resource: Some(any) }
    }

    fn add(resources: Vec<Resource>, removed: &[&str]) -> Result<Received, String> {
        let removed_resources = removed.iter().map(|&name| name.to_owned()).collect();
        let mut received = Received::default();
        let response =
            DeltaDiscoveryResponse { resources, removed_resources, ..Default::default() };
        received.add(response, &State::new("a")).map(|()| received)
    }

    #[test]
    fn objects_come_and_go_and_have_the_version_that_the_controller_computes() {
        let mut state = State::new("a");
        let name = "Service/shop/service-1";
        let received = add(vec![resource(name, "Service", &service(1, 80))], &[]).unwrap();
        let counts = received.apply(&mut state);
        assert_eq!(counts, [(SlotId::new("service"), 1)].into());
        let mut catalogue = crate::distribution::catalogue::Catalogue::default();
        catalogue.put("Service", &service(1, 80));
        let (_, group) = catalogue.groups().next().unwrap();
        let theirs = group.records.values().next().unwrap().version.clone();
        assert_eq!(versions(&state), [(name.to_owned(), theirs)].into());
        let counts = add(Vec::new(), &[name, "Gadget/x/y"]).unwrap().apply(&mut state);
        assert_eq!(counts, [(SlotId::new("service"), 0)].into());
        assert!(versions(&state).is_empty());
    }

    #[test]
    fn what_is_another_object_than_it_says_is_refused_and_unknown_kinds_are_left_out() {
        let good = service(1, 80);
        let mut elsewhere = good.clone();
        elsewhere["metadata"]["namespace"] = json!("bank");
        for (name, kind, object) in [
            ("Service/shop/service-2", "Service", &good),
            ("Pod/shop/service-1", "Pod", &good),
            ("Service/shop/service-1", "Pod", &good),
            ("Service/shop/service-1", "Service", &elsewhere),
            ("Service/shop", "Service", &good),
            ("Service/shop/service-1/x", "Service", &good),
            ("Service/shop/service-1", "Service", &json!(7)),
        ] {
            assert!(add(vec![resource(name, kind, object)], &[]).is_err(), "{name} {kind}");
        }
        let mut foreign = resource("Service/shop/service-1", "Service", &good);
        foreign.resource = Some(Any { type_url: "x".to_owned(), ..Any::default() });
        assert!(add(vec![foreign], &[]).is_err());
        assert!(add(Vec::new(), &["nonsense"]).is_err());
        let gadget = json!({"kind": "Gadget", "metadata": {"namespace": "x", "name": "y"}});
        let received = add(vec![resource("Gadget/x/y", "Gadget", &gadget)], &[]).unwrap();
        assert!(received.0.is_empty());
    }
}
