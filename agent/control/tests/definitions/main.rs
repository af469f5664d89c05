//! The definitions of the mesh's own kinds, judged by as an API server does: good objects pass, bad ones are refused
//! in words that help, and no rule is there that nothing breaks.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of it is part of tests")]

#[path = "../../examples/definitions/made.rs"]
mod made;
mod schema;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};
use undermesh_control::definitions;

/// What the schema of a kind has to say about a spec.
fn judge(kind: &str, spec: &str) -> Vec<String> {
    let spec: Value =
        serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
    judge_object(&json!({
        "apiVersion": "undermesh.io/v1alpha1", "kind": kind,
        "metadata": {"name": "it", "namespace": "shop"}, "spec": spec,
    }))
}

fn judge_object(object: &Value) -> Vec<String> {
    let is_it = |it: &Value| it["spec"]["names"]["kind"] == object["kind"];
    let definition = definitions().into_iter().find(is_it).unwrap();
    let version = &definition["spec"]["versions"][0];
    schema::judge(&version["schema"]["openAPIV3Schema"], object, "")
}

/// Specs that are refused, and a part of what is said.
const REFUSED: [(&str, &str, &str); 36] = [
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 1}, envoyExtAuthzGrpc: {service: b, port: 1}}]}",
        "a provider is one of",
    ),
    ("MeshConfig", "{extensionProviders: [{name: a}]}", "a provider is one of"),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, zipkin: {service: b, port: 1}}]}",
        "unknown field",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{envoyExtAuthzHttp: {service: b, port: 1}}]}",
        "name: required",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: '', envoyExtAuthzHttp: {service: b, port: 1}}]}",
        "too short",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 1}}, {name: a, envoyExtAuthzHttp: {service: c, port: 1}}]}",
        "duplicate",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {port: 1}}]}",
        "service: required",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b}}]}",
        "port: required",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: 'b/c/d', port: 1}}]}",
        "write host or namespace/host",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: '*.b', port: 1}}]}",
        "write host or namespace/host",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 0}}]}",
        "below 1",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 65536}}]}",
        "above 65535",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: b, port: http}}]}",
        "should match",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: b, port: 1, timeout: soon}}]}",
        "write a time above zero",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: b, port: 1, timeout: 0s}}]}",
        "write a time above zero",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 1, pathPrefix: x}}]}",
        "a path begins with a slash",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzGrpc: {service: b, port: 1, pathPrefix: /x}}]}",
        "unknown field",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 1, statusOnError: '100'}}]}",
        "write the status of an answer",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 1, includeRequestBodyInCheck: {}}}]}",
        "maxRequestBytes: required",
    ),
    (
        "MeshConfig",
        "{extensionProviders: [{name: a, envoyExtAuthzHttp: {service: b, port: 1, includeRequestBodyInCheck: {maxRequestBytes: 0}}}]}",
        "below 1",
    ),
    ("RateLimitPolicy", "{rules: [{}]}", "limits nothing"),
    ("RateLimitPolicy", "{rules: [{requests: {count: 0, per: 1s}}]}", "below 1"),
    ("RateLimitPolicy", "{rules: [{requests: {count: 1, per: soon}}]}", "write a time above zero"),
    ("RateLimitPolicy", "{rules: [{requests: {count: 1, per: 0s}}]}", "write a time above zero"),
    ("RateLimitPolicy", "{rules: [{requests: {count: 1, per: 1s, burst: 0}}]}", "below 1"),
    (
        "RateLimitPolicy",
        "{rules: [{requests: {count: 1, per: 1s}, key: [request.colour]}]}",
        "write pod, source.principal",
    ),
    ("RateLimitPolicy", "{rules: [{requests: {count: 1, per: 1s}, maxKeys: 1}]}", "below 2"),
    (
        "RateLimitPolicy",
        "{rules: [{requests: {count: 1, per: 1s}, maxKeys: 1000001}]}",
        "above 1000000",
    ),
    (
        "RateLimitPolicy",
        "{rules: [{requests: {count: 1, per: 1s}, answer: {status: 200}}]}",
        "below 400",
    ),
    (
        "RateLimitPolicy",
        "{rules: [{requests: {count: 1, per: 1s}, answer: {headers: SOMETIMES}}]}",
        "supported values",
    ),
    (
        "RateLimitPolicy",
        "{rules: [{requests: {count: 1, per: 1s}, name: 'a b'}]}",
        "write up to 63 letters",
    ),
    (
        "RateLimitPolicy",
        "{rules: [{connections: {count: 1, per: 1s}, key: [request.path]}]}",
        "connections cannot be counted",
    ),
    (
        "RateLimitPolicy",
        "{rules: [{connections: {count: 1, per: 1s}, to: [{operation: {paths: [/a]}}]}]}",
        "connections cannot be limited",
    ),
    (
        "RateLimitPolicy",
        "{rules: [{name: a, maxBodyBytes: 1}, {name: a, maxBodyBytes: 2}]}",
        "two rules have the same name",
    ),
    (
        "RateLimitPolicy",
        "{rules: [{maxBodyBytes: 1, from: [{source: {colour: [red]}}]}]}",
        "unknown field",
    ),
    ("RateLimitPolicy", "{rules: [{maxBodyBytes: 1}], colour: red}", "unknown field"),
];

