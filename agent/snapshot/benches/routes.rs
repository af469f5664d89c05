//! Route lookup: one request's route among up to 10,000, and how long those take to compile.
//!
//! `cargo bench -p undermesh-snapshot --bench routes`. Claims nothing: what is fast enough depends on the machine.
#![expect(clippy::unwrap_used, reason = "a benchmark may end")]

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{Criterion, SamplingMode};
use http::{HeaderMap, Method};
use undermesh_model::{
    ResourceRef,
    traffic::{Dialect, DirectResponse, HttpMatch, PathMatch},
};
use undermesh_snapshot::traffic::{
    Client, CompiledRoute, HeaderEdits, RequestMatch, RequestView, RouteAction, RouteTable,
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    type Make = fn(usize) -> PathMatch;
    let kinds: [(&str, Make); 4] = [
        ("exact", |number| PathMatch::Exact(path(number))),
        ("prefix", |number| PathMatch::Prefix(path(number))),
        ("elements", |number| PathMatch::Elements(path(number))),
        ("regex", |number| PathMatch::Regex(format!("{}/?[a-z]*", path(number)))),
    ];
    for (kind, make) in kinds {
        for routes in [100, 1_000, 10_000] {
            lookup(&mut criterion, kind, &matches(routes, make));
        }
        compile(&mut criterion, kind, &matches(10_000, make));
    }
    criterion.final_summary();
}

fn path(number: usize) -> String {
    format!("/api/v{}/items/{number}", number % 7)
}

fn matches(routes: usize, make: fn(usize) -> PathMatch) -> Vec<HttpMatch> {
    (0..routes)
        .map(|number| HttpMatch { path: Some(make(number)), ..HttpMatch::default() })
        .collect()
}

fn table(matches: &[HttpMatch]) -> RouteTable {
    let route = Arc::new(CompiledRoute {
        origin: ResourceRef::namespaced("HTTPRoute", "shop", "bench").into(),
        name: "0".into(),
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
    let entry =
        |from: &HttpMatch| (RequestMatch::new(from, Dialect::Istio).unwrap(), Arc::clone(&route));
    RouteTable::new(matches.iter().map(entry).collect())
}

fn compile(criterion: &mut Criterion, kind: &str, matches: &[HttpMatch]) {
    let mut group = criterion.benchmark_group("route compile");
    // Expressions take a second.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function(format!("{kind}, {} routes", matches.len()), |bencher| {
        bencher.iter_with_large_drop(|| table(black_box(matches)));
    });
}

fn lookup(criterion: &mut Criterion, kind: &str, matches: &[HttpMatch]) {
    let table = table(matches);
    let asked: Vec<String> = (0..64).map(|number| path(number * matches.len() / 64)).collect();
    let (labels, headers) = (BTreeMap::new(), HeaderMap::new());
    let client = Client { namespace: "shop", labels: &labels };
    let view = |path| RequestView {
        method: &Method::GET,
        scheme: "http",
        authority: "cart",
        path,
        query: None,
        headers: &headers,
    };
    assert!(asked.iter().all(|path| table.find(&client, &view(path)).is_some()));
    let mut paths = asked.iter().cycle();
    let mut group = criterion.benchmark_group("route lookup");
    group.bench_function(format!("{kind}, {} routes", matches.len()), |bencher| {
        bencher.iter(|| {
            let path = paths.next().map_or("/", String::as_str);
            black_box(table.find(&client, black_box(&view(path))).is_some())
        });
    });
}
