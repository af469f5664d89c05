//! When there is a state, and what is in it.

use std::sync::Arc;

use serde_json::json;

use super::*;

/// A time like any other.
const T: &str = "2025-01-01T00:00:00Z";

fn pod(name: &str, uid: &str, created: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "creationTimestamp": created,
            "labels": {"istio.io/dataplane-mode": "ambient"},
        },
        "spec": {"nodeName": "here", "serviceAccountName": "default"},
        "status": {"podIP": address},
    })
}

fn state(objects: &[Value]) -> State {
    let mut state = State::new("here");
    for object in objects {
        let name = object["kind"].as_str().unwrap();
        let kind = Kind::find(name).unwrap();
        state.restore(SlotId::new(name), kind, std::slice::from_ref(object));
    }
    state
}

fn cluster(objects: &[Value]) -> Cluster {
    let loaded = state(objects).load();
    loaded.cluster.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

fn location(cluster: &Cluster, name: &str) -> Option<PodLocation> {
    cluster.workloads[&NamespacedName::new("shop", name)].location.clone()
}

#[test]
fn pods_of_this_node_are_found_by_their_uid_whatever_they_say() {
    let mut here = pod("here", "uid-1", T, "10.0.0.1");
    here["metadata"]["annotations"] = json!({"undermesh.io/netns": "/run/netns/of-somebody-else"});
    let mut there = pod("there", "uid-2", T, "10.0.0.2");
    there["spec"]["nodeName"] = json!("there");
    there["metadata"]["annotations"] = json!({"undermesh.io/cgroup": "/x"});
    let cluster = cluster(&[here, there]);
    assert_eq!(location(&cluster, "here"), Some(PodLocation::Uid("uid-1".into())));
    assert_eq!(location(&cluster, "there"), None);
}

#[test]
fn static_pods_run_under_their_hash_and_nobody_claims_the_uid_of_another() {
    let mirror = |name: &str, uid: &str, hash: &str| {
        let mut pod = pod(name, uid, T, "");
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": hash});
        pod["metadata"]["ownerReferences"] = json!([{"kind": "Node", "name": "here"}]);
        pod
    };
    let objects = [
        mirror("static", "uid-1", "0123456789abcdef"),
        pod("victim", "uid-2", T, "10.0.0.2"),
        mirror("thief", "uid-3", "uid-2"),
        mirror("one-of-two", "uid-4", "hash"),
        mirror("two-of-two", "uid-5", "hash"),
    ];
    let cluster = cluster(&objects);
    assert_eq!(location(&cluster, "static"), Some(PodLocation::Uid("0123456789abcdef".into())));
    assert_eq!(location(&cluster, "victim"), Some(PodLocation::Uid("uid-2".into())));
    for (name, uid) in [("thief", "uid-3"), ("one-of-two", "uid-4"), ("two-of-two", "uid-5")] {
        assert_eq!(location(&cluster, name), Some(PodLocation::Uid(uid.into())), "{name}");
    }
}

#[test]
fn an_address_that_is_used_again_is_the_newer_pods() {
    let old = pod("a-old", "1", "2025-01-01T00:00:00Z", "10.0.0.1");
    let new = pod("b-new", "2", "2025-01-01T00:00:01Z", "10.0.0.1");
    for objects in [[old.clone(), new.clone()], [new, old]] {
        let cluster = cluster(&objects);
        let addresses =
            |name: &str| cluster.workloads[&NamespacedName::new("shop", name)].addresses.len();
        assert_eq!((addresses("a-old"), addresses("b-new")), (0, 1));
    }
}

#[test]
fn a_pod_that_is_in_both_lists_is_one_pod() {
    let both = |here: Value, elsewhere: Value| {
        let mut state = State::new("here");
        let kind = Kind::find("Pod").unwrap();
        state.restore(SlotId::new("pod/here"), kind, &[here]);
        state.restore(SlotId::new("pod/elsewhere"), kind, &[elsewhere]);
        let loaded = state.load();
        assert_eq!(loaded.diagnostics.len(), 0, "{:?}", loaded.diagnostics);
        let cluster = loaded.cluster.unwrap();
        let pod = cluster.workloads[&NamespacedName::new("shop", "a")].clone();
        (pod.location.is_some(), pod.addresses.len())
    };
    let mut unscheduled = pod("a", "1", T, "10.0.0.1");
    unscheduled["spec"]["nodeName"] = Value::Null;
    assert_eq!(both(pod("a", "1", T, "10.0.0.1"), unscheduled), (true, 1));
    // One of the same name that came later is another.
    let mut later = pod("a", "2", "2025-01-01T00:00:01Z", "10.0.0.1");
    later["spec"]["nodeName"] = json!("there");
    assert_eq!(both(pod("a", "1", T, "10.0.0.1"), later), (false, 1));
}

#[test]
fn what_contradicts_others_is_left_out_and_all_else_is_in_force() {
    let route = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        })
    };
    let http = json!([{"route": [{"destination": {"host": "cart"}}]}]);
    let good = route("good", json!({"hosts": ["cart"], "http": http}));
    let bad = json!([{"match": [{"uri": {"prefix": "/"}}], "delegate": {"name": "gone", "namespace": "shop"}}]);
    let bad = route("bad", json!({"hosts": ["other"], "http": bad}));
    let loaded = state(&[good, bad]).load();
    let cluster = loaded.cluster.unwrap();
    assert_eq!(cluster.routes.len(), 1);
    let codes: Vec<&str> = loaded.diagnostics.iter().map(|found| found.code).collect();
    assert!(codes.contains(&"unknown-delegate") && codes.contains(&"object-left-out"), "{codes:?}");
}

#[test]
fn only_what_is_named_is_watched_by_name() {
    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "r", "namespace": "shop"},
        "spec": {
            "host": "a.example.com",
            "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": "roots"}},
        },
    });
    let policy = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
        "metadata": {"name": "b", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "cart"}],
            "validation": {
                "hostname": "cart.example.com",
                "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
            },
        },
    });
    let named = state(&[rule, policy]).named();
    assert_eq!(named.secrets, BTreeSet::from(["roots".to_owned(), format!("roots{CA_SUFFIX}")]));
    assert_eq!(named.config_maps, BTreeSet::from([NamespacedName::new("shop", "ca")]));
}

#[test]
fn a_list_replaces_the_whole_list_and_keeps_what_is_the_same() {
    let mut state = state(&[pod("a", "1", T, "10.0.0.1"), pod("b", "2", T, "10.0.0.2")]);
    let id = SlotId::new("Pod");
    assert!(!state.is_complete([&id]));
    let before = Arc::clone(&state.lists[&id].entries[&NamespacedName::new("shop", "a")].objects);
    let listed = Change::Listed(vec![pod("a", "1", T, "10.0.0.1")]);
    assert_eq!(state.change(&id, listed), Some(1));
    assert!(state.is_complete([&id]));
    let after = &state.lists[&id].entries[&NamespacedName::new("shop", "a")].objects;
    assert!(Arc::ptr_eq(&before, after));
}