#[test]
fn what_cannot_be_meant_is_refused_in_words_that_help() {
    for (kind, spec, expected) in REFUSED {
        let said = judge(kind, spec);
        assert!(said.iter().any(|one| one.contains(expected)), "{spec}: {said:?}");
        // What is refused is refused for one reason, so that each is proved by itself.
        assert_eq!(said.len(), 1, "{spec}: {said:?}");
    }
}

#[test]
fn no_rule_is_there_that_nothing_breaks() {
    fn messages(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(entries) => {
                let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
                found.extend(rules.map(|rule| rule["message"].as_str().unwrap().to_owned()));
                entries.values().for_each(|inner| messages(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    definitions().iter().for_each(|definition| messages(definition, &mut all));
    assert!(all.len() >= 10, "{all:?}");
    let said: Vec<String> = REFUSED.iter().flat_map(|(kind, spec, _)| judge(kind, spec)).collect();
    all.retain(|message| !said.iter().any(|one| one.contains(message.as_str())));
    assert!(all.is_empty(), "nothing breaks: {all:?}");
}

/// Objects of the tests of whole agents that no agent has anything to say about.
#[test]
fn what_agents_take_is_taken() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tests/cases");
    let mut tried = 0;
    for directory in ["rate_limit", "authorization"] {
        for file in fs::read_dir(cases.join(directory)).unwrap() {
            let text = fs::read_to_string(file.unwrap().path()).unwrap();
            // As those tests read them: `no` is text.
            let found: Vec<Value> = serde_yaml_ng::from_str(&text).unwrap();
            let is_good = |case: &&Value| case["refused"].is_null() && case["reports"].is_null();
            for case in found.iter().filter(is_good) {
                for object in case["objects"].as_array().into_iter().flatten() {
                    if object["apiVersion"] == "undermesh.io/v1alpha1" {
                        assert_eq!(judge_object(object), [""; 0], "{object}");
                        tried += 1;
                    }
                }
            }
        }
    }
    assert!(tried > 20, "{tried}");
}

#[test]
fn a_status_as_the_controller_writes_it_is_kept_whole() {
    let mut object = json!({
        "apiVersion": "undermesh.io/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": "it", "namespace": "shop", "generation": 2},
        "spec": {"rules": [{"maxBodyBytes": 1}]},
    });
    let kind = undermesh_control::JUDGED_KINDS.iter().find(|it| it.kind == "RateLimitPolicy");
    let write = kind.unwrap().status(&object, &[], "2026-01-02T03:04:05Z").unwrap();
    object = write.object().clone();
    assert_eq!(object["status"]["conditions"][0]["type"], "undermesh.io/Accepted");
    assert_eq!(judge_object(&object), [""; 0]);
    object["status"]["conditions"][0]["colour"] = json!("red");
    assert!(judge_object(&object)[0].contains("unknown field"));
}

#[test]
fn definitions_are_those_of_the_manifest() {
    const MANIFEST: &str = include_str!("../../../../deploy/kubernetes/undermesh.yaml");
    let found: Vec<Value> = MANIFEST
        .split("\n---\n")
        .skip(1)
        .map(|text| serde_saphyr::from_str::<Value>(text).unwrap())
        .filter(|object| object["kind"] == "CustomResourceDefinition")
        .collect();
    assert_eq!(found, definitions(), "run `cargo xtask codegen`, then `cargo xtask chart`");
}

#[test]
fn what_is_made_of_the_types_is_in_the_repository_as_they_make_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, text) in made::files().unwrap() {
        let there = fs::read_to_string(root.join(name)).unwrap();
        assert!(there == text, "{name} is not what the types make: run `cargo xtask codegen`");
    }
}
