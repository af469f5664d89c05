//! Rules in, traffic of service ports out.

mod backend_tls;
mod blocks;
mod destinations;
mod entries;
mod l4;
mod order;
mod routes;

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, Method};
use undermesh_model::{
    Cluster, NamespacedName, ResourceRef, Workload,
    traffic::{
        Backend, BackendRef, DestinationRule, Dialect, HeaderOps, HttpAction, HttpMatch, HttpRule,
        Parent, Rewrite, RouteSet, Scope, Subset, TrafficPolicy,
    },
};

use crate::{
    ServicePortRoute,
    compile::{
        Compiled,
        tests::{cluster, run, service, socket, workload},
    },
    traffic::{Client, ClusterSpec, PortTraffic, RequestView, RouteAction, Target},
};

const CART: &str = "cart.shop.svc.cluster.local";
const CART_VIP: &str = "10.96.0.1:80";

/// Two clients on this node (of namespaces `shop` and `other`), and the service `cart` with two
/// endpoints: `cart-1` with label `version: v1`, enrolled, and `cart-2` with `v2`, not enrolled.
fn world() -> Cluster {
    let version = |mut pod: Workload, version: &str| {
        pod.labels.insert("version".to_owned(), version.to_owned());
        pod
    };
    let mut cart_2 = version(workload("cart-2", "b", &["10.1.1.2"]), "v2");
    cart_2.enrolment = undermesh_model::Enrolment::NotEnrolled("test".to_owned());
    let mut pods = vec![
        workload("web", "a", &["10.1.0.1"]),
        version(workload("cart-1", "b", &["10.1.1.1"]), "v1"),
        cart_2,
    ];
    pods.push(in_namespace(workload("admin", "a", &["10.1.0.9"]), "other"));
    let endpoints = [("10.1.1.1", true), ("10.1.1.2", true)];
    cluster(pods, vec![service("cart", &["10.96.0.1"], &endpoints)])
}

fn in_namespace(mut pod: Workload, namespace: &str) -> Workload {
    pod.name.namespace = namespace.to_owned();
    pod.origin.namespace = namespace.to_owned();
    pod
}

/// A rule that sends all that it matches to a host.
fn rule(name: &str, matches: Vec<HttpMatch>, to: BackendRef) -> HttpRule {
    HttpRule {
        name: name.to_owned(),
        matches,
        action: HttpAction::Forward(vec![backend(to)]),
        rewrite: Rewrite::default(),
        headers: HeaderOps::default(),
        timeout: None,
        retries: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
    }
}

fn backend(to: BackendRef) -> Backend {
    Backend { to, weight: 1, headers: HeaderOps::default() }
}

fn host(host: &str, port: Option<u16>, subset: Option<&str>) -> BackendRef {
    BackendRef::Host { host: host.to_owned(), port, subset: subset.map(str::to_owned) }
}

fn cart() -> BackendRef {
    host(CART, Some(80), None)
}

fn set(kind: &'static str, name: &str, parents: Vec<Parent>) -> RouteSet {
    let dialect = if kind == "VirtualService" { Dialect::Istio } else { Dialect::Gateway };
    RouteSet {
        origin: ResourceRef::namespaced(kind, "shop", name),
        name: NamespacedName::new("shop", name),
        dialect,
        precedence: 0,
        created: 0,
        scope: Scope::Everywhere,
        parents,
        http: Vec::new(),
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

/// A VirtualService with one rule of its own name for all requests to `host`.
fn virtual_service(name: &str, host: &str) -> RouteSet {
    let http = vec![rule(name, Vec::new(), cart())];
    RouteSet { http, ..set("VirtualService", name, vec![Parent::Host(host.to_owned())]) }
}

/// A route of the Gateway API for the service `cart`, with one rule of its own name.
fn gateway_route(kind: &'static str, name: &str, matches: Vec<HttpMatch>) -> RouteSet {
    let service = NamespacedName::new("shop", "cart");
    let http = vec![rule(name, matches, cart())];
    RouteSet { http, ..set(kind, name, vec![Parent::Service { service, port: None }]) }
}

fn destination_rule(namespace: &str, name: &str, host: &str) -> DestinationRule {
    DestinationRule {
        origin: ResourceRef::namespaced("DestinationRule", namespace, name),
        name: NamespacedName::new(namespace, name),
        precedence: 0,
        created: 0,
        host: host.to_owned(),
        selector: BTreeMap::new(),
        scope: Scope::Everywhere,
        policy: TrafficPolicy::default(),
        subsets: Vec::new(),
    }
}

fn subset(name: &str, version: &str) -> Subset {
    Subset {
        name: name.to_owned(),
        labels: [("version".to_owned(), version.to_owned())].into(),
        policy: TrafficPolicy::default(),
    }
}

fn add(cluster: &mut Cluster, rule: DestinationRule) {
    cluster.destination_rules.insert(rule.name.clone(), rule);
}

fn port<'a>(compiled: &'a Compiled, vip: &str) -> &'a ServicePortRoute {
    &compiled.snapshot.services[&socket(vip)]
}

fn traffic<'a>(compiled: &'a Compiled, namespace: &str) -> &'a Arc<PortTraffic> {
    &port(compiled, CART_VIP).traffic[namespace]
}

/// Names of the rules of a table, in order.
fn order(traffic: &PortTraffic) -> Vec<&str> {
    traffic.http.entries().map(|(_, route)| &*route.name).collect()
}

/// Findings as `object code`, and their messages.
fn findings(compiled: &Compiled) -> Vec<(String, String)> {
    let object = |one: &undermesh_model::Diagnostic| {
        let object = one.object.as_ref().map(ToString::to_string).unwrap_or_default();
        (format!("{object} {}", one.code), one.message.clone())
    };
    compiled.diagnostics.iter().map(object).collect()
}

/// Where a client's `GET /` leads, or the status that it gets.
fn led(
    traffic: &PortTraffic,
    client: &Client<'_>,
    authority: &str,
) -> Result<Arc<ClusterSpec>, u16> {
    let request = RequestView {
        method: &Method::GET,
        scheme: "http",
        authority,
        path: "/",
        query: None,
        headers: &HeaderMap::new(),
    };
    if traffic.http.is_empty() {
        return Ok(Arc::clone(&traffic.default));
    }
    let matched = traffic.http.find(client, &request).ok_or(404_u16)?;
    match &matched.route.action {
        RouteAction::Forward(all) => match &all[0].target {
            Target::Cluster(cluster) => Ok(Arc::clone(cluster)),
            Target::Unusable(status) => Err(*status),
        },
        other => panic!("not sent on: {other:?}"),
    }
}

fn addresses(cluster: &ClusterSpec) -> Vec<String> {
    cluster.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}
