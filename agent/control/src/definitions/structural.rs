//! Schemas as Kubernetes wants them: structural. Every field has one type, alternatives are lists of words,
//! absent is another word for null, and nothing refers to anything.

use schemars::{JsonSchema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Map, Value, json};

/// The schema of a type.
pub(super) fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let transform = RecursiveTransform(|schema: &mut schemars::Schema| {
        if let Some(object) = schema.as_object_mut() {
            simplify(object);
        }
    });
    let schema = settings.with_transform(transform).into_generator().into_root_schema_for::<T>();
    schema.to_value()
}

fn simplify(schema: &mut Map<String, Value>) {
    schema.remove("title");
    let is_null = |value: &Value| *value == json!("null") || value["type"] == "null";
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|it| !is_null(it));
        if let [one] = &types[..] {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    // What may be absent.
    if let Some(Value::Array(alternatives)) = schema.get("anyOf") {
        let some: Vec<&Value> = alternatives.iter().filter(|it| !is_null(it)).collect();
        if let ([Value::Object(inner)], true) = (&some[..], some.len() < alternatives.len()) {
            let inner = inner.clone();
            schema.remove("anyOf");
            for (key, value) in inner {
                schema.entry(key).or_insert(value);
            }
        }
    }
    // What is not written is not there, and is what readers say: an API server would write it down.
    schema.remove("default");
    words(schema);
    // Numbers of a size that Kubernetes knows nothing of; their bounds are there beside.
    let is_known =
        |format: &Value| matches!(format.as_str(), Some("int32" | "int64" | "date-time"));
    if schema.get("format").is_some_and(|format| !is_known(format)) {
        schema.remove("format");
    }
}

/// Words with a meaning each are alternatives to schemars, and an `enum` to Kubernetes.
fn words(schema: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = schema.get("oneOf") else { return };
    let words: Option<Vec<Value>> =
        alternatives.iter().map(|it| it.get("const").cloned()).collect();
    let Some(words) = words else { return };
    let meanings = alternatives.iter().filter_map(|it| {
        Some(format!("`{}`: {}", it["const"].as_str()?, it["description"].as_str()?))
    });
    let meanings: Vec<String> = meanings.collect();
    let before = schema.get("description").and_then(Value::as_str).map(str::to_owned);
    let description = before.into_iter().chain([meanings.join(" ")]).collect::<Vec<_>>().join(" ");
    schema.remove("oneOf");
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(words));
    schema.insert("description".to_owned(), json!(description.trim()));
}
