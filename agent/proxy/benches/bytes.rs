//! How long it takes to look at what peers send: frames of the native wire, the strict reader of HTTP/1, a request's
//! head, and what policies are asked about.
//!
//! `cargo bench -p undermesh-proxy --features fuzzing`: the feature shows the parsers, as to `tests/fuzz`. Prints; claims
//! nothing: what is fast enough depends on the machine.
#![expect(clippy::unwrap_used, reason = "a benchmark may end")]

use std::{
    hint::black_box,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::{Request, request::Parts};
use undermesh_proxy::fuzzing::{guard, http as edge, native};

/// Each is repeated for so long.
const LONG: Duration = Duration::from_millis(500);

fn main() {
    println!("{:>36} {:>12} {:>12}", "", "each", "GiB/s");
    frames();
    requests();
    heads();
}

/// How long one call takes, and what of `bytes` it gets through.
fn timed(name: &str, bytes: usize, mut call: impl FnMut()) {
    let (start, mut calls) = (Instant::now(), 0_u32);
    while start.elapsed() < LONG {
        // Looking at the clock is not what is measured.
        for _ in 0..16 {
            call();
        }
        calls += 16;
    }
    let each = start.elapsed() / calls;
    let rate = bytes as f64 / each.as_secs_f64() / f64::from(1 << 30);
    println!("{name:>36} {each:>12.1?} {rate:>12.2}");
}

/// A DATA frame of the native wire (docs/reference/wire.md).
fn frame(payload: &[u8]) -> Vec<u8> {
    const DATA: u8 = 4;
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[DATA, 0, high, low], payload].concat()
}

fn frames() {
    for (name, size) in [("native DATA of 64 B", 64), ("native DATA of 16 KiB", 16 << 10)] {
        let one = frame(&vec![b'x'; size]);
        let many = one.repeat((256 << 10) / one.len());
        let read = native::read(&many, || usize::MAX, usize::MAX);
        assert!(read.error.is_none() && read.between_frames, "{:?}", read.error);
        timed(name, many.len(), || {
            black_box(native::read(black_box(&many), || usize::MAX, usize::MAX));
        });
    }
}

fn requests() {
    const FIELDS: &str = "host: cart.shop.svc.cluster.local\r\nuser-agent: curl/8\r\naccept: */*\r\n\
                          cookie: session=0123456789abcdef\r\nx-request-id: 0\r\n";
    let get = format!("GET /products/1?a=b HTTP/1.1\r\n{FIELDS}\r\n");
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    let post =
        |body: &str, field: &str| format!("POST / HTTP/1.1\r\n{FIELDS}{field}\r\n\r\n{body}");
    let body = "x".repeat(256 << 10);
    let length = format!("content-length: {}", body.len());
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
        timed(name, text.len(), || {
            black_box(edge::follow(black_box(text.as_bytes()), || usize::MAX));
        });
    }
}

fn heads() {
    let dialled: SocketAddr = ([10, 96, 0, 1], 80).into();
    let parts = |path: &str, more: usize| -> Parts {
        let mut request = Request::get(path).header("host", "cart");
        request = request.header("connection", "keep-alive, x-hop").header("x-hop", "1");
        for number in 0..more {
            request = request.header(format!("x-{number}"), "value");
        }
        request.body(()).unwrap().into_parts().0
    };
    for (name, more) in [("a head of 4 headers", 1), ("a head of 40 headers", 37)] {
        let asked = parts("/products/1?a=b", more);
        timed(name, 0, || {
            black_box(edge::head(black_box(asked.clone()), dialled)).unwrap();
        });
    }
    for (name, path) in [
        ("readings of a plain path", "/products/1"),
        ("readings of an ambiguous path", "/a/%2e%2e/b;c=d//e%252fadmin"),
    ] {
        let asked = parts(path, 1);
        timed(name, 0, || {
            black_box(guard::readings(black_box(asked.clone()), dialled)).unwrap();
        });
    }
}
