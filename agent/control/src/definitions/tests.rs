//! Schemas against what is read, and against what API servers take.

use std::collections::BTreeSet;

use super::*;
use crate::{fields::Known, fixtures::load};

/// All fields of a schema, as `spec.rules.[].name`.
fn fields(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        fields(field, &path, found);
        found.insert(path);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], &format!("{path}.[]"), found);
    }
}

/// That a schema has the fields which readers know, and no others but those below `rest`.
pub(crate) fn fields_are<T: JsonSchema>(known: &[Known], rest: &[&str]) {
    let mut there = BTreeSet::new();
    fields(&schema::<T>(), "spec", &mut there);
    there.retain(|field| !rest.iter().any(|rest| field.starts_with(&format!("{rest}."))));
    let in_spec = known.iter().filter(|(at, _)| at.starts_with("spec"));
    let named = in_spec.flat_map(|(at, names)| names.iter().map(move |it| format!("{at}.{it}")));
    assert_eq!(there, named.collect());
}

/// Objects with every field that there is.
const ALL: [&str; 2] = [
    "apiVersion: undermesh.io/v1alpha1
kind: MeshConfig
metadata: {name: default, namespace: istio-system}
spec:
  extensionProviders:
  - name: web
    envoyExtAuthzHttp:
      service: auth/judge.auth.svc.cluster.local
      port: '80'
      timeout: 2s
      pathPrefix: /check
      failOpen: true
      statusOnError: '503'
      clearRouteCache: false
      includeHeadersInCheck: [cookie]
      includeRequestHeadersInCheck: [cookie]
      includeAdditionalHeadersInCheck: {x-from: mesh}
      includeRequestBodyInCheck: {maxRequestBytes: 1, allowPartialMessage: true, packAsBytes: false}
      headersToUpstreamOnAllow: [x-user]
      headersToDownstreamOnDeny: [set-cookie]
      headersToDownstreamOnAllow: [set-cookie]
  - name: call
    envoyExtAuthzGrpc:
      service: judge.auth.svc.cluster.local
      port: 9000
      timeout: 0.5s
      failOpen: false
      statusOnError: ''
      clearRouteCache: false
      includeRequestBodyInCheck: {maxRequestBytes: 1, allowPartialMessage: true, packAsBytes: true}
",
    "apiVersion: undermesh.io/v1alpha1
kind: RateLimitPolicy
metadata: {name: all, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  shadow: true
  rules:
  - name: free
    from:
    - source: {principals: [a], notPrincipals: [b], namespaces: [a], notNamespaces: [b], trustDomains: [a],
        notTrustDomains: [b], ipBlocks: [10.0.0.0/8], notIpBlocks: [10.1.0.0/16], remoteIpBlocks: [10.0.0.0/8],
        notRemoteIpBlocks: [10.1.0.0/16], requestPrincipals: [a], notRequestPrincipals: [b]}
    - source: {serviceAccounts: [a], notServiceAccounts: [b]}
    to:
    - operation: {hosts: [a], notHosts: [b], ports: ['80'], notPorts: ['81'], methods: [GET], notMethods: [PUT],
        paths: [/a], notPaths: [/b]}
    when: [{key: 'request.headers[x-tier]', values: [free], notValues: [paid]}]
    requests: {count: 10, per: 1m30s, burst: 3}
    maxBodyBytes: 1000
    key: [pod, source.principal, source.namespace, source.ip, remote.ip, request.method, request.host,
          request.path, 'request.headers[x-user]', 'request.auth.claims[a][b]']
    maxKeys: 5
    answer: {status: 503, body: later, grpcStatus: RESOURCE_EXHAUSTED, headers: ALWAYS}
  - connections: {count: 5, per: 1s, burst: 6}
",
];

/// The fields that an object has.
fn written(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                let path = format!("{path}.{name}");
                written(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| written(item, &format!("{path}.[]"), found));
        }
        _ => {}
    }
}

#[test]
fn every_field_of_a_definition_is_read_and_nothing_is_said_against_it() {
    for (kind, text) in OWN_KINDS.iter().zip(ALL) {
        let mut there = BTreeSet::new();
        fields(&(kind.spec)(), "spec", &mut there);
        let object: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!(object["kind"], kind.kind);
        let mut used = BTreeSet::new();
        written(&object["spec"], "spec", &mut used);
        let missing: Vec<_> = there.difference(&used).collect();
        assert!(missing.is_empty(), "not tried: {missing:?}");
        let loaded = load(text);
        assert_eq!(loaded.diagnostics, [], "{}", kind.kind);
    }
}

