//! Manifests with one mistake each, and the same without it.

use std::path::Path;

use undermesh_model::{NamespacedName, Severity};

use super::*;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cart, namespace: shop}
spec:
  template:
    metadata: {labels: {app: cart, version: v1}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80}]}
---
";

/// `file:line code` of what is found in the shop with something added.
fn found(added: &str) -> Vec<String> {
    let text = format!("{SHOP}{added}");
    let lines_before = SHOP.lines().count();
    let findings = analyze(&[Input::Text(Path::new("shop.yaml"), &text)]).into_diagnostics();
    let line = |finding: &Diagnostic| {
        finding.position.as_ref().map_or(0, |at| at.line.saturating_sub(lines_before))
    };
    findings.iter().map(|finding| format!("{} {}", line(finding), finding.code)).collect()
}

#[test]
fn what_is_right_is_not_blamed_and_kinds_of_others_are_none_of_our_business() {
    assert_eq!(found(""), Vec::<String>::new());
    let good = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: p, namespace: shop}\n\
                spec: {selector: {matchLabels: {app: cart}}, rules: [{}]}\n";
    assert_eq!(found(good), Vec::<String>::new());
    let of_mesh = "apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\n\
                   metadata: {name: p, namespace: shop}\n";
    assert_eq!(found(of_mesh), ["1 unread-kind"]);
}

#[test]
fn what_an_api_server_fills_in_need_not_be_written_and_other_tools_have_files_too() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: shop}\n\
                   spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}\n---\n\
                   apiVersion: v1\nkind: Service\nmetadata: {name: own, namespace: shop}\n\
                   spec: {clusterIP: None, selector: {app: cart}, ports: [{name: http, port: 80}]}\n";
    assert_eq!(found(service), Vec::<String>::new());
    let text = format!("{SHOP}{service}");
    let cluster = analyze(&[Input::Text(Path::new("shop.yaml"), &text)]).cluster;
    let addresses =
        |name: &str| cluster.services[&NamespacedName::new("shop", name)].cluster_ips.len();
    assert_eq!([addresses("cart"), addresses("pay"), addresses("own")], [1, 1, 0]);
    for text in ["replicas: 3\n", "- a\n- b\n", "text\n"] {
        let found = analyze(&[Input::Text(Path::new("values.yaml"), text)]).into_diagnostics();
        assert_eq!(
            (found.len(), found[0].code, found[0].severity),
            (1, "no-object", Severity::Info)
        );
    }
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
                      metadata: {name: meshconfigs.undermesh.io}\n";
    assert_eq!(found(definition), Vec::<String>::new());
}

#[test]
fn policies_that_select_nothing_are_found() {
    for (kind, version, spec) in [
        ("AuthorizationPolicy", "security.istio.io/v1", "rules: [{}]"),
        ("PeerAuthentication", "security.istio.io/v1", "mtls: {mode: PERMISSIVE}"),
        (
            "RequestAuthentication",
            "security.istio.io/v1",
            "jwtRules: [{issuer: a, jwksUri: 'https://a/b'}]",
        ),
    ] {
        let policy = format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {{selector: {{matchLabels: {{app: carte}}}}, {spec}}}\n"
        );
        assert_eq!(found(&policy), ["1 selects-nothing"], "{kind}");
    }
    // Of a namespace whose pods are not among the manifests, nothing is known but all the others.
    let elsewhere = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                     metadata: {name: p, namespace: istio-system}\n\
                     spec: {selector: {matchLabels: {app: cart}}, rules: [{}]}\n";
    assert_eq!(found(elsewhere), Vec::<String>::new());
}

#[test]
fn services_and_subsets_without_pods_are_found() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.2, selector: {app: pay}, ports: [{port: 80}]}\n";
    assert_eq!(found(service), ["1 service-without-pods"]);
    let rule = |labels: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: p, namespace: shop}}\n\
             spec: {{host: cart, subsets: [{{name: one, labels: {labels}}}]}}\n"
        )
    };
    assert_eq!(found(&rule("{version: v1}")), Vec::<String>::new());
    assert_eq!(found(&rule("{version: v2}")), ["1 subset-without-pods"]);
    assert_eq!(found(&rule("{app: pay}")), ["1 subset-without-pods"]);
}

