//! Every mistake is named with object, line, reason and remedy, and rejects the whole state.

use proptest::prelude::*;

use crate::fixtures::{ACCOUNT, POD, SERVICE, cluster, documents, findings, load};

/// Where the object under test begins: after a comment, a separator and an empty line.
const LEAD: &str = "# comment\n\n---\n\n";

/// Asserts that `text` is rejected with `finding`, and that the finding says what to do.
fn rejects(text: &str, finding: &str) {
    let text = format!("{LEAD}{text}");
    let found = findings(&text);
    let expected = format!("Error all.yaml:{finding}");
    assert!(
        found.iter().any(|found| found.starts_with(&expected)),
        "{expected:?} is not among {found:#?}"
    );
    let loaded = load(&text);
    assert!(loaded.cluster.is_none(), "{expected:?} was accepted");
    for diagnostic in loaded.diagnostics {
        assert!(!diagnostic.remedy.is_empty(), "{diagnostic} has no remedy");
    }
}

fn rejects_each(base: &str, cases: &[(&str, &str, &str)]) {
    for (from, to, finding) in cases {
        assert!(base.contains(from), "{from:?} is not in the manifest");
        rejects(&base.replacen(from, to, 1), finding);
    }
}

#[test]
fn mistakes_in_a_pod_are_named_with_their_line() {
    rejects_each(
        POD,
        &[
            ("node-a", "[1", "14: Pod shop/cart: "),
            ("node-a", "[1, 2]", "13: Pod shop/cart: spec.nodeName: invalid type: sequence"),
            ("8080", "high", "19: Pod shop/cart: spec.containers[0].ports[0].containerPort: inv"),
            ("8080", "80800", "19: Pod shop/cart: spec.containers[0].ports[0].containerPort is 8"),
            ("8080", "1, protocol: X", "19: Pod shop/cart: spec.containers[0].ports[0].protocol"),
            ("10.1.0.2", "10.1.0.256", "22: Pod shop/cart: status.podIPs[0].ip \"10.1.0.256\" is"),
            ("fd00::2", "10.1.0.3", "23: Pod shop/cart: its status has a second address of a fam"),
            ("/run/netns/cart", "cart", "11: Pod shop/cart: annotation undermesh.io/netns is \"c"),
            ("netns/cart", "../cart", "11: Pod shop/cart: annotation undermesh.io/netns is \"/run"),
            ("/run/netns/cart", "7", "11: Pod shop/cart: metadata.annotations[\"undermesh.io/netn"),
            (
                "/run/netns/cart",
                "/a, undermesh.io/cgroup: b",
                "11: Pod shop/cart: annotations undermesh.io/netns and undermesh.io/cgroup are both",
            ),
            (
                "undermesh.io/netns: /run/netns/cart",
                "undermesh.io/cgroup: a/../../b",
                "11: Pod shop/cart: annotation undermesh.io/cgroup is \"a/../../b\"",
            ),
            (
                "undermesh.io/netns: /run/netns/cart",
                "undermesh.io/outbound-failure: maybe",
                "11: Pod shop/cart: annotation undermesh.io/outbound-failure is \"maybe\"",
            ),
            (
                "undermesh.io/netns: /run/netns/cart",
                "undermesh.io/source-address: Transparent",
                "11: Pod shop/cart: annotation undermesh.io/source-address is \"Transparent\"",
            ),
            (
                "undermesh.io/netns: /run/netns/cart",
                "undermesh.io/wire: http",
                "11: Pod shop/cart: annotation undermesh.io/wire is \"http\"",
            ),
            (
                "undermesh.io/netns: /run/netns/cart",
                "undermesh.io/weight: '0'",
                "11: Pod shop/cart: annotation undermesh.io/weight is \"0\"",
            ),
            ("Name: cart", "Name: a/sa/b", "14: Pod shop/cart: spec.serviceAccountName \"a/sa/b\""),
            ("app: cart", "app: 1", "10: Pod shop/cart: metadata.labels.app: invalid type: int"),
            ("nodeName: node-a", "nodeName: a\n  nodeName: b", "14: Pod shop/cart: "),
        ],
    );
}

