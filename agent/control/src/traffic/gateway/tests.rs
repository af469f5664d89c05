//! Manifests in, nouns and findings out.

mod grants;
mod http;
mod l4;
mod refused;

use undermesh_model::{
    Cluster,
    traffic::{Backend, BackendRef, HeaderOps, HttpRule, RouteSet},
};

use crate::fixtures::{documents, load};

/// Services: `cart` with two ports and `v2` in `shop`, `pay` in `bank`, a headless one, one of
/// another name.
const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: web, port: 80}, {name: raw, port: 90}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: pay, namespace: bank}
spec: {clusterIP: 10.96.0.3, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: pods, namespace: shop}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: shop}
spec: {type: ExternalName, externalName: a.example}
";

/// A route in `shop` with the Service `cart` as its parent.
fn route(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: r, namespace: shop}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: cart}}]\n{spec}"
    )
}

/// An HTTPRoute with these rules.
fn rules(rules: &str) -> String {
    route("HTTPRoute", &format!("  rules: {rules}\n"))
}

/// The cluster (an empty one where there are errors), and the findings without place and object.
fn read(text: &str) -> (Cluster, Vec<String>) {
    let loaded = load(&documents(&[SERVICES, text]));
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    (loaded.cluster.unwrap_or_default(), said.collect())
}

/// The only set of routes of a text that nothing is said against.
fn quiet(text: &str) -> RouteSet {
    let (mut cluster, said) = read(text);
    assert_eq!(said, Vec::<String>::new(), "{text}");
    assert_eq!(cluster.routes.len(), 1, "{text}");
    cluster.routes.remove(0)
}

/// The only rule of such a text.
fn rule(text: &str) -> HttpRule {
    let mut set = quiet(text);
    assert_eq!(set.http.len(), 1);
    set.http.remove(0)
}

/// A Service of the mesh.
fn host(name: &str, namespace: &str, port: u16) -> BackendRef {
    let host = format!("{name}.{namespace}.svc.cluster.local");
    BackendRef::Host { host, port: Some(port), subset: None }
}

fn backend(to: BackendRef, weight: u32) -> Backend {
    Backend { to, weight, headers: HeaderOps::default() }
}

/// A text that is read with exactly one finding, which begins like this.
fn says(text: &str, expected: &str) -> Cluster {
    let (cluster, said) = read(text);
    assert!(said.len() == 1 && said[0].starts_with(expected), "{expected:?}: {said:#?}\n{text}");
    cluster
}
