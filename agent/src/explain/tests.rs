//! What only a mesh in memory can show: an agent that does not know all policies, and fields that are API.

use std::path::Path;

use super::*;

const MESH: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: a}
status: {podIPs: [{ip: 10.1.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: shop}
spec: {nodeName: a}
status: {podIPs: [{ip: 10.1.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop}
spec: {nodeName: b}
status: {podIPs: [{ip: 10.2.0.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: tcp, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: both, namespace: shop, labels: {kubernetes.io/service-name: both}}
addressType: IPv4
ports: [{name: tcp, port: 8080}]
endpoints: [{addresses: [10.1.0.2]}, {addresses: [10.2.0.1]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: shop}
spec: {selector: {matchLabels: {}}, rules: [{from: [{source: {namespaces: [elsewhere]}}]}]}
";

fn mesh(text: &str, partial: bool) -> Mesh {
    let analysis = analyze(&[Input::Text(Path::new("mesh"), text)]);
    let options = Options { root_namespace: "istio-system".to_owned(), ..Options::default() };
    Mesh {
        cluster: Arc::new(analysis.cluster),
        options: Options { node: "a".to_owned(), ..options },
        generation: Generation(7),
        own: None,
        partial,
        pods: Vec::new(),
        present: Present::default(),
        findings: Vec::new(),
        compiled: RefCell::default(),
    }
}

fn ask(mesh: &Mesh, source: &str, destination: &str) -> Explanation {
    let (source, destination) = (source.to_owned(), destination.to_owned());
    answer(mesh, &Question { source, destination, request: None }).unwrap()
}

#[test]
fn an_agent_does_not_guess_policies_of_other_nodes() {
    let partial = mesh(MESH, true);
    let told = ask(&partial, "shop/client", "shop/far:80");
    assert_eq!((told.verdict, told.reason.as_str()), (Verdict::Depends, "policies_elsewhere"));
    assert!(told.detail.contains("ask there"), "{}", told.detail);
    let told = ask(&partial, "shop/client", "shop/near:80");
    assert_eq!((told.verdict, told.reason.as_str()), (Verdict::Refused, "policy_denied"));
    let told = ask(&mesh(MESH, false), "shop/client", "shop/far:80");
    assert_eq!((told.verdict, told.reason.as_str()), (Verdict::Refused, "policy_denied"));
}

#[test]
fn every_way_that_chance_may_choose_is_followed() {
    let text = MESH.split("---\napiVersion: security").next().unwrap();
    let mesh = mesh(text, false);
    let told = ask(&mesh, "shop/client", "both");
    assert_eq!((told.verdict, told.generation), (Verdict::Carried, 7));
    let ways: Vec<_> = told
        .ways
        .iter()
        .map(|way| (way.percent, way.endpoints.join(" "), way.reason.as_str()))
        .collect();
    let expected = [
        (50.0, "10.1.0.2:8080".to_owned(), "local"),
        (50.0, "10.2.0.1:8080".to_owned(), "proxied"),
    ];
    assert_eq!(ways, expected);
}

#[test]
fn names_of_fields_are_stable() {
    let told = ask(&mesh(MESH, false), "shop/client", "shop/near:80");
    let json = serde_json::to_value(&told).unwrap();
    let fields = |value: &serde_json::Value| {
        let object = value.as_object().unwrap();
        object.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        fields(&json),
        "assumptions decidedAt destination detail dialled findings generation now reason request \
         source status steps verdict ways"
    );
    let way = &json["ways"][0];
    assert_eq!(fields(way), "decidedAt detail endpoints percent reason status steps verdict");
    let step = &way["steps"][0];
    assert_eq!(fields(step), "at lookups lost outcome step won");
    assert_eq!(fields(&step["lookups"][0]), "key map value");
    assert_eq!(fields(&json["source"]), "address identity mesh name node");
    let back: Explanation = serde_json::from_value(json).unwrap();
    assert_eq!(back.ways.len(), told.ways.len());
}
