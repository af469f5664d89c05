//! Writing: create, update, delete, with what a real server insists on.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    answer::Refusal,
    apply,
    call::Call,
    discovery,
    read::{self, View},
    resource::Resource,
    store::{self, Key, Store},
};

/// Fields of metadata that nobody but the server writes.
const SERVERS_OWN: [&str; 4] = ["uid", "creationTimestamp", "generation", "deletionTimestamp"];

/// `POST`.
pub(super) fn create(
    store: &mut Store,
    call: &Call,
    resource: &Resource,
    object: Value,
) -> Result<Value, Refusal> {
    let mut object = checked(object, call, resource)?;
    let metadata = &mut object["metadata"];
    if metadata["name"].as_str().is_none_or(str::is_empty)
        && let Some(prefix) = metadata["generateName"].as_str()
    {
        metadata["name"] = json!(format!("{prefix}{:05x}", store.revision));
    }
    let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) else {
        return Err(Refusal::invalid(format!("{}: metadata.name: Required value", resource.kind)));
    };
    let key = Key { name: name.to_owned(), ..read::key(call, resource) };
    if resource.namespaced {
        let namespace = Key {
            resource: "namespaces".to_owned(),
            namespace: String::new(),
            name: call.namespace.clone(),
        };
        if store.get(&namespace).is_none() {
            return Err(Refusal::not_found("namespaces", &call.namespace));
        }
    }
    if let Some(there) = store.get(&key) {
        let message = format!("{} {:?} already exists", resource.full_name(), key.name);
        drop(there);
        return Err(Refusal::new(409, "AlreadyExists", message));
    }
    for name in SERVERS_OWN {
        remove(&mut object["metadata"], name);
    }
    object["metadata"]["generation"] = json!(1);
    if resource.status && !resource.built_in {
        remove(&mut object, "status");
    }
    Ok(View::new(call, resource).show(&save(store, key, object, resource)))
}

/// `PUT`, also of a status.
pub(super) fn update(
    store: &mut Store,
    call: &Call,
    resource: &Resource,
    object: Value,
) -> Result<Value, Refusal> {
    let object = checked(object, call, resource)?;
    let key = read::key(call, resource);
    let before = existing(store, call, resource)?;
    let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if revision.is_empty() && !resource.built_in {
        return Err(Refusal::invalid(
            "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update",
        ));
    }
    if !revision.is_empty() && before["metadata"]["resourceVersion"] != revision {
        return Err(Refusal::conflict(&resource.full_name(), &call.name));
    }
    Ok(View::new(call, resource).show(&replace(store, key, &before, object, call, resource)))
}

/// Puts a new state in the place of a former one, as far as the address that was written to allows.
pub(super) fn replace(
    store: &mut Store,
    key: Key,
    before: &Value,
    mut object: Value,
    call: &Call,
    resource: &Resource,
) -> Arc<Value> {
    if call.subresource == "status" {
        let mut whole = before.clone();
        whole["status"] = object["status"].take();
        if !object["metadata"]["managedFields"].is_null() {
            whole["metadata"]["managedFields"] = object["metadata"]["managedFields"].take();
        }
        object = whole;
    } else {
        for name in SERVERS_OWN {
            object["metadata"][name] = before["metadata"][name].clone();
        }
        if resource.status {
            object["status"] = before["status"].clone();
        }
        if object["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(1);
            object["metadata"]["generation"] = json!(generation + 1);
        }
    }
    without_nulls(&mut object);
    object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    if same(&object, before) {
        // Nothing has changed, and nobody is told.
        return Arc::new(before.clone());
    }
    let deleted = !object["metadata"]["deletionTimestamp"].is_null();
    if deleted && !has_finalizers(&object) {
        let last = store.remove(&key);
        return last.unwrap_or_else(|| Arc::new(object));
    }
    save(store, key, object, resource)
}

/// `DELETE` of one object.
pub(super) fn delete(
    store: &mut Store,
    call: &Call,
    resource: &Resource,
) -> Result<Value, Refusal> {
    let before = existing(store, call, resource)?;
    let options = if call.body.is_empty() { Value::Null } else { call.object()? };
    for field in ["uid", "resourceVersion"] {
        let wanted = &options["preconditions"][field];
        if !wanted.is_null() && *wanted != before["metadata"][field] {
            return Err(Refusal::conflict(&resource.full_name(), &call.name));
        }
    }
    Ok(View::new(call, resource).show(&discard(store, read::key(call, resource), resource)))
}

