//! What a node's pods say about how much it has to know.

use serde_json::json;

use super::*;

fn terms(narrow: bool) -> Terms {
    Terms { node: "a".to_owned(), root: "istio-system".to_owned(), narrow }
}

fn pod(node: &str, label: Option<&str>, phase: &str) -> Value {
    let labels = label.map(|value| json!({"istio.io/dataplane-mode": value}));
    json!({
        "metadata": {"uid": "u", "labels": labels}, "spec": {"nodeName": node},
        "status": {"phase": phase},
    })
}

fn namespace(label: Option<&str>) -> Value {
    json!({"metadata": {"labels": label.map(|value| json!({"istio.io/dataplane-mode": value}))}})
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn pods_in_the_mesh_decide_and_a_pods_label_beats_its_namespaces() {
    let mut places = Places::default();
    places.note("Namespace", "", "shop", Some(&namespace(Some("ambient"))), 1);
    places.note("Pod", "shop", "cart", Some(&pod("a", None, "Running")), 2);
    places.note("Pod", "bank", "vault", Some(&pod("a", Some("ambient"), "Pending")), 3);
    places.note("Pod", "jobs", "done", Some(&pod("a", Some("ambient"), "Succeeded")), 4);
    places.note("Pod", "plain", "x", Some(&pod("a", None, "Running")), 5);
    places.note("Pod", "far", "y", Some(&pod("b", Some("ambient"), "Running")), 6);
    let scope = places.scope(&terms(false));
    assert_eq!(scope.local, set(&["bank", "shop"]));
    assert_eq!(scope.homes, set(&["bank", "jobs", "plain", "shop"]));
    assert!(scope.reaches("anything"));

    places.note("Pod", "shop", "cart", Some(&pod("a", Some("none"), "Running")), 7);
    assert_eq!(places.scope(&terms(false)).local, set(&["bank"]));
    places.note("Pod", "bank", "vault", None, 8);
    assert!(!places.scope(&terms(false)).reaches("shop"));
}

#[test]
fn a_scope_changes_with_its_own_pods_and_with_namespaces_alone() {
    let mut places = Places::default();
    places.note("Pod", "shop", "cart", Some(&pod("a", None, "Running")), 1);
    let mut moment = places.changed("a");
    let mut changes = |places: &Places| {
        let before = std::mem::replace(&mut moment, places.changed("a"));
        before != moment
    };
    places.note("Pod", "shop", "far", Some(&pod("b", None, "Running")), 2);
    assert!(!changes(&places));
    // The same again: only what is read of it counts.
    places.note("Pod", "shop", "cart", Some(&pod("a", None, "Running")), 3);
    assert!(!changes(&places));
    places.note("Namespace", "", "shop", Some(&namespace(None)), 4);
    assert!(!changes(&places));
    places.note("Namespace", "", "shop", Some(&namespace(Some("ambient"))), 5);
    assert!(changes(&places));
    places.note("Pod", "shop", "far", Some(&pod("a", None, "Running")), 6);
    assert!(changes(&places));
    places.note("Pod", "shop", "far", None, 7);
    assert!(changes(&places));
    places.note("Pod", "shop", "cart", None, 8);
    assert!(changes(&places) && places.changed("a").is_none());
}

#[test]
fn sidecars_narrow_what_is_reached_where_nothing_else_may_be() {
    let sidecar = |hosts: Value, selector: Value| json!({"spec": {"egress": [{"hosts": hosts}], "workloadSelector": selector}});
    let mut places = Places::default();
    for (name, at) in [("shop", 1), ("bank", 2)] {
        places.note("Pod", name, "p", Some(&pod("a", Some("ambient"), "Running")), at);
    }
    assert_eq!(places.scope(&terms(true)).reach, None);
    let narrow = sidecar(json!(["./*", "stock/*", "stock/one.stock.svc", "~/*"]), Value::Null);
    places.note("Sidecar", "shop", "default", Some(&narrow), 3);
    // Of the other namespace, nobody says it.
    assert_eq!(places.scope(&terms(true)).reach, None);
    let root = sidecar(json!(["./*", "istio-system/*"]), Value::Null);
    places.note("Sidecar", "istio-system", "default", Some(&root), 4);
    let expected = Some(set(&["bank", "istio-system", "shop", "stock"]));
    assert_eq!(places.scope(&terms(true)).reach, expected);
    // Whoever lets pods reach what is not registered has to know everything.
    assert_eq!(places.scope(&terms(false)).reach, None);
    let more = sidecar(json!(["ledger/*"]), json!({"labels": {"app": "p"}}));
    places.note("Sidecar", "bank", "some", Some(&more), 5);
    assert!(places.scope(&terms(true)).reaches("ledger"));
    for everything in [json!(["*/*"]), json!([7]), json!(["nonsense"]), json!([])] {
        places.note(
            "Sidecar",
            "shop",
            "default",
            Some(&sidecar(everything.clone(), Value::Null)),
            6,
        );
        assert_eq!(places.scope(&terms(true)).reach, None, "{everything}");
    }
}

#[test]
fn a_pod_is_where_it_is_with_the_uid_that_it_has() {
    let mut places = Places::default();
    places.note("Pod", "mesh", "agent", Some(&pod("a", None, "Running")), 1);
    assert!(places.is_on("a", "mesh", "agent", "u"));
    assert!(!places.is_on("b", "mesh", "agent", "u") && !places.is_on("a", "mesh", "agent", "v"));
    places.note("Pod", "mesh", "agent", Some(&pod("a", None, "Failed")), 2);
    assert!(!places.is_on("a", "mesh", "agent", "u"));
}