#[test]
fn what_identifies_an_object_is_checked_first() {
    rejects_each(
        POD,
        &[
            ("apiVersion: v1", "apiVersion: v2", "5: Pod shop/cart: apiVersion is \"v2\" instead"),
            ("apiVersion: v1", "apiVersion: apps/v1", "5: Pod shop/cart: apiVersion is \"apps/v1"),
            ("apiVersion: v1\n", "", "5: Pod shop/cart: apiVersion is \"\" instead of v1"),
            ("  name: cart", "  nme: cart", "5: this Pod has no metadata.name"),
            ("  name: cart", "  generateName: cart-", "5: this Pod has no metadata.name"),
            ("  name: cart", "  name: [cart]", "8: metadata.name is no text"),
            (
                "  name: cart",
                "  name: Cart",
                "8: Pod shop/Cart: metadata.name \"Cart\" is no valid",
            ),
            ("namespace: shop", "namespace: a/b", "9: Pod a/b/cart: metadata.namespace \"a/b\""),
            ("kind: Pod", "sort: Pod", "5: this document has no kind"),
            ("kind: Pod", "kind: 5", "6: kind is no text"),
        ],
    );
    for (text, finding) in [
        ("just text\n", "5: this document is no object"),
        ("- a\n- b\n", "5: this document is no object"),
        ("kind: Pod\nmetadata: [x]\n", "6: metadata is no map"),
        ("apiVersion: v1\nkind: List\nitems: {a: b}\n", "7: items is no list"),
        ("a: &a [x]\nb: *c\n", "6: "),
    ] {
        rejects(text, finding);
    }
}

#[test]
fn mistakes_in_a_service_are_named_with_their_line() {
    rejects_each(
        SERVICE,
        &[
            ("10.96.0.1", "10.96.0", "9: Service shop/cart: spec.clusterIP \"10.96.0\" is not"),
            ("port: 80", "port: 0", "12: Service shop/cart: spec.ports[0].port is 0, which is no"),
            ("9090", "70000", "13: Service shop/cart: spec.ports[1].targetPort is 70000"),
            ("9090", "'70000'", "13: Service shop/cart: spec.ports[1].targetPort is 70000"),
            ("port: 80", "port: 80, protocol: QUIC", "12: Service shop/cart: spec.ports[0].protoc"),
            ("name: raw", "name: web", "13: Service shop/cart: two ports are named \"web\""),
            ("port: 90", "port: 80", "13: Service shop/cart: two ports have the number 80"),
            ("selector:", "sessionAffinity: X\n  selector:", "10: Service shop/cart: sessionAffi"),
            ("name: cart", "name: a.b", "7: Service shop/a.b: metadata.name \"a.b\" is no valid"),
        ],
    );
}

#[test]
fn objects_that_exclude_one_another_are_both_named() {
    rejects(
        &documents(&[POD, POD]),
        "25: Pod shop/cart: is written twice; the first is at all.yaml:5",
    );
    rejects(
        &documents(&[POD, &POD.replace("name: cart\n", "name: twin\n")]),
        "25: Pod shop/twin: its address 10.1.0.2 belongs to Pod shop/cart as well",
    );
    let external =
        SERVICE.replace("spec:\n", "spec:\n  type: ExternalName\n  externalName: a.example\n");
    rejects(&documents(&[&external, SERVICE]), "17: Service shop/cart: is written twice");
}

#[test]
fn finished_and_host_network_pods_share_addresses_with_anyone() {
    let finished = POD
        .replace("name: cart\n", "name: old\n")
        .replace("status:\n", "status:\n  phase: Failed\n");
    let host = POD
        .replace("name: cart\n", "name: host\n")
        .replace("spec:\n", "spec:\n  hostNetwork: true\n");
    let cluster = cluster(&documents(&[POD, &finished, &host, ACCOUNT]));
    assert_eq!(cluster.workloads.len(), 3);
}

