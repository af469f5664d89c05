//! What statuses say, when they are written, and what of others' stays.

use undermesh_model::ResourceRef;

use super::*;

const THEN: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-02-02T00:00:00Z";

fn finding(severity: Severity, code: &'static str, kind: &'static str, text: &str) -> Diagnostic {
    Diagnostic {
        severity,
        code,
        object: Some(ResourceRef::namespaced(kind, "shop", "a")),
        position: None,
        message: text.to_owned(),
        remedy: "do better".to_owned(),
    }
}

fn kind(name: &str) -> &'static JudgedKind {
    JUDGED_KINDS.iter().find(|it| it.kind == name).unwrap()
}

fn route() -> Value {
    let service = |name: &str| json!({"group": "", "kind": "Service", "name": name, "port": 80});
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "a", "namespace": "shop", "generation": 3, "resourceVersion": "7"},
        "spec": {"parentRefs": [service("cart"), service("cart-2"), {"name": "edge"}]},
    })
}

fn conditions(write: &StatusWrite, parent: usize) -> Vec<(String, String, String)> {
    let list = &write.object["status"]["parents"][parent]["conditions"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    list.as_array()
        .unwrap()
        .iter()
        .map(|it| (text(&it["type"]), text(&it["status"]), text(&it["reason"])))
        .collect()
}

fn of(kind: &str, status: &str, reason: &str) -> (String, String, String) {
    (kind.to_owned(), status.to_owned(), reason.to_owned())
}

#[test]
fn a_route_has_a_status_for_each_service_and_none_for_gateways() {
    let write = kind("HTTPRoute").status(&route(), &[], NOW).unwrap();
    let parents = write.object["status"]["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0]["controllerName"], CONTROLLER);
    assert_eq!(parents[0]["parentRef"], route()["spec"]["parentRefs"][0]);
    let good = [of("Accepted", "True", "Accepted"), of("ResolvedRefs", "True", "ResolvedRefs")];
    assert_eq!(conditions(&write, 0), good);
    assert_eq!(parents[0]["conditions"][0]["observedGeneration"], 3);
    assert_eq!(write.path, "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/a");
    // Written once; the same again changes nothing, whatever the time.
    assert!(kind("HTTPRoute").status(&write.object, &[], THEN).is_none());
}

#[test]
fn a_parent_that_is_not_there_is_that_parents_and_a_backend_everybodys() {
    let findings = [
        finding(
            Severity::Warning,
            "unknown-parent",
            "HTTPRoute",
            "Service shop/cart does not exist",
        ),
        finding(
            Severity::Warning,
            "backend-not-found",
            "HTTPRoute",
            "Service shop/x does not exist",
        ),
        finding(Severity::Warning, "backend-not-found", "GRPCRoute", "another kind's"),
    ];
    let write = kind("HTTPRoute").status(&route(), &findings, NOW).unwrap();
    let missing = of("ResolvedRefs", "False", "BackendNotFound");
    assert_eq!(
        conditions(&write, 0),
        [of("Accepted", "False", "NoMatchingParent"), missing.clone()]
    );
    assert_eq!(conditions(&write, 1), [of("Accepted", "True", "Accepted"), missing]);
    let message = &write.object["status"]["parents"][0]["conditions"][1]["message"];
    assert_eq!(message, "Service shop/x does not exist [backend-not-found]; do better");
}

#[test]
fn what_others_say_stays_and_what_is_ours_goes_with_its_parent() {
    let mut object = route();
    let theirs = json!({
        "parentRef": {"name": "edge"}, "controllerName": "example.com/gateway",
        "conditions": [{"type": "Accepted", "status": "False"}],
    });
    let gone = json!({
        "parentRef": {"group": "", "kind": "Service", "name": "gone"},
        "controllerName": CONTROLLER, "conditions": [],
    });
    object["status"]["parents"] = json!([gone, theirs]);
    let write = kind("HTTPRoute").status(&object, &[], NOW).unwrap();
    let parents = write.object["status"]["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 3);
    assert_eq!(parents[0], theirs);
    assert!(kind("HTTPRoute").status(&write.object, &[], NOW).is_none());
    let mut left = write.object.clone();
    left["spec"]["parentRefs"] = json!([{"name": "edge"}]);
    let write = kind("HTTPRoute").status(&left, &[], NOW).unwrap();
    assert_eq!(write.object["status"]["parents"], json!([theirs]));
}

#[test]
fn other_kinds_have_one_condition_and_a_time_that_changes_with_its_status() {
    let object = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "a", "namespace": "shop", "generation": 1},
        "status": {"conditions": [{"type": "ZtunnelAccepted", "status": "True"}]},
    });
    let policy = kind("AuthorizationPolicy");
    let bad = finding(Severity::Error, "invalid", "AuthorizationPolicy", "no");
    let first = policy.status(&object, std::slice::from_ref(&bad), THEN).unwrap().object;
    let own = &first["status"]["conditions"][1];
    assert_eq!((&own["type"], &own["status"]), (&json!(ACCEPTED), &json!("False")));
    assert_eq!((&own["lastTransitionTime"], &own["reason"]), (&json!(THEN), &json!("Invalid")));
    assert_eq!(first["status"]["conditions"][0], object["status"]["conditions"][0]);
    let worse = finding(Severity::Error, "invalid", "AuthorizationPolicy", "not at all");
    let second = policy.status(&first, &[worse], NOW).unwrap().object;
    assert_eq!(second["status"]["conditions"][1]["lastTransitionTime"], THEN);
    let third = policy.status(&second, &[], NOW).unwrap().object;
    assert_eq!(third["status"]["conditions"][1]["lastTransitionTime"], NOW);
    // A new generation that says the same is told to have been seen.
    let mut fourth = third.clone();
    fourth["metadata"]["generation"] = json!(2);
    let fourth = policy.status(&fourth, &[], NOW).unwrap().object;
    assert_eq!(fourth["status"]["conditions"][1]["observedGeneration"], 2);
}
