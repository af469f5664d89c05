//! Snapshot compile: a whole state of the configuration, with many pods or with many routes.
//!
//! `cargo bench -p undermesh-snapshot --bench snapshot`. Claims nothing: what is fast enough depends on the machine.
#![expect(clippy::unwrap_used, reason = "a benchmark may end")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use criterion::Criterion;
use undermesh_model::{
    AuthorizationPolicy, Cluster, Distribution, Enrolment, Generation, NamespacedName, Operation,
    PodLocation, PolicyAction, Protocol, ResourceRef, Rule, Service, ServicePort, Source,
    TargetPort, TextMatch, Values, Wire, Workload,
    traffic::{
        Backend, BackendRef, Dialect, HeaderOps, HttpAction, HttpMatch, HttpRule, Parent,
        PathMatch, Rewrite, RouteSet, Scope,
    },
};
use undermesh_snapshot::{Options, compile};

/// The node that is compiled for.
const NODE: &str = "node0";
/// Pods of a service, and of a node.
const PER_SERVICE: usize = 10;
const PER_NODE: usize = 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("snapshot compile");
    let options = Options { node: NODE.to_owned(), ..Options::default() };
    for (name, cluster) in [
        ("1000 pods, 100 services, 500 policies", pods(1_000)),
        ("10000 pods, 1000 services, 5000 policies", pods(10_000)),
        ("1 object of 10000 routes", routes(1, 10_000)),
        ("10000 objects of 1 route", routes(10_000, 1)),
    ] {
        let compiled = compile(&cluster, &options, Generation(1));
        assert!(compiled.diagnostics.is_empty(), "{}", compiled.diagnostics[0]);
        let services = compiled.snapshot.services.len();
        assert_eq!(services, cluster.services.len(), "every service has an endpoint");
        group.sample_size(20).bench_function(name, |bencher| {
            bencher.iter_with_large_drop(|| compile(&cluster, &options, Generation(1)));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// So many pods, a service for every ten of them, and half as many policies.
fn pods(count: usize) -> Cluster {
    let mut cluster = Cluster::default();
    for number in 0..count {
        let pod = pod(number);
        cluster.workloads.insert(pod.name.clone(), pod);
    }
    for number in 0..count / PER_SERVICE {
        let service = service(number);
        cluster.services.insert(service.name.clone(), service);
    }
    for number in 0..count / 2 {
        let policy = policy(number, count / PER_SERVICE);
        cluster.authorization_policies.insert(policy.name.clone(), policy);
    }
    cluster
}

/// One client, one service, and its routes in so many objects.
fn routes(objects: usize, rules: usize) -> Cluster {
    let mut cluster = pods(PER_SERVICE);
    cluster.authorization_policies.clear();
    let service = NamespacedName::new("shop", "app0");
    cluster.routes = (0..objects)
        .map(|object| RouteSet {
            origin: ResourceRef::namespaced("HTTPRoute", "shop", object.to_string()),
            name: NamespacedName::new("shop", object.to_string()),
            dialect: Dialect::Gateway,
            precedence: 0,
            created: 0,
            scope: Scope::Everywhere,
            parents: vec![Parent::Service { service: service.clone(), port: None }],
            http: (object * rules..(object + 1) * rules).map(rule).collect(),
            tls: Vec::new(),
            tcp: Vec::new(),
        })
        .collect();
    cluster
}

fn pod(number: usize) -> Workload {
    let [_, high, middle, low] = u32::try_from(number).unwrap().to_be_bytes();
    let name = NamespacedName::new("shop", format!("pod{number}"));
    let app = format!("app{}", number / PER_SERVICE);
    Workload {
        origin: ResourceRef::namespaced("Pod", "shop", name.name.clone()),
        name,
        service_account: app.clone(),
        node: Some(format!("node{}", number / PER_NODE)),
        addresses: vec![IpAddr::from([10, 100 + high, middle, low])],
        labels: app_label(&app),
        enrolment: Enrolment::Enrolled("bench".to_owned()),
        location: Some(PodLocation::Netns(format!("/run/netns/pod{number}").into())),
        outbound_failure: None,
        source_address: None,
        weight: 1,
        probe_ports: BTreeSet::new(),
        wire: Wire::default(),
        host_network: false,
        terminated: false,
        workload_name: app,
    }
}

fn app_label(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), app.to_owned())])
}

fn service(number: usize) -> Service {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    let name = NamespacedName::new("shop", format!("app{number}"));
    Service {
        origin: ResourceRef::namespaced("Service", "shop", name.name.clone()),
        cluster_ips: vec![Ipv4Addr::new(10, 97, high, low).into()],
        headless: false,
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 80,
            target_port: TargetPort::Number(8080),
            protocol: Protocol::Tcp,
            app_protocol: None,
        }],
        selector: app_label(&name.name),
        name,
        publish_not_ready: false,
        affinity: false,
        distribution: Distribution::Anywhere,
        l7: false,
    }
}

/// Lets two service accounts reach a port of an application.
fn policy(number: usize, apps: usize) -> AuthorizationPolicy {
    let name = NamespacedName::new("shop", format!("policy{number}"));
    let account = |name| TextMatch::Exact(format!("cluster.local/ns/shop/sa/{name}{number}"));
    let principals = Values { any_of: ["a", "b"].map(account).into(), none_of: Vec::new() };
    let ports = Values { any_of: vec![8080], none_of: Vec::new() };
    AuthorizationPolicy {
        origin: ResourceRef::namespaced("AuthorizationPolicy", "shop", name.name.clone()),
        name,
        action: PolicyAction::Allow,
        provider: None,
        selector: app_label(&format!("app{}", number % apps)),
        dry_run: false,
        rules: vec![Rule {
            from: vec![Source { principals, ..Source::default() }],
            to: vec![Operation { ports, ..Operation::default() }],
            ..Rule::default()
        }],
    }
}

fn rule(number: usize) -> HttpRule {
    let path = format!("/api/v{}/items/{number}", number % 7);
    HttpRule {
        name: String::new(),
        matches: vec![HttpMatch { path: Some(PathMatch::Elements(path)), ..HttpMatch::default() }],
        action: HttpAction::Forward(vec![Backend {
            to: BackendRef::Host {
                host: "app0.shop.svc.cluster.local".to_owned(),
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
    }
}
