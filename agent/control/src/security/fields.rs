//! Fields that the shapes do not know. Serde passes over them; users should hear of them.

use serde_yaml_ng::Value;

use crate::report::{Report, Subject};

/// The fields of an object below one of its fields; `[]` stands for the items of a list.
pub(super) type Known = (&'static str, &'static [&'static str]);

/// Reports fields of `text` that are not in `known`.
pub(super) fn check(text: &str, known: &[Known], subject: &Subject, report: &mut Report) {
    // What cannot be read at all has been reported already.
    let Ok(value) = serde_yaml_ng::from_str::<Value>(text) else { return };
    for (path, fields) in known {
        let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
        visit(&value, &parts, &mut |found| {
            for name in found.keys().filter_map(Value::as_str) {
                if !fields.contains(&name) {
                    let at = if path.is_empty() { "the object" } else { path };
                    let message = format!("field {name:?} of {at} is not known");
                    report.warning(subject, "unknown-field", message, "it has no effect");
                }
            }
        });
    }
}

fn visit(value: &Value, path: &[&str], found: &mut impl FnMut(&serde_yaml_ng::Mapping)) {
    match (path, value) {
        ([], Value::Mapping(fields)) => found(fields),
        (["[]", rest @ ..], Value::Sequence(items)) => {
            for item in items {
                visit(item, rest, found);
            }
        }
        ([name, rest @ ..], Value::Mapping(fields)) => {
            if let Some(value) = fields.get(*name) {
                visit(value, rest, found);
            }
        }
        _ => {}
    }
}
