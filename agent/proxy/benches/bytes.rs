//! Framing and header rewrite: frames of the native wire, the strict reader of HTTP/1, a request's head as it is made
//! ready and as a route changes it, and what policies are asked about.
//!
//! `cargo bench -p undermesh-proxy --features fuzzing --bench bytes`: the feature shows the parsers, as to
//! `tests/fuzz`. Claims nothing: what is fast enough depends on the machine.
#![expect(clippy::unwrap_used, reason = "a benchmark may end")]

use std::{hint::black_box, net::SocketAddr, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput};
use http::{HeaderName, HeaderValue, Request, request::Parts};
use undermesh_model::{
    ResourceRef,
    traffic::{DirectResponse, PathRewrite},
};
use undermesh_proxy::fuzzing::{guard, http as edge, native};
use undermesh_snapshot::traffic::{ClusterSpec, CompiledRoute, HeaderEdits, RouteAction};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    frames(&mut criterion);
    requests(&mut criterion);
    heads(&mut criterion);
    readings(&mut criterion);
    criterion.final_summary();
}

/// A DATA frame of the native wire (docs/reference/wire.md).
fn frame(payload: &[u8]) -> Vec<u8> {
    const DATA: u8 = 4;
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[DATA, 0, high, low], payload].concat()
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for (name, size) in [("DATA of 64 B, 256 KiB", 64), ("DATA of 16 KiB, 256 KiB", 16 << 10)] {
        let one = frame(&vec![b'x'; size]);
        let many = one.repeat((256 << 10) / one.len());
        let read = native::read(&many, || usize::MAX, usize::MAX);
        assert!(read.error.is_none() && read.between_frames, "{:?}", read.error);
        group.throughput(Throughput::Bytes(many.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| native::read(black_box(&many), || usize::MAX, usize::MAX));
        });
    }
}

fn requests(criterion: &mut Criterion) {
    const FIELDS: &str = "host: cart.shop.svc.cluster.local\r\nuser-agent: curl/8\r\naccept: */*\r\n\
                          cookie: session=0123456789abcdef\r\nx-request-id: 0\r\n";
    let get = format!("GET /products/1?a=b HTTP/1.1\r\n{FIELDS}\r\n");
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let post =
        |body: &str, field: &str| format!("POST / HTTP/1.1\r\n{FIELDS}{field}\r\n\r\n{body}");
    let body = "x".repeat(256 << 10);
    let length = format!("content-length: {}", body.len());
    let mut group = criterion.benchmark_group("framing");
    for (name, text) in [
        ("HTTP/1, 100 heads", get.repeat(100)),
        ("HTTP/1, a body of 256 KiB", post(&body, &length)),
        (
            "HTTP/1, 16 chunks of 16 KiB",
            post(&format!("{}0\r\n\r\n", chunk.repeat(16)), "transfer-encoding: chunked"),
        ),
    ] {
        let followed = edge::follow(text.as_bytes(), || usize::MAX);
        assert_eq!((followed.refused, followed.passed), (None, text.len()));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| edge::follow(black_box(text.as_bytes()), || usize::MAX));
        });
    }
}

fn dialled() -> SocketAddr {
    ([10, 96, 0, 1], 80).into()
}

/// A request of three headers and so many more, two of them about the connection.
fn parts(path: &str, more: usize) -> Parts {
    let mut request = Request::get(path).header("host", "cart");
    request = request.header("connection", "keep-alive, x-hop").header("x-hop", "1");
    for number in 0..more {
        request = request.header(format!("x-{number}"), "value");
    }
    request.body(()).unwrap().into_parts().0
}

fn heads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("header rewrite");
    let (route, spec) = (route(), Arc::new(ClusterSpec::passthrough(80)));
    let change = |parts| edge::changed(parts, dialled(), &route, "/products".len(), &spec);
    let changed = change(parts("/products/1?a=b", 1)).unwrap();
    assert_eq!(changed.uri, "http://other/goods/1?a=b");
    assert_eq!(changed.headers["x-added"], "1");
    for (name, more) in [("4 headers", 1), ("40 headers", 37)] {
        let asked = parts("/products/1?a=b", more);
        group.bench_function(format!("{name}, made ready"), |bencher| {
            let ready = |parts| edge::head(parts, dialled());
            bencher.iter_batched(|| asked.clone(), ready, BatchSize::SmallInput);
        });
        group.bench_function(format!("{name}, and changed by a route"), |bencher| {
            bencher.iter_batched(|| asked.clone(), change, BatchSize::SmallInput);
        });
    }
}

/// Another path and authority, and a header each that is removed, set and added.
fn route() -> CompiledRoute {
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static("1");
    CompiledRoute {
        origin: ResourceRef::namespaced("HTTPRoute", "shop", "bench").into(),
        name: "0".into(),
        action: RouteAction::Direct(DirectResponse { status: 200, body: Vec::new() }),
        path: Some(PathRewrite::Matched("/goods".to_owned())),
        authority: Some(HeaderValue::from_static("other")),
        headers: HeaderEdits {
            request_remove: vec![name("x-0")],
            request_set: vec![(name("x-set"), value.clone())],
            request_add: vec![(name("x-added"), value)],
            ..HeaderEdits::default()
        },
        timeout: None,
        retries: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
    }
}

fn readings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy readings");
    for (name, path) in
        [("a plain path", "/products/1"), ("an ambiguous path", "/a/%2e%2e/b;c=d//e%252fadmin")]
    {
        let asked = parts(path, 1);
        let read = |parts| guard::readings(parts, dialled());
        assert!(read(asked.clone()).is_some());
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| asked.clone(), read, BatchSize::SmallInput);
        });
    }
}