#[test]
fn items_of_lists_are_objects_with_lines_of_their_own() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  status:\n    podIP: 10.0.0.1\n";
    assert_eq!(cluster(list).workloads.len(), 1);
    rejects_each(
        list,
        &[
            ("10.0.0.1", "10.0.0", "15: Pod default/p: status.podIP \"10.0.0\" is not an IP"),
            ("10.0.0.1", "[]", "15: Pod default/p: status.podIP: invalid type: sequence"),
            ("{name: p}", "{}", "11: this Pod has no metadata.name"),
        ],
    );
    let typed =
        "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: p}\n- metadata: {name: q}\n";
    assert_eq!(cluster(typed).workloads.len(), 2);
}

#[test]
fn kinds_that_are_not_read_are_said_and_reject_nothing() {
    for (text, expected) in [
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n",
            "kind Deployment (apps/v1)",
        ),
        ("apiVersion: x.io/v1\nkind: AllowList\nmetadata: {name: d}\n", "kind AllowList (x.io/v1)"),
        ("apiVersion: x.io/v1\nkind: Kustomization\n", "kind Kustomization (x.io/v1)"),
        (
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: d}\n",
            "kind Service (serving.knative.dev/v1)",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: PodTemplate, metadata: {name: d}}]\n",
            "kind PodTemplate (v1)",
        ),
    ] {
        let found = findings(text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].contains(expected) && found[0].starts_with("Warning all.yaml:"),
            "{found:?}"
        );
        cluster(text);
    }
}

#[test]
fn unknown_fields_are_tolerated_as_kubernetes_does() {
    let text = POD.replace("spec:\n", "extra: {a: [1]}\nspec:\n  futureField: true\n");
    assert_eq!(findings(&documents(&[&text, ACCOUNT])), Vec::<String>::new());
}

#[test]
fn json_is_read_as_kubectl_prints_it() {
    let text = "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\"name\": \"shop\", \"annotations\": {\"a\": \"\\u00e9\\/\\n\\ud83d\\ude00\"}}\n}\n";
    assert_eq!(findings(text), Vec::<String>::new());
    assert!(cluster(text).namespaces.contains_key("shop"));
}

#[test]
fn windows_line_ends_and_byte_order_marks_change_nothing() {
    let text = documents(&[POD, ACCOUNT]);
    let windows = format!("\u{feff}---\r\n{}", text.replace('\n', "\r\n"));
    assert_eq!(findings(&windows), Vec::<String>::new());
    assert_eq!(cluster(&windows), cluster(&text));
}

#[test]
fn the_number_of_objects_is_bounded() {
    let items = "- {kind: Namespace}\n".repeat(200_001);
    let found = findings(&format!("apiVersion: v1\nkind: List\nitems:\n{items}"));
    let last = found.last().unwrap();
    assert!(
        last.starts_with("Error all.yaml:200004: there are more than 200000 objects"),
        "{last}"
    );
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        load(&text);
    }

    #[test]
    fn any_damage_is_answered_and_errors_are_placed(
        at in any::<prop::sample::Index>(),
        length in 0..20usize,
        patch in "[-a-z0-9:{}\\[\\]&*|> \n\"'.%#]{0,12}",
    ) {
        let mut text: Vec<char> = documents(&[POD, SERVICE, ACCOUNT]).chars().collect();
        let from = at.index(text.len());
        let to = (from + length).min(text.len());
        text.splice(from..to, patch.chars());
        let text: String = text.into_iter().collect();
        let lines = text.lines().count();
        let loaded = load(&text);
        prop_assert_eq!(
            loaded.cluster.is_none(),
            loaded.diagnostics.iter().any(|found| found.severity == undermesh_model::Severity::Error)
        );
        for found in loaded.diagnostics {
            let line = found.position.as_ref().map(|position| position.line);
            // A mistake can be that the text ends.
            prop_assert!(line.is_some_and(|line| (1..=lines + 1).contains(&line)), "{}", found);
        }
    }
}
