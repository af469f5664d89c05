//! Directories in, clusters and findings out.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use undermesh_model::{Enrolment, NamespacedName, PodLocation, Severity};

use super::*;

struct Dir(PathBuf);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir =
            Self(std::env::temp_dir().join(format!("um-control-{}-{id}", std::process::id())));
        fs::create_dir_all(&dir.0).unwrap();
        for (name, text) in files {
            dir.write(name, text);
        }
        dir
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn load(&self) -> Loaded {
        ManifestSource::new(&self.0).load()
    }

    /// The cluster of a directory without errors.
    fn cluster(&self) -> Cluster {
        let loaded = self.load();
        loaded.cluster.unwrap_or_else(|| panic!("rejected: {:#?}", loaded.diagnostics))
    }

    /// The findings, one line each, without the directory.
    fn findings(&self) -> Vec<String> {
        let prefix = format!("{}/", self.0.display());
        let lines = self.load().diagnostics;
        lines.iter().map(|finding| finding.to_string().replace(&prefix, "")).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const POD: &str = "apiVersion: v1
kind: Pod
metadata:
  name: cart
  namespace: shop
  labels: {app: cart, istio.io/dataplane-mode: ambient}
  annotations: {undermesh.io/netns: /run/netns/cart}
spec:
  nodeName: node-a
  serviceAccountName: cart
  containers:
  - name: app
    ports:
    - {name: http, containerPort: 8080}
status:
  podIPs:
  - ip: 10.1.0.2
  - ip: fd00::2
";

const ACCOUNT: &str = "apiVersion: v1
kind: ServiceAccount
metadata: {name: cart, namespace: shop}
";

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

#[test]
fn a_pod_is_read_with_all_that_the_mesh_needs() {
    let dir = Dir::new(&[("pods.yaml", &format!("---\n{POD}---\n{ACCOUNT}"))]);
    assert_eq!(dir.findings(), Vec::<String>::new());
    let cluster = dir.cluster();
    let cart = &cluster.workloads[&name("cart")];
    assert_eq!(cart.service_account, "cart");
    assert_eq!(cart.node.as_deref(), Some("node-a"));
    assert_eq!(cart.addresses.len(), 2);
    assert_eq!(cart.location, Some(PodLocation::Netns("/run/netns/cart".into())));
    let because = "label istio.io/dataplane-mode=ambient on Pod shop/cart";
    assert_eq!(cart.enrolment, Enrolment::Enrolled(because.to_owned()));
    assert_eq!(cart.workload_name, "cart");
}

#[test]
fn labels_enrol_and_pods_beat_namespaces() {
    for (namespace, pod, enrolled) in [
        ("{}", "{}", false),
        ("{istio.io/dataplane-mode: ambient}", "{}", true),
        ("{undermesh.io/mesh: enabled}", "{}", true),
        ("{undermesh.io/mesh: enabled}", "{istio.io/dataplane-mode: none}", false),
        ("{undermesh.io/mesh: enabled}", "{undermesh.io/mesh: disabled}", false),
        ("{undermesh.io/mesh: disabled}", "{undermesh.io/mesh: enabled}", true),
        ("{}", "{undermesh.io/mesh: enabled, istio.io/dataplane-mode: none}", true),
        ("{}", "{undermesh.io/mesh: yes-please}", false),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {namespace}}}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop, labels: {pod}}}\n\
             status: {{podIP: 10.0.0.1}}\n"
        );
        let cluster = Dir::new(&[("all.yaml", &text)]).cluster();
        let workload = &cluster.workloads[&name("p")];
        assert_eq!(workload.enrolment.is_enrolled(), enrolled, "{namespace} {pod}");
    }
}

#[test]
fn host_network_and_finished_pods_are_never_enrolled() {
    for extra in
        ["spec: {hostNetwork: true}", "status: {phase: Succeeded}", "status: {phase: Failed}"]
    {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop, labels: {{undermesh.io/mesh: enabled}}}}\n{extra}\n"
        );
        let cluster = Dir::new(&[("p.yaml", &text)]).cluster();
        assert!(!cluster.workloads[&name("p")].enrolment.is_enrolled(), "{extra}");
    }
}

