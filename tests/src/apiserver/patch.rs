//! Patches: JSON patch, merge patch, and strategic merge patch as far as it is a merge patch with lists of
//! named items.

use serde_json::{Map, Value, json};

use super::{
    answer::Refusal, apply, call::Call, read::View, resource::Resource, store::Store, write,
};

/// `PATCH`, also of a status.
pub(super) fn patch(
    store: &mut Store,
    call: &Call,
    resource: &Resource,
) -> Result<(u16, Value), Refusal> {
    let patch = call.object()?;
    let content_type = call.content_type.split(';').next().unwrap_or_default().trim();
    if content_type == "application/apply-patch+yaml" {
        return apply::apply(store, call, resource, patch);
    }
    let before = write::existing(store, call, resource)?;
    let mut object = View::new(call, resource).show(&before);
    match content_type {
        "application/merge-patch+json" => merge(&mut object, &patch, false),
        "application/strategic-merge-patch+json" if resource.built_in => {
            merge(&mut object, &patch, true);
        }
        "application/json-patch+json" => {
            for step in patch.as_array().into_iter().flatten() {
                operate(&mut object, step)?;
            }
        }
        other => {
            let message = format!("the body of the request was in an unknown format: {other:?}");
            return Err(Refusal::new(415, "UnsupportedMediaType", message));
        }
    }
    let wanted = &patch["metadata"]["resourceVersion"];
    if !wanted.is_null() && *wanted != before["metadata"]["resourceVersion"] {
        return Err(Refusal::conflict(&resource.full_name(), &call.name));
    }
    let object = write::checked(object, call, resource)?;
    let key = super::read::key(call, resource);
    let stored = write::replace(store, key, &before, object, call, resource);
    Ok((200, View::new(call, resource).show(&stored)))
}

/// RFC 7396; with `named_items`, lists of objects are merged by their `name` or `type`.
fn merge(target: &mut Value, patch: &Value, named_items: bool) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (name, value) in patch {
        match value {
            Value::Null => {
                if let Some(target) = target.as_object_mut() {
                    target.remove(name);
                }
            }
            Value::Array(items) if named_items => merge_items(&mut target[name], items),
            value => merge(&mut target[name], value, named_items),
        }
    }
}

fn merge_items(target: &mut Value, items: &[Value]) {
    let key = ["type", "name"].into_iter().find(|key| items.iter().all(|it| it[*key].is_string()));
    let (Some(key), Some(list)) = (key, target.as_array_mut()) else {
        *target = json!(items);
        return;
    };
    for item in items {
        match list.iter_mut().find(|there| there[key] == item[key]) {
            Some(there) => merge(there, item, true),
            None => list.push(item.clone()),
        }
    }
}

/// One operation of RFC 6902.
fn operate(object: &mut Value, step: &Value) -> Result<(), Refusal> {
    let pointer = step["path"].as_str().unwrap_or_default();
    let fail = || Refusal::invalid(format!("the JSON patch cannot be applied at {pointer:?}"));
    let (parent, last) = pointer.rsplit_once('/').ok_or_else(fail)?;
    let last = last.replace("~1", "/").replace("~0", "~");
    if step["op"] == "test" {
        let there = object.pointer(pointer).ok_or_else(fail)?;
        return if *there == step["value"] { Ok(()) } else { Err(fail()) };
    }
    let parent = object.pointer_mut(parent).ok_or_else(fail)?;
    match (step["op"].as_str().unwrap_or_default(), parent) {
        ("add", Value::Array(list)) if last == "-" => list.push(step["value"].clone()),
        ("add", Value::Array(list)) => {
            let index = last.parse().ok().filter(|index| *index <= list.len()).ok_or_else(fail)?;
            list.insert(index, step["value"].clone());
        }
        ("add", Value::Object(map)) => {
            map.insert(last, step["value"].clone());
        }
        ("replace", parent) => {
            *place(parent, &last).ok_or_else(fail)? = step["value"].clone();
        }
        ("remove", Value::Array(list)) => {
            let index = last.parse().ok().filter(|index| *index < list.len()).ok_or_else(fail)?;
            list.remove(index);
        }
        ("remove", Value::Object(map)) => drop(map.remove(&last).ok_or_else(fail)?),
        _ => return Err(fail()),
    }
    Ok(())
}

fn place<'a>(parent: &'a mut Value, last: &str) -> Option<&'a mut Value> {
    match parent {
        Value::Array(list) => list.get_mut(last.parse::<usize>().ok()?),
        Value::Object(map) => map.get_mut(last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_do_what_their_standards_say() {
        let mut object = json!({"a": {"b": 1, "c": 2}, "l": [1]});
        merge(&mut object, &json!({"a": {"b": null, "d": 3}, "l": [2]}), false);
        assert_eq!(object, json!({"a": {"c": 2, "d": 3}, "l": [2]}));

        let mut object = json!({"conditions": [{"type": "A", "n": 1}, {"type": "B"}]});
        merge(&mut object, &json!({"conditions": [{"type": "A", "n": 2}]}), true);
        assert_eq!(object, json!({"conditions": [{"type": "A", "n": 2}, {"type": "B"}]}));

        let mut object = json!({"a/b": {"x": 1}, "l": [1]});
        for step in [
            json!({"op": "test", "path": "/a~1b/x", "value": 1}),
            json!({"op": "replace", "path": "/a~1b/x", "value": 2}),
            json!({"op": "add", "path": "/l/-", "value": 9}),
            json!({"op": "remove", "path": "/l/0"}),
        ] {
            operate(&mut object, &step).unwrap();
        }
        assert_eq!(object, json!({"a/b": {"x": 2}, "l": [9]}));
        assert!(operate(&mut object, &json!({"op": "remove", "path": "/none"})).is_err());
    }
}
