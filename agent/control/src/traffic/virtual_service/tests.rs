//! Manifests in, route sets and findings out.

mod actions;
mod delegates;
mod layer_4;
mod matches;
mod objects;
mod policies;
mod refused;

use undermesh_model::traffic::{Backend, BackendRef, HeaderOps, HttpAction, HttpRule, RouteSet};

use crate::fixtures::{documents, load};

/// An object about `cart` in the namespace `shop`, with this below `spec` in flow style.
fn object(spec: &str) -> String {
    named("routes", &format!("{{hosts: [cart], {spec}}}"))
}

/// An object with this `spec`.
fn named(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
    )
}

/// The sets of routes (none where there are errors), and the findings without place and object.
fn read(texts: &[&str]) -> (Vec<RouteSet>, Vec<String>) {
    let loaded = load(&documents(texts));
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    (loaded.cluster.map(|cluster| cluster.routes).unwrap_or_default(), said.collect())
}

/// The only set of an object that nothing is said against.
fn set(text: &str) -> RouteSet {
    let (mut sets, said) = read(&[text]);
    assert_eq!(said, Vec::<String>::new());
    assert_eq!(sets.len(), 1);
    sets.remove(0)
}

/// The only rule for requests; `rule` stands in flow style beside a route to `cart`.
fn rule(rule: &str) -> HttpRule {
    let route = "route: [{destination: {host: cart}}]";
    let mut set = set(&object(&format!("http: [{{{route}, {rule}}}]")));
    assert_eq!(set.http.len(), 1);
    set.http.remove(0)
}

/// A backend of the namespace `shop`.
fn backend(name: &str, port: Option<u16>, subset: Option<&str>, weight: u32) -> Backend {
    Backend { to: host(name, port, subset), weight, headers: HeaderOps::default() }
}

fn host(name: &str, port: Option<u16>, subset: Option<&str>) -> BackendRef {
    BackendRef::Host {
        host: format!("{name}.shop.svc.cluster.local"),
        port,
        subset: subset.map(str::to_owned),
    }
}

/// The hosts that a rule leads to.
fn forwarded(rule: &HttpRule) -> &[Backend] {
    match &rule.action {
        HttpAction::Forward(backends) => backends,
        other => panic!("it is not sent on: {other:?}"),
    }
}
