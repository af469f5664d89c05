//! What the model keeps of each kind.

use undermesh_model::{PodLocation, TargetPort};

use crate::fixtures::{ACCOUNT, POD, SERVICE, cluster, documents, findings, name};

#[test]
fn a_pod_is_read_with_all_that_the_mesh_needs() {
    let text = documents(&[POD, ACCOUNT]);
    assert_eq!(findings(&text), Vec::<String>::new());
    let cart = &cluster(&text).workloads[&name("cart")];
    assert_eq!(cart.service_account, "cart");
    assert_eq!(cart.node.as_deref(), Some("node-a"));
    let addresses: Vec<_> = cart.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.1.0.2", "fd00::2"]);
    assert_eq!(cart.location, Some(PodLocation::Netns("/run/netns/cart".into())));
    assert_eq!(cart.workload_name, "cart");
    assert!(!cart.host_network && !cart.terminated && cart.outbound_failure.is_none());
}

#[test]
fn a_bare_pod_lives_in_the_default_namespace_with_the_default_account() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: ''}\n";
    assert_eq!(findings(text), Vec::<String>::new());
    let cluster = cluster(text);
    let (key, pod) = cluster.workloads.first_key_value().unwrap();
    assert_eq!((key.to_string().as_str(), pod.service_account.as_str()), ("default/p", "default"));
    assert!(pod.addresses.is_empty() && pod.node.is_none() && pod.location.is_none());
}

#[test]
fn a_workload_is_named_after_what_made_it() {
    let labels = "pod-template-hash: 5d4f";
    for (labels, owner, expected) in [
        (labels, "{kind: ReplicaSet, name: web-5d4f, controller: true}", "web"),
        ("", "{kind: ReplicaSet, name: web-5d4f, controller: true}", "web-5d4f"),
        (labels, "{kind: ReplicaSet, name: other, controller: true}", "other"),
        (labels, "{kind: StatefulSet, name: db-5d4f, controller: true}", "db-5d4f"),
        (labels, "{kind: ReplicaSet, name: web-5d4f}", "p"),
    ] {
        let owner = owner.replace('}', ", apiVersion: apps/v1, uid: u}");
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  namespace: shop\n  \
             labels: {{{labels}}}\n  ownerReferences: [{owner}]\n"
        );
        assert_eq!(cluster(&text).workloads[&name("p")].workload_name, expected, "{owner}");
    }
}

#[test]
fn pods_are_found_by_cgroup_as_well() {
    let text =
        POD.replace("undermesh.io/netns: /run/netns/cart", "undermesh.io/cgroup: a/b.service");
    let cart = &cluster(&documents(&[&text, ACCOUNT])).workloads[&name("cart")];
    assert_eq!(cart.location, Some(PodLocation::Cgroup("a/b.service".into())));
}

#[test]
fn mapped_addresses_become_ipv4_and_count_once() {
    let text = POD.replace("fd00::2", "'::ffff:10.1.0.2'") + "  podIP: 10.1.0.2\n";
    let cart = &cluster(&documents(&[&text, ACCOUNT])).workloads[&name("cart")];
    assert_eq!(cart.addresses, ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]);
}

#[test]
fn what_is_probably_not_meant_is_a_warning_with_a_remedy() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e, labels: {kubernetes.io/service-name: s}}\naddressType: IPv4\nendpoints: []\n";
    let unlabelled = slice.replace(", labels: {kubernetes.io/service-name: s}", "");
    for (text, expected) in [
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {serviceAccountName: ghost}\n",
            "Warning all.yaml:1: Pod default/p: its ServiceAccount default/ghost does not exist",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {undermesh.io/mesh: enabled}}\n",
            "Warning all.yaml:1: Pod default/p: is enrolled and has no address yet",
        ),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  clusterIP: ''\n",
            "Warning all.yaml:5: Service default/s: has no clusterIP",
        ),
        (slice, "Warning all.yaml:1: EndpointSlice default/e: belongs to Service default/s, which"),
        (&unlabelled, "Warning all.yaml:3: EndpointSlice default/e: has no label"),
    ] {
        let found = findings(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(expected) && found[0].contains("; "), "{found:?}");
        cluster(text);
    }
}

#[test]
fn virtual_addresses_are_those_of_both_fields() {
    for (spec, addresses, headless) in [
        ("{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.1, 'fd00::1']}", 2, false),
        ("{clusterIP: 10.0.0.1}", 1, false),
        ("{clusterIP: None}", 0, true),
        ("{clusterIPs: [None]}", 0, true),
        ("{clusterIP: ''}", 0, false),
        ("{}", 0, false),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: s, namespace: shop}}\nspec: {spec}\n"
        );
        let service = &cluster(&text).services[&name("s")];
        assert_eq!((service.cluster_ips.len(), service.headless), (addresses, headless), "{spec}");
    }
}

#[test]
fn a_target_port_is_the_port_unless_it_says_otherwise() {
    for (written, expected) in [
        ("", TargetPort::Number(80)),
        (", targetPort: 0", TargetPort::Number(80)),
        (", targetPort: ''", TargetPort::Number(80)),
        (", targetPort: 8080", TargetPort::Number(8080)),
        (", targetPort: '8080'", TargetPort::Number(8080)),
        (", targetPort: http", TargetPort::Name("http".to_owned())),
    ] {
        let text = SERVICE.replace(", targetPort: http", written);
        let service = &cluster(&text).services[&name("cart")];
        assert_eq!(service.ports[0].target_port, expected, "{written:?}");
    }
}

