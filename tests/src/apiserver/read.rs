//! Reading: one object, and lists in pages.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    answer::Refusal,
    call::Call,
    resource::Resource,
    selector::Selector,
    store::{Key, Store},
};

/// How an object is shown: in the version that is asked for, and perhaps without all but its metadata.
#[derive(Clone, Debug)]
pub(super) struct View {
    api_version: String,
    kind: String,
    metadata_only: bool,
}

impl View {
    pub(super) fn new(call: &Call, resource: &Resource) -> Self {
        Self {
            api_version: resource.api_version(&call.version),
            kind: resource.kind.clone(),
            metadata_only: call.wants_metadata(),
        }
    }

    pub(super) fn show(&self, object: &Value) -> Value {
        if self.metadata_only {
            return json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            });
        }
        let mut shown = object.clone();
        shown["apiVersion"] = json!(self.api_version);
        shown["kind"] = json!(self.kind);
        shown
    }

    /// An object without content, for bookmarks.
    pub(super) fn empty(&self, revision: u64, end_of_initial_events: bool) -> Value {
        let metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        let mut object = self.show(&json!({"metadata": metadata}));
        if end_of_initial_events {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        object
    }

    fn list_kind(&self) -> (String, String) {
        if self.metadata_only {
            ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
        } else {
            (format!("{}List", self.kind), self.api_version.clone())
        }
    }
}

pub(super) fn selector(call: &Call, resource: &Resource) -> Result<Selector, Refusal> {
    Selector::parse(call.param("labelSelector"), call.param("fieldSelector"), resource)
        .map_err(Refusal::bad)
}

/// One object.
pub(super) fn get(store: &Store, call: &Call, resource: &Resource) -> Result<Value, Refusal> {
    let object = store.get(&key(call, resource));
    let object = object.ok_or_else(|| Refusal::not_found(&resource.full_name(), &call.name))?;
    Ok(View::new(call, resource).show(&object))
}

pub(super) fn key(call: &Call, resource: &Resource) -> Key {
    Key {
        resource: resource.full_name(),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
    }
}

/// A page of a list. All pages of a list are of the same revision.
pub(super) fn list(store: &Store, call: &Call, resource: &Resource) -> Result<Value, Refusal> {
    let selector = selector(call, resource)?;
    let limit = call.number("limit")?.filter(|limit| *limit > 0);
    let (revision, after) = match call.param("continue") {
        "" => (wanted_revision(store, call)?, None),
        token => read_token(token)?,
    };
    let all = store.list_at(&resource.full_name(), revision)?;
    let in_namespace = |key: &Key| call.namespace.is_empty() || key.namespace == call.namespace;
    let is_new = |key: &Key| {
        after
            .as_ref()
            .is_none_or(|(namespace, name)| (&key.namespace, &key.name) > (namespace, name))
    };
    let mut rest = all
        .into_iter()
        .filter(|(key, object)| in_namespace(key) && is_new(key) && selector.admits(object));
    let page: Vec<(Key, Arc<Value>)> = match limit {
        Some(limit) => rest.by_ref().take(limit as usize).collect(),
        None => rest.by_ref().collect(),
    };
    let remaining = rest.count();
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some((last, _)) = page.last().filter(|_| remaining > 0) {
        metadata["continue"] = json!(format!("{revision} {} {}", last.namespace, last.name));
        metadata["remainingItemCount"] = json!(remaining);
    }
    let view = View::new(call, resource);
    let items: Vec<Value> = page
        .iter()
        .map(|(_, object)| {
            let mut item = view.show(object);
            // As a real server writes the items of lists of its own kinds.
            if resource.built_in
                && !view.metadata_only
                && let Some(item) = item.as_object_mut()
            {
                item.remove("apiVersion");
                item.remove("kind");
            }
            item
        })
        .collect();
    let (kind, api_version) = view.list_kind();
    Ok(json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items}))
}

/// The revision that a list is to be of.
fn wanted_revision(store: &Store, call: &Call) -> Result<u64, Refusal> {
    let wanted = call.number("resourceVersion")?.unwrap_or(0);
    if wanted > store.revision {
        let message = format!("Too large resource version: {wanted}, current: {}", store.revision);
        return Err(Refusal::new(504, "Timeout", message));
    }
    let exact = call.param("resourceVersionMatch") == "Exact";
    Ok(if exact && wanted > 0 { wanted } else { store.revision })
}

fn read_token(token: &str) -> Result<(u64, Option<(String, String)>), Refusal> {
    let mut parts = token.splitn(3, ' ').map(str::to_owned);
    let read = || Some((parts.next()?.parse().ok()?, Some((parts.next()?, parts.next()?))));
    let mut read = read;
    read().ok_or_else(|| Refusal::bad("continue key is not valid"))
}
