//! Lists.

use super::*;

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pages_are_of_one_revision_until_that_is_compacted() {
    let bench = Bench::new();
    for name in ["a", "b", "c"] {
        bench.put_pod(name, "n1");
    }
    let (_, first) = bench.client.get("/api/v1/pods?limit=1");
    assert_eq!(
        (names(&first), &first["metadata"]["remainingItemCount"]),
        (vec!["a".into()], &json!(2))
    );
    bench.server.delete("v1", "Pod", "shop", "b");
    bench.put_pod("d", "n1");
    let token = first["metadata"]["continue"].as_str().unwrap().replace(' ', "+");
    let (_, second) = bench.client.get(&format!("/api/v1/pods?limit=5&continue={token}"));
    assert_eq!(names(&second), ["b", "c"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"]["continue"].is_null());
    bench.server.compact();
    let (code, expired) = bench.client.get(&format!("/api/v1/pods?continue={token}"));
    assert_eq!((code, &expired["reason"]), (410, &json!("Expired")));
}

#[test]
fn selectors_and_namespaces_restrict_and_mistakes_are_refused() {
    let bench = Bench::new();
    bench.put_pod("a", "n1");
    bench.put_pod("b", "n2");
    let (_, of_node) = bench.client.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn2");
    assert_eq!(names(&of_node), ["b"]);
    let (_, others) = bench.client.get("/api/v1/pods?fieldSelector=spec.nodeName!%3Dn2");
    assert_eq!(names(&others), ["a"]);
    assert_eq!(names(&bench.client.get("/api/v1/namespaces/default/pods").1), [""; 0]);
    assert_eq!(bench.client.get("/api/v1/pods?fieldSelector=spec.node%3Dn2").0, 400);
}

#[test]
fn lists_are_shown_as_real_servers_show_them() {
    let bench = Bench::new();
    bench.put_pod("a", "n1");
    let (_, pods) = bench.client.get("/api/v1/pods");
    assert_eq!((&pods["kind"], &pods["items"][0]["kind"]), (&json!("PodList"), &Value::Null));
    bench
        .server
        .put(&json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "v", "namespace": "shop"}, "spec": {"hosts": ["a"]},
        }))
        .unwrap();
    let (_, routes) = bench.client.get("/apis/networking.istio.io/v1beta1/virtualservices");
    assert_eq!(routes["items"][0]["apiVersion"], "networking.istio.io/v1beta1");
    let bare = bench.client.metadata("/api/v1/pods");
    assert_eq!(bare["kind"], "PartialObjectMetadataList");
    assert_eq!(bare["items"][0]["kind"], "PartialObjectMetadata");
    assert_eq!(bare["items"][0]["metadata"]["name"], "a");
    assert!(bare["items"][0]["spec"].is_null());
}