#[test]
fn an_annotation_leads_a_services_requests_through_the_proxy() {
    let annotated = |value: &str| {
        let metadata = format!("annotations: {{undermesh.io/l7: '{value}'}}");
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: cart\n  namespace: shop\n  \
                 {metadata}\nspec:\n  clusterIP: 10.96.0.9\n  ports: [{{port: 80}}]\n"
        )
    };
    for (value, expected) in [("true", true), ("false", false)] {
        assert_eq!(cluster(&annotated(value)).services[&name("cart")].l7, expected, "{value}");
    }
    assert_eq!(findings(&annotated("true")), Vec::<String>::new());
    assert!(findings(&annotated("on"))[0].contains("unknown-annotation-value"));
}

#[test]
fn nodes_are_read_with_their_internal_addresses() {
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: Host_1, labels: {topology.kubernetes.io/zone: z}}\nstatus:\n  addresses:\n  - {type: InternalIP, address: 10.0.0.1}\n  - {type: ExternalIP, address: 192.0.2.1}\n  - {type: Hostname, address: host}\n";
    let node = &cluster(text).nodes["Host_1"];
    assert_eq!(node.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(node.labels["topology.kubernetes.io/zone"], "z");
}

#[test]
fn the_manifests_of_the_guide_are_accepted_without_a_finding() {
    let guide = include_str!("../../../../docs/guide/standalone.md");
    let text = guide.split("```").find_map(|block| block.strip_prefix("yaml\napiVersion: "));
    let text = format!("apiVersion: {}", text.unwrap());
    assert_eq!(findings(&text), Vec::<String>::new());
    let cluster = cluster(&text);
    assert!(cluster.workloads.values().all(|pod| pod.enrolment.is_enrolled()));
    assert_eq!((cluster.workloads.len(), cluster.endpoint_slices.len()), (2, 1));
}

#[test]
fn an_external_name_is_kept_with_its_host_and_ports() {
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: away, namespace: shop}}\nspec:\n  \
             type: ExternalName\n  externalName: {name}\n  ports: [{{name: http, port: 80}}]\n"
        )
    };
    let text = service("API.example.com.");
    assert_eq!(findings(&text), Vec::<String>::new());
    let cluster = cluster(&text);
    let away = &cluster.external_names[&name("away")];
    assert_eq!((away.host.as_str(), away.ports[0].port), ("api.example.com", 80));
    assert!(cluster.services.is_empty());
    for wrong in ["''", "a/b", "'*.example.com'"] {
        let found = findings(&service(wrong));
        assert!(found[0].contains("invalid-external-name") || found[0].contains("externalName"));
        assert!(found[0].starts_with("Error all.yaml:6"), "{found:?}");
    }
}

/// A rule that names the Secret `s`, before whatever else there is.
const SECRETIVE: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r, namespace: shop}
spec: {host: a.example, trafficPolicy: {tls: {mode: MUTUAL, credentialName: s}}}
";

fn secret(name: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\n{rest}\n")
}

#[test]
fn secrets_that_a_rule_names_are_kept_as_far_as_tls_needs_them() {
    let own = secret("s", "data: {tls.crt: YQ==, tls.key: Yg==, ca.crt: Yw==, password: ZA==}");
    let companion = secret("s-cacert", "stringData: {cacert: e, ca.crt: f, crl: g}");
    let other = secret("other", "data: {tls.key: Yg==}");
    let text = documents(&[SECRETIVE, &own, &companion, &other]);
    assert_eq!(findings(&text), Vec::<String>::new());
    let secrets = cluster(&text).tls_secrets;
    assert_eq!(secrets.keys().collect::<Vec<_>>(), [&name("s"), &name("s-cacert")]);
    let shown = |bytes: &Option<undermesh_model::traffic::SecretBytes>| {
        bytes.as_ref().map(|bytes| String::from_utf8(bytes.expose().to_vec()).unwrap())
    };
    let own = &secrets[&name("s")];
    let all = [&own.certificate, &own.key, &own.ca, &own.crl].map(shown);
    assert_eq!(all, [Some("a"), Some("b"), Some("c"), None].map(|one| one.map(str::to_owned)));
    let companion = &secrets[&name("s-cacert")];
    assert_eq!((shown(&companion.ca), shown(&companion.crl)), (Some("e".into()), Some("g".into())));
    let debug = format!("{own:?}");
    assert!(!debug.contains("[98]") && debug.contains("key: Some(..)"), "{debug}");
}

#[test]
fn what_a_secret_holds_is_in_no_finding() {
    for rest in ["data: s3cret", "data: {tls.key: s3cret}", "stringData: {tls.key: [s3cret]}"] {
        let found = findings(&secret("s", rest));
        assert!(found.len() == 1 && found[0].starts_with("Error all.yaml:4"), "{found:?}");
        assert!(!found[0].contains("s3cret"), "{found:?}");
    }
    assert!(findings(SECRETIVE)[0].starts_with("Warning all.yaml:1: DestinationRule shop/r: "));
}
