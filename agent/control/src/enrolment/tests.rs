//! The table of labels.

use undermesh_model::Enrolment;

use crate::fixtures::{cluster, findings, name};

fn text(namespace: &str, pod: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {namespace}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop, labels: {pod}}}\n{rest}\n"
    )
}

fn decided(namespace: &str, pod: &str, rest: &str) -> Enrolment {
    cluster(&text(namespace, pod, rest)).workloads[&name("p")].enrolment.clone()
}

#[test]
fn labels_enrol_and_pods_beat_namespaces() {
    const AMBIENT: &str = "{istio.io/dataplane-mode: ambient}";
    const NONE: &str = "{istio.io/dataplane-mode: none}";
    const ENABLED: &str = "{undermesh.io/mesh: enabled}";
    const DISABLED: &str = "{undermesh.io/mesh: disabled}";
    for (namespace, pod, enrolled, because) in [
        ("{}", "{}", false, "no label enrols it or its namespace"),
        (AMBIENT, "{}", true, "label istio.io/dataplane-mode=ambient on Namespace shop"),
        (ENABLED, "{}", true, "label undermesh.io/mesh=enabled on Namespace shop"),
        (DISABLED, "{}", false, "label undermesh.io/mesh=disabled on Namespace shop"),
        ("{}", AMBIENT, true, "label istio.io/dataplane-mode=ambient on Pod shop/p"),
        (ENABLED, NONE, false, "label istio.io/dataplane-mode=none on Pod shop/p"),
        (AMBIENT, DISABLED, false, "label undermesh.io/mesh=disabled on Pod shop/p"),
        (NONE, ENABLED, true, "label undermesh.io/mesh=enabled on Pod shop/p"),
        (DISABLED, AMBIENT, true, "label istio.io/dataplane-mode=ambient on Pod shop/p"),
    ] {
        let because = because.to_owned();
        let expected =
            if enrolled { Enrolment::Enrolled(because) } else { Enrolment::NotEnrolled(because) };
        assert_eq!(decided(namespace, pod, ""), expected, "{namespace} {pod}");
    }
}

#[test]
fn contradictions_and_unknown_values_are_warnings_at_the_label() {
    for (pod, enrolled, expected) in [
        (
            "{undermesh.io/mesh: enabled, istio.io/dataplane-mode: none}",
            true,
            "Warning all.yaml:7: Pod shop/p: its labels undermesh.io/mesh and istio.io/dataplane-mode",
        ),
        (
            "{undermesh.io/mesh: disabled, istio.io/dataplane-mode: ambient}",
            false,
            "Warning all.yaml:7: Pod shop/p: its labels undermesh.io/mesh and istio.io/dataplane-mode",
        ),
        (
            "{undermesh.io/mesh: perhaps}",
            false,
            "Warning all.yaml:7: Pod shop/p: label undermesh.io/mesh is \"perhaps\"",
        ),
        (
            "{undermesh.io/mesh: perhaps, istio.io/dataplane-mode: ambient}",
            true,
            "Warning all.yaml:7: Pod shop/p: label undermesh.io/mesh is \"perhaps\"",
        ),
    ] {
        let text = text("{}", pod, "status: {podIP: 10.0.0.1}");
        let found = findings(&text);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with(expected), "{found:?}");
        assert_eq!(decided("{}", pod, "").is_enrolled(), enrolled, "{pod}");
    }
}

#[test]
fn pods_without_a_namespace_and_a_kernel_to_share_and_finished_ones_are_never_enrolled() {
    for (rest, because) in [
        ("spec: {hostNetwork: true}", "it shares the host's network namespace"),
        (
            "spec: {runtimeClassName: gvisor}",
            "runtime class gvisor (gvisor) gives it a kernel of its own, which programs of the node do not see",
        ),
        ("status: {phase: Succeeded}", "it has finished"),
        ("status: {phase: Failed}", "it has finished"),
    ] {
        let enabled = "{undermesh.io/mesh: enabled}";
        let expected = Enrolment::Impossible(because.to_owned());
        assert_eq!(decided(enabled, enabled, rest), expected, "{rest}");
        let expected = Enrolment::NotEnrolled(because.to_owned());
        assert_eq!(decided("{}", "{}", rest), expected, "{rest}");
    }
    assert!(
        decided("{}", "{undermesh.io/mesh: enabled}", "status: {phase: Running}").is_enrolled()
    );
}

#[test]
fn a_pod_needs_no_namespace_object() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\n";
    assert_eq!(findings(text), Vec::<String>::new());
    assert!(!cluster(text).workloads[&name("p")].enrolment.is_enrolled());
}