#[test]
fn a_port_that_says_two_things_is_found() {
    let service = |name: &str, protocol: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: pay, namespace: shop}}\n\
             spec: {{clusterIP: 10.96.0.2, selector: {{app: cart}}, \
             ports: [{{name: {name}, port: 80, appProtocol: {protocol}}}]}}\n"
        )
    };
    for (name, protocol) in
        [("http-web", "tcp"), ("tcp", "http"), ("grpc", "mongo"), ("tls-a", "kubernetes.io/h2c")]
    {
        assert_eq!(found(&service(name, protocol)), ["1 port-name-against-protocol"], "{name}");
    }
    for (name, protocol) in
        [("http-web", "http"), ("web", "tcp"), ("tcp", "tls"), ("grpc", "kubernetes.io/h2c")]
    {
        assert_eq!(found(&service(name, protocol)), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn strict_beside_pods_outside_the_mesh_is_found() {
    let pods = |label: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\n\
             metadata: {{name: old, namespace: shop, labels: {{app: cart{label}}}}}\n\
             spec: {{nodeName: a}}\nstatus: {{podIP: 10.1.0.1}}\n---\n\
             apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: p, namespace: shop}}\nspec: {{mtls: {{mode: STRICT}}}}\n"
        )
    };
    assert_eq!(found(&pods(", istio.io/dataplane-mode: none")), ["7 strict-beside-unmeshed"]);
    assert_eq!(found(&pods("")), Vec::<String>::new());
}

#[test]
fn a_network_policy_that_keeps_tunnels_out_is_found_where_it_stands() {
    let pods = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {app: cart}, \
                annotations: {undermesh.io/wire: hbone}}\nspec: {nodeName: a}\n\
                status: {podIP: 10.1.0.1}\n---\n\
                apiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: shop, labels: {app: cart}}\n\
                spec: {nodeName: b}\nstatus: {podIP: 10.2.0.1}\n---\n\
                apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
                metadata: {name: p, namespace: shop}\n\
                spec: {podSelector: {}, ingress: [{ports: [{port: 8080}]}]}\n";
    let findings = found(pods);
    assert_eq!(
        findings.iter().filter(|it| **it == "13 network-policy-blocks-tunnel").count(),
        2,
        "{findings:?}"
    );
    assert_eq!(findings.len(), 2, "{findings:?}");
}

#[test]
fn an_object_that_is_wrong_does_not_hide_what_is_wrong_with_others() {
    let two = "apiVersion: v1\nkind: Service\nmetadata: {name: pay, namespace: shop}\n\
               spec: {clusterIP: 10.96.0.2, selector: {app: pay}, ports: [{port: eighty}]}\n---\n\
               apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
               metadata: {name: p, namespace: shop}\n\
               spec: {selector: {matchLabels: {app: carte}}, rules: [{}]}\n";
    assert_eq!(found(two), ["4 malformed-manifest", "6 selects-nothing"]);
}

#[test]
fn findings_of_the_compiler_get_their_place_and_are_said_once() {
    let mut analysis = analyze(&[Input::Text(Path::new("shop.yaml"), SHOP)]);
    assert_eq!((analysis.files, analysis.objects()), (1, 2));
    let origin = ResourceRef::namespaced("Service", "shop", "cart");
    let finding = warning("unusable-cluster-ip", &origin, "x", "y");
    analysis.add([finding.clone(), finding]);
    let found = analysis.into_diagnostics();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].to_string(), "shop.yaml:13: Service shop/cart: x [unusable-cluster-ip]; y");
    assert_eq!(found[0].severity, Severity::Warning);
}

#[test]
fn a_path_that_cannot_be_read_is_a_finding() {
    let found = analyze(&[Input::Path(Path::new("/nowhere/at-all"))]).into_diagnostics();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].severity), ("unreadable-file", Severity::Error));
}