#[test]
fn every_mistake_is_named_with_its_place_and_rejects_the_state() {
    let lines = |text: &str, from: &str, to: &str| text.replace(from, to);
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: shop}\nspec:\n  clusterIP: 10.96.0.1\n  ports:\n  - port: 80\n";
    for (text, expected) in [
        (lines(POD, "nodeName: node-a", "nodeName: [1"), "pods.yaml:"),
        (lines(POD, "nodeName: node-a", "nodeName: [1, 2]"), "pods.yaml:13: Pod shop/cart: "),
        (lines(POD, "containerPort: 8080", "containerPort: high"), "pods.yaml:18: Pod shop/cart: "),
        (
            lines(POD, "containerPort: 8080", "containerPort: 80800"),
            "pods.yaml:5: Pod shop/cart: containerPort is 80800",
        ),
        (
            lines(POD, "10.1.0.2", "10.1.0.256"),
            "pods.yaml:5: Pod shop/cart: status.podIPs \"10.1.0.256\" is not an IP address",
        ),
        (
            lines(POD, "fd00::2", "10.1.0.3"),
            "pods.yaml:5: Pod shop/cart: status.podIPs has a second address of a family",
        ),
        (
            lines(POD, "/run/netns/cart", "cart"),
            "pods.yaml:5: Pod shop/cart: annotation undermesh.io/netns is \"cart\"",
        ),
        (
            lines(POD, "/run/netns/cart", "/a, undermesh.io/cgroup: b"),
            "pods.yaml:5: Pod shop/cart: annotations undermesh.io/netns and undermesh.io/cgroup",
        ),
        (
            lines(POD, "apiVersion: v1", "apiVersion: v2"),
            "pods.yaml:5: Pod shop/cart: apiVersion is \"v2\"",
        ),
        (
            lines(POD, "  name: cart", "  nme: cart"),
            "pods.yaml:5: this document has no metadata.name",
        ),
        (lines(POD, "kind: Pod", "sort: Pod"), "pods.yaml:5: this document has no kind"),
        (
            format!("{POD}---\n{POD}"),
            "pods.yaml:24: Pod shop/cart: is written twice; the first is at pods.yaml:5",
        ),
        (
            format!("{POD}---\n{}", lines(POD, "name: cart\n", "name: twin\n")),
            "pods.yaml:24: Pod shop/twin: its address 10.1.0.2 belongs to Pod shop/cart as well",
        ),
        (
            lines(service, "10.96.0.1", "10.96"),
            "pods.yaml:5: Service shop/s: clusterIP \"10.96\" is not an IP address",
        ),
        (lines(service, "port: 80", "port: 0"), "pods.yaml:5: Service shop/s: port is 0"),
        (
            format!("{service}    protocol: QUIC\n"),
            "pods.yaml:5: Service shop/s: protocol \"QUIC\" does not exist",
        ),
        (
            format!("{service}  - port: 81\n"),
            "pods.yaml:5: Service shop/s: two ports are named \"\"",
        ),
        ("a: &a [x]\nb: *c\n".to_owned(), "pods.yaml:"),
    ] {
        let dir = Dir::new(&[("pods.yaml", &format!("# comment\n\n---\n\n{text}"))]);
        let findings = dir.findings();
        assert!(
            findings.iter().any(|finding| finding.starts_with(expected)),
            "{expected:?} is not among {findings:#?}"
        );
        assert!(dir.load().cluster.is_none(), "{expected:?} was accepted");
    }
}

#[test]
fn what_is_not_read_is_said_and_rejects_nothing() {
    let dir = Dir::new(&[
        ("a.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n"),
        (
            "b.yml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {type: ExternalName}\n",
        ),
        (
            "c.json",
            "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"t\"}}",
        ),
        (
            "d.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {serviceAccountName: ghost}\n",
        ),
        ("ignored.txt", "not: [yaml"),
        (".hidden.yaml", "not: [yaml"),
        ("backup.yaml~", "not: [yaml"),
    ]);
    let findings = dir.findings();
    assert_eq!(findings.len(), 4, "{findings:#?}");
    assert!(findings[0].starts_with("a.yaml:1: Deployment \"d\" is of a kind"));
    assert!(findings[1].starts_with("d.yaml:1: Pod default/p: its ServiceAccount default/ghost"));
    assert!(findings[2].starts_with("b.yml:1: Service default/s: type ExternalName"));
    assert!(findings[3].starts_with("c.json:1: Service default/t: has no clusterIP"));
    assert!(dir.load().diagnostics.iter().all(|finding| finding.severity == Severity::Warning));
    dir.cluster();
}

#[test]
fn lists_are_read_item_by_item() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: b}\n";
    let cluster = Dir::new(&[("list.yaml", text)]).cluster();
    assert_eq!(cluster.namespaces.len(), 2);
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: cart}
  ports:
  - {name: web, port: 80, targetPort: http}
  - {name: raw, port: 90, targetPort: 9090}
";

