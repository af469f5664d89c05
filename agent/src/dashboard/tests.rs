//! The page and what it is made of.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;
use undermesh_control::parse_manifests;
use undermesh_model::Generation;
use undermesh_snapshot::{Options, compile};

use super::*;

/// Two pods of two nodes, a service of both, and policies about one of them.
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart}, annotations: {undermesh.io/netns: /run/netns/cart-0}}
spec: {nodeName: a, serviceAccountName: cart}
status: {phase: Running, podIPs: [{ip: 10.1.0.10}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {nodeName: b, serviceAccountName: cart}
status: {phase: Running, podIPs: [{ip: 10.2.0.10}]}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: cart}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard, namespace: shop}
spec:
  action: DENY
  rules:
  - from: [{source: {namespaces: [other], notPrincipals: ['*/ns/other/sa/good']}}]
    to: [{operation: {ports: ['8080', '9090']}}, {operation: {ports: ['8081']}}]
    when: [{key: destination.port, values: ['8080', '8081']}]
  - to: [{operation: {methods: [DELETE], paths: ['/admin*']}}]
    when: [{key: 'request.headers[x-key]', values: [very-secret]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none, namespace: shop}
spec: {}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: elsewhere, namespace: shop}
spec: {selector: {matchLabels: {app: other}}}
";

fn mesh(node: &str) -> Value {
    let loaded = parse_manifests(OBJECTS, Path::new("objects.yaml"));
    let cluster = loaded.cluster.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let options = Options { node: node.to_owned(), ..Options::default() };
    let compiled = compile(&cluster, &options, Generation(7));
    serde_json::to_value(Mesh::of(&compiled.snapshot)).unwrap()
}

#[test]
fn services_and_workloads_are_those_of_the_whole_mesh() {
    let mesh = mesh("a");
    assert_eq!(mesh["generation"], 7);
    let service = &mesh["services"][0];
    assert_eq!(service["host"], "cart.shop.svc.cluster.local");
    let port = &service["ports"][0];
    assert_eq!((&port["port"], &port["name"]), (&80.into(), &"http".into()));
    assert_eq!(port["addresses"], serde_json::json!(["10.96.0.1"]));
    let endpoints = port["endpoints"].as_array().unwrap();
    let of =
        |field: &str| endpoints.iter().map(|it| it[field].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(of("address"), ["10.1.0.10:8080", "10.2.0.10:8080"]);
    assert_eq!(of("pod"), ["cart-0", "cart-1"]);
    let pods: usize = mesh["workloads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["pods"].as_array().unwrap().len())
        .sum();
    assert_eq!(pods, 2);
    assert_eq!(mesh["workloads"][0]["identity"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(mesh["workloads"][0]["mtls"]["default"], "PERMISSIVE");
}

#[test]
fn a_policy_says_which_pods_and_ports_it_is_about_and_no_secret() {
    let mesh = mesh("a");
    let policies = mesh["policies"].as_array().unwrap();
    let names: Vec<_> = policies.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["guard", "none"]);
    let guard = &policies[0];
    assert_eq!((&guard["action"], &guard["state"]), (&"DENY".into(), &"enforced".into()));
    // Of this node alone: the other one's agent judges the other pod.
    assert_eq!(guard["pods"].as_array().unwrap().len(), 1);
    assert_eq!(guard["pods"][0]["name"], "cart-0");
    // The second rule is about any.
    assert_eq!(guard["ports"], Value::Null);
    let rules = guard["rules"].as_array().unwrap();
    assert_eq!(rules[0]["ports"], serde_json::json!([8080, 8081]));
    assert_eq!(rules[0]["requests"], false);
    let looks_at = rules[0]["looksAt"].as_array().unwrap();
    assert_eq!(looks_at[0], "from: not principals */ns/other/sa/good, namespaces other");
    assert_eq!(looks_at[1], "to[0]: ports 8080 9090");
    assert_eq!(rules[1]["requests"], true);
    assert_eq!(rules[1]["ports"], Value::Null);
    let text = rules[1]["looksAt"].to_string();
    assert!(text.contains("methods DELETE, paths /admin*"), "{text}");
    assert!(text.contains("header x-key"), "{text}");
    assert!(!mesh.to_string().contains("very-secret"), "{mesh}");
    // An ALLOW without rules.
    assert_eq!(policies[1]["rules"], serde_json::json!([]));
    assert_eq!(policies[1]["ports"], serde_json::json!([]));
}

#[test]
fn a_policy_is_about_nobody_where_its_pods_are_elsewhere() {
    assert_eq!(mesh("c")["policies"], serde_json::json!([]));
}

#[test]
fn the_page_can_be_got_and_nothing_else_can_be_done_with_it() {
    let of = |method: &Method, path: &str| page(method, path).map(|it| it.status.as_u16());
    assert_eq!(of(&Method::GET, "/dashboard/"), Some(200));
    assert_eq!(of(&Method::GET, "/dashboard"), Some(200));
    assert_eq!(of(&Method::GET, "/dashboard/main.js"), Some(200));
    assert_eq!(of(&Method::GET, "/dashboard/reference.json"), Some(200));
    assert_eq!(of(&Method::POST, "/dashboard/"), Some(405));
    for path in ["/dashboard/no.js", "/dashboard/../status", "/dashboards", "/status", "/"] {
        assert_eq!(of(&Method::GET, path), None, "{path}");
    }
}

#[test]
fn the_page_is_small_and_whole_and_makes_no_markup_of_data() {
    let names: BTreeSet<&str> = assets::FILES.iter().map(|(name, ..)| *name).collect();
    let size: usize = assets::FILES.iter().map(|(.., text)| text.len()).sum();
    assert!(size < 100 << 10, "{size} bytes");
    for (name, _, text) in assets::FILES {
        for line in text.lines().filter(|line| line.starts_with("import")) {
            let from = line.rsplit('\'').nth(1).unwrap();
            assert!(names.contains(from.trim_start_matches("./")), "{name}: {line}");
        }
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"]
        {
            assert!(!text.contains(forbidden), "{name} has {forbidden}");
        }
        let outside = text.matches("http://").count();
        assert_eq!(outside, text.matches("http://www.w3.org/2000/svg").count(), "{name}");
    }
    let (.., html) = assets::FILES.iter().find(|(name, ..)| *name == "index.html").unwrap();
    for attribute in ["onclick", "onload", "style=", "<style", "<script>"] {
        assert!(!html.contains(attribute), "{attribute}");
    }
}
