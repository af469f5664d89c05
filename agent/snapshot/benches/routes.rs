//! How long 10,000 routes take to compile, and one of them to be found.
//!
//! `cargo bench -p undermesh-snapshot`. Prints; claims nothing: what is fast enough depends on the machine.
#![expect(clippy::unwrap_used, reason = "a benchmark may end")]

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method};
use undermesh_model::{
    Cluster, Distribution, Enrolment, Generation, NamespacedName, Protocol, ResourceRef, Service,
    ServicePort, TargetPort, Wire, Workload,
    traffic::{
        Backend, BackendRef, Dialect, DirectResponse, HeaderOps, HttpAction, HttpMatch, HttpRule,
        Parent, PathMatch, Rewrite, RouteSet, Scope,
    },
};
use undermesh_snapshot::{
    Options, compile,
    traffic::{
        Client, CompiledRoute, HeaderEdits, RequestMatch, RequestView, RouteAction, RouteTable,
    },
};

const LOOKUPS: u32 = 200_000;

fn main() {
    type Make = fn(usize) -> PathMatch;
    let kinds: [(&str, Make); 4] = [
        ("exact", |number| PathMatch::Exact(path(number))),
        ("prefix", |number| PathMatch::Prefix(path(number))),
        ("elements", |number| PathMatch::Elements(path(number))),
        ("regex", |number| PathMatch::Regex(format!("{}/?[a-z]*", path(number)))),
    ];
    println!("{:>10} {:>8} {:>12} {:>14}", "kind", "routes", "compile", "look-up");
    for (name, make) in kinds {
        for routes in [100, 1_000, 10_000] {
            let (table, compile) = compiled(routes, make);
            let each = lookup(&table, routes);
            println!("{name:>10} {routes:>8} {compile:>12.1?} {each:>14.1?}");
        }
    }
    println!("a whole state, 1 object with 10,000 rules: {:.1?}", whole(1, 10_000));
    println!("a whole state, 10,000 objects with 1 rule: {:.1?}", whole(10_000, 1));
}

/// All of a state: one client, one service, and its routes in one object or in one each.
fn whole(objects: usize, rules: usize) -> Duration {
    let cart = NamespacedName::new("shop", "cart");
    let mut cluster = Cluster::default();
    cluster.workloads.insert(NamespacedName::new("shop", "web"), client());
    cluster.services.insert(cart.clone(), service(&cart));
    let rule = |number| HttpRule {
        name: String::new(),
        matches: vec![HttpMatch {
            path: Some(PathMatch::Elements(path(number))),
            ..HttpMatch::default()
        }],
        action: HttpAction::Forward(vec![Backend {
            to: BackendRef::Host {
                host: "cart.shop.svc.cluster.local".to_owned(),
                port: Some(80),
                subset: None,
            },
            weight: 1,
            headers: HeaderOps::default(),
        }]),
        rewrite: Rewrite::default(),
        headers: HeaderOps::default(),
        timeout: None,
        retries: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
    };
    cluster.routes = (0..objects)
        .map(|object| RouteSet {
            origin: ResourceRef::namespaced("HTTPRoute", "shop", object.to_string()),
            name: NamespacedName::new("shop", object.to_string()),
            dialect: Dialect::Gateway,
            precedence: 0,
            created: 0,
            scope: Scope::Everywhere,
            parents: vec![Parent::Service { service: cart.clone(), port: None }],
            http: (object * rules..(object + 1) * rules).map(rule).collect(),
            tls: Vec::new(),
            tcp: Vec::new(),
        })
        .collect();
    let options = Options { node: "a".to_owned(), ..Options::default() };
    let start = Instant::now();
    black_box(compile(&cluster, &options, Generation(1)));
    start.elapsed()
}

fn client() -> Workload {
    Workload {
        origin: ResourceRef::namespaced("Pod", "shop", "web"),
        name: NamespacedName::new("shop", "web"),
        service_account: "web".to_owned(),
        node: Some("a".to_owned()),
        addresses: vec![IpAddr::from([10, 1, 0, 1])],
        labels: BTreeMap::new(),
        enrolment: Enrolment::Enrolled("bench".to_owned()),
        location: None,
        outbound_failure: None,
        source_address: None,
        weight: 1,
        probe_ports: BTreeSet::new(),
        wire: Wire::default(),
        host_network: false,
        terminated: false,
        workload_name: "web".to_owned(),
    }
}

fn service(name: &NamespacedName) -> Service {
    Service {
        origin: ResourceRef::namespaced("Service", "shop", "cart"),
        name: name.clone(),
        cluster_ips: vec![IpAddr::from([10, 96, 0, 1])],
        headless: false,
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 80,
            target_port: TargetPort::Number(80),
            protocol: Protocol::Tcp,
            app_protocol: None,
        }],
        selector: BTreeMap::new(),
        publish_not_ready: false,
        affinity: false,
        distribution: Distribution::Anywhere,
        l7: false,
    }
}

fn path(number: usize) -> String {
    format!("/api/v{}/items/{number}", number % 7)
}

fn compiled(routes: usize, make: fn(usize) -> PathMatch) -> (RouteTable, Duration) {
    let route = Arc::new(CompiledRoute {
        origin: ResourceRef::namespaced("HTTPRoute", "shop", "bench"),
        name: "0".to_owned(),
        action: RouteAction::Direct(DirectResponse { status: 200, body: Vec::new() }),
        path: None,
        authority: None,
        headers: HeaderEdits::default(),
        timeout: None,
        retries: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
    });
    let matches: Vec<_> = (0..routes)
        .map(|number| HttpMatch { path: Some(make(number)), ..HttpMatch::default() })
        .collect();
    let start = Instant::now();
    let entry =
        |from: &HttpMatch| (RequestMatch::new(from, Dialect::Istio).unwrap(), Arc::clone(&route));
    let table = RouteTable::new(matches.iter().map(entry).collect());
    (table, start.elapsed())
}

fn lookup(table: &RouteTable, routes: usize) -> Duration {
    let asked: Vec<String> = (0..64).map(|number| path(number * routes / 64)).collect();
    let (labels, headers) = (BTreeMap::new(), HeaderMap::new());
    let client = Client { namespace: "shop", labels: &labels };
    let start = Instant::now();
    for path in asked.iter().cycle().take(LOOKUPS as usize) {
        let request = RequestView {
            method: &Method::GET,
            scheme: "http",
            authority: "cart",
            path,
            query: None,
            headers: &headers,
        };
        black_box(table.find(&client, black_box(&request)));
    }
    start.elapsed() / LOOKUPS
}