/// `DELETE` of all that is listed.
pub(super) fn delete_all(
    store: &mut Store,
    call: &Call,
    resource: &Resource,
) -> Result<Value, Refusal> {
    let selector = read::selector(call, resource)?;
    let keys = store.keys(|key| {
        key.resource == resource.full_name()
            && (call.namespace.is_empty() || key.namespace == call.namespace)
    });
    for key in keys {
        if store.get(&key).is_some_and(|object| selector.admits(&object)) {
            discard(store, key, resource);
        }
    }
    Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
}

/// Removes an object, or marks it where somebody has to tidy up before.
pub(super) fn discard(store: &mut Store, key: Key, resource: &Resource) -> Arc<Value> {
    let Some(before) = store.get(&key) else { return Arc::new(Value::Null) };
    if has_finalizers(&before) {
        if !before["metadata"]["deletionTimestamp"].is_null() {
            return before;
        }
        let mut object = Value::clone(&before);
        object["metadata"]["deletionTimestamp"] = json!(store::now());
        return save(store, key, object, resource);
    }
    if resource.kind == "Namespace" && resource.group.is_empty() {
        for inner in store.keys(|one| one.namespace == key.name) {
            store.remove(&inner);
        }
    }
    if resource.kind == "CustomResourceDefinition"
        && let Some(custom) = discovery::of_definition(&before)
    {
        for inner in store.keys(|one| one.resource == custom.full_name()) {
            store.remove(&inner);
        }
        store.resources.retain(|one| one.full_name() != custom.full_name());
    }
    store.remove(&key).unwrap_or(before)
}

/// Stores an object; a CustomResourceDefinition adds its resource.
pub(super) fn save(
    store: &mut Store,
    key: Key,
    mut object: Value,
    resource: &Resource,
) -> Arc<Value> {
    if resource.kind == "CustomResourceDefinition"
        && let Some(custom) = discovery::of_definition(&object)
    {
        store.resources.retain(|one| one.full_name() != custom.full_name());
        store.resources.push(custom);
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "Test"});
        object["status"] =
            json!({"conditions": [condition("NamesAccepted"), condition("Established")]});
    }
    store.put(key, object)
}

pub(super) fn existing(
    store: &Store,
    call: &Call,
    resource: &Resource,
) -> Result<Arc<Value>, Refusal> {
    store
        .get(&read::key(call, resource))
        .ok_or_else(|| Refusal::not_found(&resource.full_name(), &call.name))
}

/// What is written has to be what the address says.
pub(super) fn checked(
    mut object: Value,
    call: &Call,
    resource: &Resource,
) -> Result<Value, Refusal> {
    if !object["metadata"].is_object() {
        return Err(Refusal::bad("the object has no metadata"));
    }
    let api_version = resource.api_version(&call.version);
    for (field, expected) in [("kind", &resource.kind), ("apiVersion", &api_version)] {
        if object[field].is_null() {
            object[field] = json!(expected);
        } else if object[field] != **expected {
            let found = &object[field];
            return Err(Refusal::bad(format!("{field} is {found} instead of {expected:?}")));
        }
    }
    let metadata = &mut object["metadata"];
    for (field, expected) in [("name", &call.name), ("namespace", &call.namespace)] {
        if metadata[field].is_null() {
            if !expected.is_empty() {
                metadata[field] = json!(expected);
            }
        } else if !expected.is_empty() && metadata[field] != **expected {
            let message =
                format!("the {field} of the object ({}) does not match the URL", metadata[field]);
            return Err(Refusal::bad(message));
        }
    }
    Ok(object)
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

fn remove(object: &mut Value, field: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(field);
    }
}

/// Fields that were set to nothing are not there.
fn without_nulls(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| !value.is_null());
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null());
    }
}

/// Whether two states say the same, whenever their fields were last managed.
fn same(one: &Value, other: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        without_nulls(&mut object);
        apply::forget_times(&mut object);
        object
    };
    bare(one) == bare(other)
}
