//! A judge of objects by a structural schema, as strict as an API server with `fieldValidation=Strict`. Knows what our
//! schemas have, and ends where they have something else.

use std::collections::BTreeSet;

use cel::{Context, Program};
use regex::Regex;
use serde_json::Value;

/// Everything that is against `value`.
pub(crate) fn judge(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut said = Vec::new();
    if !is_of_type(schema, value) {
        return vec![format!("{path}: {value} is no {}", schema["type"])];
    }
    said.extend(bounds(schema, value, path));
    let unknown = match value {
        Value::Object(entries) => entries.iter().collect(),
        _ => Vec::new(),
    };
    let properties = schema["properties"].as_object();
    for (name, inner) in unknown {
        let path = format!("{path}.{name}");
        let field = properties.and_then(|it| it.get(name));
        let others = schema.get("additionalProperties");
        match field.or(others) {
            Some(field) => said.extend(judge(field, inner, &path)),
            // `metadata` is known to the server.
            None if properties.is_none() && others.is_none() => {}
            None => said.push(format!("{path}: unknown field")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            said.push(format!("{path}.{}: required", name.as_str().unwrap()));
        }
    }
    if let Value::Array(items) = value {
        for (index, item) in items.iter().enumerate() {
            said.extend(judge(&schema["items"], item, &format!("{path}[{index}]")));
        }
        said.extend(duplicates(schema, items, path));
    }
    if said.is_empty() {
        said.extend(rules(schema, value, path));
    }
    said
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_i64() || value.is_string();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        other => panic!("nothing is known of type {other:?}"),
    }
}

fn bounds(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut said = Vec::new();
    let count = match value {
        Value::String(text) => Some((text.chars().count(), "Length")),
        Value::Array(items) => Some((items.len(), "Items")),
        Value::Object(entries) => Some((entries.len(), "Properties")),
        _ => None,
    };
    let bound = |name: String| schema[name].as_u64().map(|bound| bound as usize);
    if let Some((count, what)) = count {
        if bound(format!("min{what}")).is_some_and(|least| count < least) {
            said.push(format!("{path}: too short"));
        }
        if bound(format!("max{what}")).is_some_and(|most| count > most) {
            said.push(format!("{path}: too long"));
        }
    }
    if let Some(number) = value.as_f64() {
        if schema["minimum"].as_f64().is_some_and(|least| number < least) {
            said.push(format!("{path}: below {}", schema["minimum"]));
        }
        if schema["maximum"].as_f64().is_some_and(|most| number > most) {
            said.push(format!("{path}: above {}", schema["maximum"]));
        }
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !Regex::new(pattern).unwrap().is_match(text)
    {
        said.push(format!("{path}: should match {pattern}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        said.push(format!("{path}: supported values: {words:?}"));
    }
    said
}

/// In a list that is a map by some fields of its items.
fn duplicates(schema: &Value, items: &[Value], path: &str) -> Option<String> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    let key = |item: &Value| {
        keys.iter().map(|key| item[key.as_str().unwrap()].to_string()).collect::<Vec<_>>()
    };
    let different: BTreeSet<_> = items.iter().map(key).collect();
    (different.len() < items.len()).then(|| format!("{path}: duplicate value"))
}

fn rules(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let broken = rules.filter(|rule| {
        let source = rule["rule"].as_str().unwrap();
        let program = Program::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let mut context = Context::default();
        context.add_variable("self", value).unwrap();
        match program.execute(&context) {
            Ok(cel::Value::Bool(good)) => !good,
            other => panic!("{source} of {value}: {other:?}"),
        }
    });
    broken.map(|rule| format!("{path}: {}", rule["message"].as_str().unwrap())).collect()
}
