//! Two nodes with traffic, some of which is refused and some of which fails.

use anyhow::Result;
use undermesh_tests::{
    PodSpec, Rig, ServiceSpec,
    pod::{
        Pod,
        http::{Ask, Load, PLAN},
        protocol::Behaviour,
    },
};

/// A policy that refuses somebody, one that would, one about requests, and a route to nowhere.
const OBJECTS: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-batch, namespace: shop}
spec:
  selector: {matchLabels: {app: payments}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [batch]}}], to: [{operation: {ports: ['8080']}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  action: DENY
  rules:
  - to: [{operation: {methods: [DELETE], paths: ['/admin*']}}]
    when: [{key: 'request.headers[x-key]', values: [very-secret]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: lost, namespace: shop}
spec: {hosts: [catalog], http: [{match: [{uri: {prefix: /lost}}], route: [{destination: {host: nowhere}}]}, {route: [{destination: {host: catalog}}]}]}
";

pub(super) struct Shop {
    // Processes end before their namespaces go.
    _pods: Vec<Pod>,
    pub(super) rig: Rig,
}

/// `web` asks `cart` (same node) and `catalog`, `catalog` asks `orders`, some of whose answers are failures, `orders` asks
/// `payments`, and `batch` is refused there.
pub(super) fn busy() -> Result<Shop> {
    let service = |name: &str| ServiceSpec::new(name, 80, 8080, &[name]).port(80, 8080, "http");
    let names = ["cart", "catalog", "orders", "payments"];
    let mut builder = Rig::builder()
        .node("a", ["web", "batch", "cart", "payments"].map(PodSpec::new))
        .node("b", ["catalog", "orders"].map(PodSpec::new));
    for name in names {
        builder = builder.service(service(name).looked_at());
    }
    let mut rig = builder.build()?;
    rig.start()?;
    rig.apply("objects", OBJECTS)?;
    let mut pods = Vec::new();
    for name in names {
        let pod = rig.pod(name)?;
        pod.listen("[::]:8080".parse()?, Behaviour::Http(name.to_owned()))?;
        pods.push(pod);
    }
    for (from, to, plan, pause) in [
        ("web", "cart", "200", 20),
        ("web", "catalog", "wait=8", 25),
        ("catalog", "orders", "wait=20", 40),
        ("catalog", "orders", "503", 900),
        ("orders", "payments", "wait=3", 60),
        ("cart", "payments", "wait=1", 90),
    ] {
        let pod = rig.pod(from)?;
        let ask = Ask {
            to: Some(rig.vip(to, 80)?),
            method: "GET".to_owned(),
            path: format!("/{to}/items?user=somebody"),
            authority: to.to_owned(),
            headers: [(PLAN.to_owned(), plan.to_owned())].into(),
            ..Ask::default()
        };
        pod.begin_load(Load { ask, askers: 2, pause })?;
        pods.push(pod);
    }
    Ok(Shop { _pods: pods, rig })
}
