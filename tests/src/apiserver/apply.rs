//! Server-side apply: who has set a field, and what becomes of fields that somebody sets no more. Lists of
//! objects with a `type`, a `name` or a `uid` are maps by that; all others are one value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    answer::Refusal,
    call::Call,
    read::{self, View},
    resource::Resource,
    store::{self, Store},
    write,
};

/// Where a field is: keys, and `type=Ready` for items of lists.
type Path = Vec<String>;

/// `PATCH` with `application/apply-patch+yaml`.
pub(super) fn apply(
    store: &mut Store,
    call: &Call,
    resource: &Resource,
    wanted: Value,
) -> Result<(u16, Value), Refusal> {
    let manager = call.param("fieldManager");
    if manager.is_empty() {
        return Err(Refusal::bad("fieldManager: Required value: is required for apply patch"));
    }
    let wanted = write::checked(wanted, call, resource)?;
    if !wanted["metadata"]["managedFields"].is_null() {
        return Err(Refusal::bad("metadata.managedFields must be nil"));
    }
    let mut leaves = BTreeMap::new();
    collect(&wanted, &mut Vec::new(), &mut leaves);
    leaves.retain(|path, _| is_owned(path, &call.subresource));
    let Some(before) = store.get(&read::key(call, resource)) else {
        if !call.subresource.is_empty() {
            return Err(Refusal::not_found(&resource.full_name(), &call.name));
        }
        let mut object = wanted;
        let owners = BTreeMap::from([(owner(manager, call), leaves.into_keys().collect())]);
        write_owners(&mut object, &owners, call, resource);
        return write::create(store, call, resource, object).map(|created| (201, created));
    };
    let mut owners = read_owners(&before);
    let own = owner(manager, call);
    conflicts(&before, &leaves, &owners, &own, call)?;
    let mut object = View::new(call, resource).show(&before);
    let former = owners.remove(&own).unwrap_or_default();
    for path in former.iter().filter(|path| !leaves.contains_key(*path)) {
        if !owners.values().any(|paths| paths.contains(path)) {
            unset(&mut object, path);
        }
    }
    for (path, value) in &leaves {
        // Nothing in a list or a map takes nothing from what others have put there.
        if is_empty(value)
            && at(&before, path).is_some_and(|there| there.is_object() || there.is_array())
        {
            continue;
        }
        set(&mut object, path, value);
        // Who is overruled owns it no more.
        if call.is("force") && !same(at(&before, path), value) {
            owners.values_mut().for_each(|paths| {
                paths.remove(path);
            });
        }
    }
    owners.insert(own, leaves.into_keys().collect());
    write_owners(&mut object, &owners, call, resource);
    let key = read::key(call, resource);
    let stored = write::replace(store, key, &before, object, call, resource);
    Ok((200, View::new(call, resource).show(&stored)))
}

/// When fields were last managed is no news.
pub(super) fn forget_times(object: &mut Value) {
    for entry in object["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
        entry["time"] = Value::Null;
    }
}

type Owner = (String, String);
type Owners = BTreeMap<Owner, BTreeSet<Path>>;

fn owner(manager: &str, call: &Call) -> Owner {
    (manager.to_owned(), call.subresource.clone())
}

/// What says which object it is belongs to nobody.
fn is_owned(path: &Path, subresource: &str) -> bool {
    let first = path.first().map(String::as_str).unwrap_or_default();
    let second = path.get(1).map(String::as_str).unwrap_or_default();
    let identity = matches!(first, "apiVersion" | "kind")
        || (first == "metadata" && matches!(second, "name" | "namespace" | "resourceVersion"));
    !identity && ((first == "status") == (subresource == "status"))
}

