//! Creating, changing and deleting.

use super::*;

const PODS: &str = "/api/v1/namespaces/shop/pods";
const POLICIES: &str = "/apis/security.istio.io/v1/namespaces/shop/peerauthentications";
const JSON: &str = "application/json";

fn policy(mode: &str) -> Value {
    json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": {"mtls": {"mode": mode}}})
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.put_pod("there", "n");
    bench
}

#[test]
fn objects_are_created_once_and_in_namespaces_that_exist() {
    let bench = bench();
    let create = |path: &str| bench.client.send("POST", path, JSON, &pod("a", "n")).0;
    assert_eq!((create(PODS), create(PODS)), (201, 409));
    let nowhere = json!({"metadata": {"name": "a"}});
    let (code, _) = bench.client.send("POST", "/api/v1/namespaces/nowhere/pods", JSON, &nowhere);
    assert_eq!(code, 404);
    let (code, _) =
        bench.client.send("POST", "/api/v1/namespaces/default/pods", JSON, &pod("a", "n"));
    assert_eq!(code, 400);
}

#[test]
fn updates_need_the_last_revision_and_count_generations() {
    let bench = bench();
    let (_, first) = bench.client.send("POST", POLICIES, JSON, &policy("STRICT"));
    let path = format!("{POLICIES}/p");
    let mut second = first.clone();
    second["spec"]["mtls"]["mode"] = json!("DISABLE");
    let (code, stored) = bench.client.send("PUT", &path, JSON, &second);
    assert_eq!((code, &stored["metadata"]["generation"]), (200, &json!(2)));
    assert_eq!(bench.client.send("PUT", &path, JSON, &second).0, 409);
    assert_eq!(bench.client.send("PUT", &path, JSON, &policy("STRICT")).0, 422);
    let revision = bench.server.revision();
    assert_eq!(bench.client.send("PUT", &path, JSON, &stored).0, 200);
    assert_eq!(bench.server.revision(), revision, "the same again is no change");
}

#[test]
fn a_status_is_written_at_its_own_address_only() {
    let bench = bench();
    bench.client.send("POST", POLICIES, JSON, &policy("STRICT"));
    let path = format!("{POLICIES}/p");
    let patch = json!({"spec": {"mtls": {"mode": "DISABLE"}}, "status": {"ok": true}});
    let kind = "application/merge-patch+json";
    let (_, stored) = bench.client.send("PATCH", &format!("{path}/status"), kind, &patch);
    assert_eq!(
        (&stored["spec"]["mtls"]["mode"], &stored["status"]["ok"]),
        (&json!("STRICT"), &json!(true))
    );
    assert_eq!(stored["metadata"]["generation"], 1);
    let patch = json!({"status": {"ok": false}});
    let (_, stored) = bench.client.send("PATCH", &path, kind, &patch);
    assert_eq!(stored["status"]["ok"], true);
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(bench.client.send("PATCH", &path, strategic, &patch).0, 415);
}

#[test]
fn finalizers_hold_an_object_until_they_are_removed() {
    let bench = bench();
    let mut object = policy("STRICT");
    object["metadata"]["finalizers"] = json!(["undermesh.io/hold"]);
    bench.client.send("POST", POLICIES, JSON, &object);
    let path = format!("{POLICIES}/p");
    let (_, marked) = bench.client.send("DELETE", &path, JSON, &Value::Null);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(bench.client.get(&path).0, 200);
    let patch = json!({"metadata": {"finalizers": null}});
    bench.client.send("PATCH", &path, "application/merge-patch+json", &patch);
    assert_eq!(bench.client.get(&path).0, 404);
}

#[test]
fn who_applies_owns_fields_and_gives_them_up() {
    let bench = bench();
    let apply = |query: &str, object: Value| {
        let path = format!("{POLICIES}/p{query}");
        bench.client.send("PATCH", &path, "application/apply-patch+yaml", &object)
    };
    let labels = |labels: Value| json!({"metadata": {"name": "p", "labels": labels}});
    assert_eq!(apply("", labels(json!({}))).0, 400, "a manager is needed");
    let (code, _) = apply("?fieldManager=one", labels(json!({"a": "1", "b": "1"})));
    assert_eq!(code, 201);
    let (code, stored) = apply("?fieldManager=two", labels(json!({"c": "2", "b": "1"})));
    assert_eq!(
        (code, &stored["metadata"]["labels"]),
        (200, &json!({"a": "1", "b": "1", "c": "2"}))
    );
    // What only the first has set goes with it; what both have set stays.
    let (_, stored) = apply("?fieldManager=one", labels(json!({})));
    assert_eq!(stored["metadata"]["labels"], json!({"b": "1", "c": "2"}));
    let (code, conflict) = apply("?fieldManager=one", labels(json!({"c": "9"})));
    assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")));
    let (code, stored) = apply("?fieldManager=one&force=true", labels(json!({"c": "9"})));
    assert_eq!((code, &stored["metadata"]["labels"]["c"]), (200, &json!("9")));
}

#[test]
fn conditions_are_applied_one_by_one() {
    let bench = bench();
    bench.client.send("POST", POLICIES, JSON, &policy("STRICT"));
    let apply = |manager: &str, conditions: Value| {
        let path = format!("{POLICIES}/p/status?fieldManager={manager}");
        let object = json!({"metadata": {"name": "p"}, "status": {"conditions": conditions}});
        bench.client.send("PATCH", &path, "application/apply-patch+yaml", &object)
    };
    apply("one", json!([{"type": "A", "status": "True"}]));
    let (code, stored) = apply("two", json!([{"type": "B", "status": "False"}]));
    let both = json!([{"type": "A", "status": "True"}, {"type": "B", "status": "False"}]);
    assert_eq!((code, &stored["status"]["conditions"]), (200, &both));
    let (_, stored) = apply("one", json!([]));
    assert_eq!(stored["status"]["conditions"], json!([{"type": "B", "status": "False"}]));
    assert_eq!(stored["spec"]["mtls"]["mode"], "STRICT");
}
