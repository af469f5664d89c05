//! `docs/reference/custom-resources.md`: every field, and every rule that an API server judges by.

use std::fmt::Write as _;

use serde_json::Value;

use super::{OWN_KINDS, OwnKind};

const HEAD: &str = "\
# Custom resources

<!-- Made of agent/control by `cargo xtask codegen`; not to be edited. -->

The mesh's own kinds, in the group `undermesh.io`. Their definitions are made of the types that agents read objects with
(`cargo xtask codegen`), are part of the chart, and are printed by `undermesh crds`. `kubectl get undermesh` shows all objects of them, `kubectl explain KIND.spec` what follows.

An API server refuses what breaks the types, bounds and rules below. `kubectl` refuses fields that are not here as well; where others write them, they are dropped.
What only a look at other objects or a calculation can show, the [webhook](../guide/controller.md) and the condition `undermesh.io/Accepted` of the object's status say.
";

/// The page.
pub fn definitions_page() -> String {
    let mut page = HEAD.to_owned();
    for kind in &OWN_KINDS {
        let spec = (kind.spec)();
        // Writing to a string cannot fail.
        let _ = write!(page, "\n{}", heading(kind));
        page.push_str("\n| field | type | |\n|---|---|---|\n");
        fields(&spec, "spec", &mut page);
        page.push_str("\n| rule about | refused with |\n|---|---|\n");
        rules(&spec, "spec", &mut page);
    }
    page
}

fn heading(kind: &OwnKind) -> String {
    let (group, version) = kind.api_version();
    let OwnKind { kind, plural, short, about, .. } = kind;
    format!("## {kind}\n\n`{group}/{version}`, `{plural}`, in short `{short}`. {about}\n")
}

fn fields(schema: &Value, path: &str, page: &mut String) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let needed = if required.contains(&Value::from(name.as_str())) { ", required" } else { "" };
        let about = field["description"].as_str().unwrap_or_default().replace('\n', " ");
        let _ = writeln!(
            page,
            "| `{path}` | {}{needed} | {} |",
            shape(field),
            about.replace('|', "\\|")
        );
        fields(field, &path, page);
        fields(&field["items"], &format!("{path}[]"), page);
    }
}

fn rules(schema: &Value, path: &str, page: &mut String) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let message = rule["message"].as_str().unwrap_or_default();
        let _ = writeln!(page, "| `{path}` | {message} |");
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        rules(field, &format!("{path}.{name}"), page);
    }
    if schema["items"].is_object() {
        rules(&schema["items"], &format!("{path}[]"), page);
    }
}

/// Type and bounds, in words.
fn shape(field: &Value) -> String {
    if let Some(words) = field["enum"].as_array() {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    let kind = field["type"].as_str().unwrap_or("number or text");
    let kind = match kind {
        "array" => format!("list of {}", shape(&field["items"])),
        "string" => "text".to_owned(),
        "object" if field["additionalProperties"].is_object() => "map".to_owned(),
        other => other.to_owned(),
    };
    let bound = |least: &str, most: &str| match (field[least].as_f64(), field[most].as_f64()) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) if least > 0.0 => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        _ => String::new(),
    };
    let size = bound("minLength", "maxLength") + &bound("minItems", "maxItems");
    let size = size + &bound("minProperties", "maxProperties");
    format!("{kind}{size}{}", bound("minimum", "maximum"))
}