fn conflicts(
    before: &Value,
    leaves: &BTreeMap<Path, Value>,
    owners: &Owners,
    own: &Owner,
    call: &Call,
) -> Result<(), Refusal> {
    if call.is("force") {
        return Ok(());
    }
    for ((manager, _), paths) in owners.iter().filter(|(owner, _)| *owner != own) {
        let taken = paths
            .iter()
            .find(|path| leaves.get(*path).is_some_and(|value| !same(at(before, path), value)));
        if let Some(path) = taken {
            let message = format!(
                "Apply failed with 1 conflict: conflict with {manager:?}: .{}",
                path.join(".")
            );
            return Err(Refusal::new(409, "Conflict", message));
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

fn same(there: Option<&Value>, value: &Value) -> bool {
    there == Some(value)
}

/// The name of a list's items, where they have one.
fn item_key(list: &[Value]) -> Option<&'static str> {
    let keys = ["type", "name", "uid"];
    keys.into_iter().find(|key| !list.is_empty() && list.iter().all(|item| item[*key].is_string()))
}

fn collect(value: &Value, path: &mut Path, leaves: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                path.push(name.clone());
                collect(value, path, leaves);
                path.pop();
            }
        }
        Value::Array(list) if item_key(list).is_some() => {
            let key = item_key(list).unwrap_or_default();
            for item in list {
                path.push(format!("{key}={}", item[key].as_str().unwrap_or_default()));
                collect(item, path, leaves);
                path.pop();
            }
        }
        value => drop(leaves.insert(path.clone(), value.clone())),
    }
}

fn at<'a>(object: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match value {
        Value::Array(list) => {
            let (key, name) = step.split_once('=')?;
            list.iter().find(|item| item[key] == *name)
        }
        value => value.get(step),
    })
}

fn set(object: &mut Value, path: &[String], value: &Value) {
    let [step, rest @ ..] = path else {
        *object = value.clone();
        return;
    };
    match step.split_once('=') {
        Some((key, name)) if !object.is_object() => {
            if !object.is_array() {
                *object = json!([]);
            }
            let Some(list) = object.as_array_mut() else { return };
            let index = list.iter().position(|item| item[key] == *name).unwrap_or_else(|| {
                list.push(json!({key: name}));
                list.len() - 1
            });
            set(&mut list[index], rest, value);
        }
        _ => {
            if !object.is_object() {
                *object = json!({});
            }
            set(&mut object[step], rest, value);
        }
    }
}

/// Removes a field, and what is empty without it.
fn unset(object: &mut Value, path: &[String]) {
    let [step, rest @ ..] = path else { return };
    match object {
        Value::Array(list) => {
            let Some((key, name)) = step.split_once('=') else { return };
            let Some(index) = list.iter().position(|item| item[key] == *name) else { return };
            unset(&mut list[index], rest);
            let bare = list[index].as_object().is_none_or(|item| item.len() <= 1);
            if rest.first().is_some_and(|last| last == key) || bare {
                list.remove(index);
            }
        }
        Value::Object(map) if rest.is_empty() => drop(map.remove(step)),
        Value::Object(map) => {
            let Some(inner) = map.get_mut(step) else { return };
            unset(inner, rest);
            if is_empty(inner) {
                map.remove(step);
            }
        }
        _ => {}
    }
}

/// `fieldsV1` is the server's own business; here it is a list of paths.
fn read_owners(object: &Value) -> Owners {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .filter_map(|entry| {
            let manager = entry["manager"].as_str()?.to_owned();
            let subresource = entry["subresource"].as_str().unwrap_or_default().to_owned();
            let paths = serde_json::from_value(entry["fieldsV1"]["paths"].clone()).ok()?;
            Some(((manager, subresource), paths))
        })
        .collect()
}

fn write_owners(object: &mut Value, owners: &Owners, call: &Call, resource: &Resource) {
    let entries = owners.iter().filter(|(_, paths)| !paths.is_empty());
    let entries: Vec<Value> = entries
        .map(|((manager, subresource), paths)| {
            let mut entry = json!({
                "manager": manager, "operation": "Apply", "time": store::now(),
                "apiVersion": resource.api_version(&call.version), "fieldsType": "FieldsV1",
                "fieldsV1": {"paths": paths},
            });
            if !subresource.is_empty() {
                entry["subresource"] = json!(subresource);
            }
            entry
        })
        .collect();
    object["metadata"]["managedFields"] = json!(entries);
}
