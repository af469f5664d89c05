//! What has changed in the mesh's objects from one look at them to the next, for the audit log.

use std::collections::BTreeMap;

use serde_json::Value;
use undermesh_control::JudgedKind;
use undermesh_telemetry::{AuditEvent, AuditObject};

/// Fields of one change that are told.
const MAX_FIELDS: usize = 16;

/// The objects as they were seen last.
#[derive(Default)]
pub(super) struct Changes {
    seen: Option<BTreeMap<(&'static str, String, String), Value>>,
}

impl Changes {
    /// Takes note of what there is, and says what has changed. The first time, nothing has.
    pub(super) fn note(&mut self, objects: &[(&'static JudgedKind, Value)]) -> Vec<AuditEvent> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let now: BTreeMap<_, _> = objects
            .iter()
            .map(|(kind, object)| {
                let metadata = &object["metadata"];
                ((kind.kind, text(&metadata["namespace"]), text(&metadata["name"])), object.clone())
            })
            .collect();
        let Some(before) = self.seen.replace(now) else { return Vec::new() };
        let now = self.seen.as_ref().into_iter().flatten();
        let mut events = Vec::new();
        let mut gone = before;
        for (key, object) in now {
            match gone.remove(key) {
                None => events.push(event(key, "created", object, Vec::new())),
                Some(former) if former["metadata"]["uid"] != object["metadata"]["uid"] => {
                    events.push(event(key, "deleted", &former, Vec::new()));
                    events.push(event(key, "created", object, Vec::new()));
                }
                Some(former) => {
                    let fields = differences(&former, object);
                    if !fields.is_empty() {
                        events.push(event(key, "changed", object, fields));
                    }
                }
            }
        }
        events.extend(gone.iter().map(|(key, object)| event(key, "deleted", object, Vec::new())));
        events
    }
}

fn event(
    (kind, namespace, name): &(&'static str, String, String),
    change: &'static str,
    object: &Value,
    fields: Vec<String>,
) -> AuditEvent {
    AuditEvent::ConfigurationChanged {
        object: AuditObject {
            kind: (*kind).to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
        },
        change,
        generation: object["metadata"]["generation"].as_i64(),
        // Who has deleted it, nobody says.
        by: if change == "deleted" { None } else { writer(object) },
        fields,
    }
}

/// Who has written last what is not a status: the manager's name and its time.
fn writer(object: &Value) -> Option<String> {
    let managers = object["metadata"]["managedFields"].as_array()?;
    let writes = managers.iter().filter(|it| it["subresource"].as_str().is_none_or(str::is_empty));
    let last = writes.max_by_key(|it| it["time"].as_str().unwrap_or_default())?;
    let (manager, time) = (last["manager"].as_str()?, last["time"].as_str().unwrap_or_default());
    Some(format!("{manager} at {time}"))
}

/// Where two versions differ, in what users write. Values are not told: they may be secrets.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("spec", &before["spec"], &after["spec"], &mut found);
    for field in ["labels", "annotations"] {
        let path = format!("metadata.{field}");
        compare(&path, &before["metadata"][field], &after["metadata"][field], &mut found);
    }
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    if before == after || found.len() >= MAX_FIELDS {
        return;
    }
    match (before, after) {
        (Value::Object(one), Value::Object(other)) => {
            let mut keys: Vec<&String> = one.keys().chain(other.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                compare(&format!("{path}.{key}"), &before[key], &after[key], found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                compare(&format!("{path}[{index}]"), one, other, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use undermesh_control::JUDGED_KINDS;

    use super::*;

    fn policy(uid: &str, action: &str) -> (&'static JudgedKind, Value) {
        let kind = JUDGED_KINDS.iter().find(|it| it.kind == "AuthorizationPolicy").unwrap();
        let object = json!({
            "metadata": {
                "namespace": "shop", "name": "guard", "uid": uid, "generation": 2,
                "managedFields": [
                    {"manager": "kubectl", "time": "2026-01-02T00:00:00Z"},
                    {"manager": "undermesh", "time": "2026-01-03T00:00:00Z", "subresource": "status"},
                    {"manager": "helm", "time": "2026-01-01T00:00:00Z"},
                ],
            },
            "spec": {"action": action, "rules": [{"from": [1, 2]}]},
        });
        (kind, object)
    }

    fn said(events: &[AuditEvent]) -> Vec<(&'static str, Option<String>, Vec<String>)> {
        let of = |event: &AuditEvent| match event {
            AuditEvent::ConfigurationChanged { change, by, fields, .. } => {
                (*change, by.clone(), fields.clone())
            }
            other => panic!("{other:?}"),
        };
        events.iter().map(of).collect()
    }

    #[test]
    fn what_was_there_is_no_news_and_what_changes_is_told_by_field_and_writer() {
        let mut changes = Changes::default();
        assert!(changes.note(&[policy("1", "ALLOW")]).is_empty());
        assert!(changes.note(&[policy("1", "ALLOW")]).is_empty());
        let by = Some("kubectl at 2026-01-02T00:00:00Z".to_owned());
        let changed = said(&changes.note(&[policy("1", "DENY")]));
        assert_eq!(changed, [("changed", by.clone(), vec!["spec.action".to_owned()])]);
        let mut object = policy("1", "DENY");
        object.1["status"] = json!({"conditions": []});
        assert!(changes.note(&[object]).is_empty(), "a status is no change");
        let mut object = policy("1", "DENY");
        object.1["spec"]["rules"][0]["from"] = json!([1, 3]);
        object.1["metadata"]["labels"] = json!({"a": "b"});
        let fields = vec!["spec.rules[0].from[1]".to_owned(), "metadata.labels".to_owned()];
        assert_eq!(said(&changes.note(&[object])), [("changed", by.clone(), fields)]);
        let replaced = said(&changes.note(&[policy("2", "DENY")]));
        assert_eq!(replaced, [("deleted", None, vec![]), ("created", by, vec![])]);
        assert_eq!(said(&changes.note(&[])), [("deleted", None, vec![])]);
    }
}
