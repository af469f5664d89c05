//! Policies as people write them, and what they do to tunnels.

use std::path::Path;

use super::*;
use crate::parse_manifests;

const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, team: blue}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: a, containers: [{name: x, image: x}]}
status: {podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: server, namespace: shop, labels: {app: server}, annotations: {undermesh.io/wire: hbone}}
spec: {nodeName: b, containers: [{name: x, image: x}]}
status: {podIP: 10.2.0.1, podIPs: [{ip: 10.2.0.1}], phase: Running}
---
";

/// `pod direction peer` of what is blocked, for one policy that selects the server or the client.
fn found(selected: &str, spec: &str) -> Vec<String> {
    found_among(PODS, selected, spec)
}

fn found_among(pods: &str, selected: &str, spec: &str) -> Vec<String> {
    let policy = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: p, namespace: shop}}\n\
         spec: {{podSelector: {{matchLabels: {{app: {selected}}}}}, {spec}}}\n"
    );
    let loaded = parse_manifests(pods, Path::new("pods.yaml"));
    let cluster = loaded.cluster.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    let evaluator = Evaluator::new(read::in_text(&policy), &cluster);
    let blocked = blocked(&evaluator, &cluster);
    assert!(blocked.iter().all(|it| it.policies[0].to_string() == "NetworkPolicy shop/p"));
    blocked.iter().map(|it| format!("{} {:?} {}", it.pod, it.direction, it.peer)).collect()
}

const IN: &str = "shop/server Ingress shop/client";
const OUT: &str = "shop/client Egress shop/server";

#[test]
fn a_policy_that_lets_the_application_in_but_not_the_tunnel_blocks_the_mesh() {
    for spec in [
        "ingress: [{ports: [{port: 8080}]}]",
        "ingress: [{ports: [{port: http, protocol: TCP}]}]",
        "ingress: [{ports: [{port: 8000, endPort: 9000}], from: [{podSelector: {}}]}]",
        "ingress: [{ports: [{port: 8080}], from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]",
        "ingress: [{ports: [{port: 8080}], from: [{ipBlock: {cidr: 10.1.0.0/16}}]}]",
    ] {
        assert_eq!(found("server", spec), [IN], "{spec}");
    }
    assert_eq!(found("client", "policyTypes: [Egress], egress: [{ports: [{port: 8080}]}]"), [OUT]);
    assert_eq!(found("client", "egress: [{ports: [{port: 8080}]}], policyTypes: []"), [OUT]);
}

#[test]
fn a_policy_that_lets_the_tunnel_pass_is_fine() {
    for spec in [
        "ingress: [{ports: [{port: 15008}, {port: 8080}]}]",
        "ingress: [{ports: [{port: 15000, endPort: 15010}]}]",
        "ingress: [{ports: [{protocol: TCP}]}]",
        "ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]",
        "ingress: [{ports: [{port: 8080}]}, {ports: [{port: 15008}]}]",
        "ingress: [{}]",
    ] {
        assert!(found("server", spec).is_empty(), "{spec}");
    }
    assert!(found("client", "policyTypes: [Egress], egress: [{}]").is_empty());
}

#[test]
fn the_native_wire_and_connections_within_a_node_need_no_tunnel() {
    let spec = "ingress: [{ports: [{port: 8080}]}]";
    let native = PODS.replace("wire: hbone", "wire: native");
    let together = PODS.replace("nodeName: b", "nodeName: a");
    assert_eq!(found("server", spec), [IN]);
    for pods in [native, together] {
        assert_ne!(pods, PODS);
        assert!(found_among(&pods, "server", spec).is_empty());
    }
}

#[test]
fn what_a_policy_isolates_on_purpose_is_not_reported() {
    for spec in [
        "ingress: []",
        "policyTypes: [Ingress]",
        "ingress: [{ports: [{port: 8080}], from: [{podSelector: {matchLabels: {app: x}}}]}]",
        "ingress: [{ports: [{port: 8080}], from: [{namespaceSelector: {matchLabels: {team: red}}}]}]",
        "ingress: [{ports: [{port: 8080}], from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]",
        "ingress: [{ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}]",
        "policyTypes: [Egress], egress: [{ports: [{port: 443}], to: [{ipBlock: {cidr: 0.0.0.0/32}}]}]",
    ] {
        assert!(found("server", spec).is_empty(), "{spec}");
    }
}

#[test]
fn expressions_select_as_kubernetes_says() {
    let spec = |expression: &str| {
        format!(
            "ingress: [{{ports: [{{port: 80}}], from: [{{podSelector: {{matchExpressions: [{expression}]}}}}]}}]"
        )
    };
    for (expression, selects) in [
        ("{key: app, operator: In, values: [client, x]}", true),
        ("{key: app, operator: NotIn, values: [client]}", false),
        ("{key: tier, operator: NotIn, values: [front]}", true),
        ("{key: app, operator: Exists}", true),
        ("{key: app, operator: DoesNotExist}", false),
        ("{key: app, operator: Resembles}", false),
    ] {
        assert_eq!(!found("server", &spec(expression)).is_empty(), selects, "{expression}");
    }
}

#[test]
fn policies_are_found_in_lists_and_nothing_else_is_taken_for_one() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: a}\n  spec: {podSelector: {}}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b}\n---\nkind: NetworkPolicyList\nitems: [{metadata: {name: c, namespace: shop}, spec: {}}]\n---\n{: NetworkPolicy\n";
    let names: Vec<_> = read::in_text(list).iter().map(|it| it.origin.to_string()).collect();
    assert_eq!(names, ["NetworkPolicy default/a", "NetworkPolicy shop/c"]);
}