#[test]
fn endpoints_are_derived_from_the_selector_where_nobody_wrote_them() {
    let not_ready = POD
        .replace("name: cart\n", "name: cold\n")
        .replace("10.1.0.2", "10.1.0.3")
        .replace("fd00::2", "fd00::3")
        .replace("status:\n", "status:\n  conditions: [{type: Ready, status: 'False'}]\n");
    let other = POD
        .replace("name: cart\n", "name: other\n")
        .replace("app: cart", "app: other")
        .replace("10.1.0.2", "10.1.0.4")
        .replace("fd00::2", "fd00::4");
    let text = [POD, &not_ready, &other, ACCOUNT, SERVICE].join("---\n");
    let cluster = Dir::new(&[("all.yaml", &text)]).cluster();
    let slices: Vec<_> = cluster.endpoint_slices.values().collect();
    assert_eq!(slices.len(), 1);
    let ports: Vec<_> = slices[0].ports.iter().map(|p| (p.name.as_str(), p.port)).collect();
    assert_eq!(ports, [("web", 8080), ("raw", 9090)]);
    let endpoints: Vec<_> =
        slices[0].endpoints.iter().map(|e| (e.address.to_string(), e.ready)).collect();
    assert_eq!(endpoints.len(), 4);
    assert!(endpoints.contains(&("10.1.0.2".to_owned(), true)));
    assert!(endpoints.contains(&("fd00::3".to_owned(), false)));
}

#[test]
fn written_endpoint_slices_are_taken_as_they_are() {
    let slice = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: web, port: 8081}]
endpoints:
- {addresses: [10.9.9.9], targetRef: {kind: Pod, name: cart}}
- {addresses: [10.9.9.8], conditions: {ready: false}}
- {addresses: [10.9.9.7], conditions: {ready: true, terminating: true}}
";
    let text = [POD, ACCOUNT, SERVICE, slice].join("---\n");
    let cluster = Dir::new(&[("all.yaml", &text)]).cluster();
    assert_eq!(cluster.endpoint_slices.len(), 1);
    let slice = &cluster.endpoint_slices[&name("cart-1")];
    let ready: Vec<_> = slice.endpoints.iter().map(|endpoint| endpoint.ready).collect();
    assert_eq!(ready, [true, false, false]);
    assert_eq!(slice.endpoints[0].pod, Some(name("cart")));
}

async fn next(updates: &mut mpsc::Receiver<SourceUpdate>) -> SourceUpdate {
    tokio::time::timeout(Duration::from_secs(20), updates.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_bad_edit_is_rejected_and_a_good_one_is_published() {
    let dir = Dir::new(&[("pods.yaml", &format!("{POD}---\n{ACCOUNT}"))]);
    let mut updates = ManifestSource::new(&dir.0).watch().unwrap();
    let SourceUpdate::State { cluster, generation, .. } = next(&mut updates).await else {
        panic!("the first state was rejected");
    };
    assert_eq!((generation, cluster.workloads.len()), (Generation(1), 1));
    dir.write("pods.yaml", "kind: [");
    let SourceUpdate::Rejected { diagnostics } = next(&mut updates).await else {
        panic!("nonsense was accepted");
    };
    assert!(diagnostics[0].to_string().contains("pods.yaml:"), "{diagnostics:?}");
    dir.write(
        "pods.yaml",
        &POD.replace("10.1.0.2", "10.1.0.9").replace("serviceAccountName: cart", ""),
    );
    let SourceUpdate::State { cluster, generation, .. } = next(&mut updates).await else {
        panic!("the correction was rejected");
    };
    assert_eq!(generation, Generation(2));
    assert_eq!(cluster.workloads[&name("cart")].addresses[0].to_string(), "10.1.0.9");
}

#[tokio::test]
async fn a_directory_that_is_missing_is_rejected_until_it_is_there() {
    let dir = Dir::new(&[]);
    let below = dir.0.join("later");
    let mut updates = ManifestSource::new(&below).watch().unwrap();
    assert!(matches!(next(&mut updates).await, SourceUpdate::Rejected { .. }));
    fs::create_dir(&below).unwrap();
    assert!(matches!(next(&mut updates).await, SourceUpdate::State { .. }));
}

#[test]
fn a_change_that_says_nothing_new_is_not_published() {
    let mut state = State::default();
    let texts = |text: &str| vec![(PathBuf::from("a.yaml"), text.to_owned())];
    assert!(state.next(texts(ACCOUNT), Report::default()).is_some());
    assert!(state.next(texts(ACCOUNT), Report::default()).is_none());
    assert!(state.next(texts(&format!("# comment\n{ACCOUNT}")), Report::default()).is_none());
    assert!(state.next(texts(&ACCOUNT.replace("cart", "web")), Report::default()).is_some());
}

#[test]
fn aliases_that_explode_and_deep_nesting_are_refused() {
    let mut bomb = "kind: List\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 10].join(","));
    }
    bomb += "items: [*a11]\n";
    for text in [bomb, "[".repeat(100_000)] {
        let dir = Dir::new(&[("bomb.yaml", &text)]);
        assert!(dir.load().cluster.is_none());
    }
}