#[test]
fn a_field_with_a_wrong_type_is_refused_where_it_is_read_as_well() {
    for (kind, text) in OWN_KINDS.iter().zip(ALL) {
        let mut there = BTreeSet::new();
        fields(&(kind.spec)(), "spec", &mut there);
        let object: Value = serde_saphyr::from_str(text).unwrap();
        for field in &there {
            let mut wrong = object.clone();
            let steps: Vec<&str> = field.split('.').collect();
            assert!(break_at(&mut wrong, &steps), "{field}");
            let loaded = load(&wrong.to_string());
            assert!(loaded.cluster.is_none(), "{field} is not read");
        }
    }
}

/// Puts what no field may be in the place of the first such field: a list of lists of lists.
fn break_at(value: &mut Value, steps: &[&str]) -> bool {
    match (steps, value) {
        ([], value) => {
            *value = json!([[[]]]);
            true
        }
        (["[]", rest @ ..], Value::Array(items)) => {
            items.iter_mut().any(|item| break_at(item, rest))
        }
        ([name, rest @ ..], Value::Object(entries)) => {
            entries.get_mut(*name).is_some_and(|inner| break_at(inner, rest))
        }
        _ => false,
    }
}

/// Every place of a schema.
fn visit(schema: &Value, path: &str, see: &mut impl FnMut(&Value, &str)) {
    see(schema, path);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        visit(field, &format!("{path}.{name}"), see);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            visit(&schema[inner], &format!("{path}.{inner}"), see);
        }
    }
}

#[test]
fn schemas_are_structural_and_every_field_is_explained() {
    const KNOWN: [&str; 20] = [
        "type",
        "description",
        "properties",
        "required",
        "items",
        "additionalProperties",
        "enum",
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "pattern",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
    ];
    for kind in &OWN_KINDS {
        visit(&kind.schema(), kind.kind, &mut |schema, path| {
            let keys = schema.as_object().unwrap().keys();
            let odd: Vec<_> = keys.filter(|key| !KNOWN.contains(&key.as_str())).collect();
            assert!(odd.is_empty(), "{path}: {odd:?}");
            let either = schema["x-kubernetes-int-or-string"] == true;
            assert!(schema["type"].is_string() != either, "{path}: {schema}");
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let is_texts = ["source", "operation"].iter().any(|it| path.ends_with(it));
                let needs_none = path == kind.kind || is_texts;
                assert!(needs_none || field["description"].is_string(), "{path}.{name}");
            }
        });
    }
}

/// The API server refuses definitions whose rules could be dear: what is looked at must have a bound, and so must
/// every list that a rule stands in.
#[test]
fn whatever_a_rule_looks_at_is_bounded() {
    fn look(schema: &Value, path: &str, bounded: bool) {
        let rules = schema["x-kubernetes-validations"].as_array();
        assert!(rules.is_none() || bounded, "{path}: a list without a bound is above");
        if rules.is_some() && schema["type"] == "string" {
            assert!(schema["maxLength"].is_u64(), "{path}: text without a bound");
        }
        if rules.is_some() && schema["type"] == "array" {
            assert!(schema["maxItems"].is_u64(), "{path}: list without a bound");
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            look(field, &format!("{path}.{name}"), bounded);
        }
        if schema["items"].is_object() {
            let bounded = bounded && schema["maxItems"].is_u64();
            look(&schema["items"], &format!("{path}[]"), bounded);
        }
    }
    for kind in &OWN_KINDS {
        look(&kind.schema(), kind.kind, true);
    }
}

#[test]
fn the_page_has_every_field_and_rule() {
    let page = definitions_page();
    for kind in &OWN_KINDS {
        let mut there = BTreeSet::new();
        fields(&(kind.spec)(), "spec", &mut there);
        for field in there {
            let field = field.replace(".[]", "[]");
            assert!(page.contains(&format!("| `{field}` |")), "{field}");
        }
        visit(&kind.schema(), "", &mut |schema, path| {
            for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                assert!(page.contains(rule["message"].as_str().unwrap()), "{path}");
            }
        });
    }
}
