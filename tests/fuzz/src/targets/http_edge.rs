//! HTTP/1 as a client sends it: where requests begin and end, and what a connection speaks.

mod hello;
mod naive;

use std::sync::{Arc, Mutex};

use http::{Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use undermesh_proxy::fuzzing::http::{
    Protocol, Strict, Switch, follow, head, http1_builder, sniff,
};

use crate::{
    poll::{self, Wire},
    source::{Pieces, Source, spell},
};

/// Words of requests, right ones and wrong ones.
pub(super) const DICTIONARY: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a\r\n",
    b"POST /p HTTP/1.1\r\nHost: a\r\n",
    b"POST / HTTP/1.0\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: ",
    b"chunked",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"5",
    b"0",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"hello",
    b"X: ",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\0",
    b"ffffffffffffffff",
    b"\x16\x03\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    // So that limits are within reach.
    &[b'y'; 1024],
    &[b'z'; 16 << 10],
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mode = source.byte();
    let pieces = Pieces::new(source.byte());
    let text = if mode & 1 == 0 { source.rest().to_vec() } else { source.spelled(DICTIONARY) };
    frames_are_those_of_a_naive_reader(&text, &pieces);
    bytes_pass_the_same_however_they_are_cut(&text, &pieces);
    requests_are_those_of_a_naive_reader(&text, pieces.clone(), usize::from(mode >> 1) % 8);
    verdicts_do_not_depend_on_pieces(&text, pieces);
}

fn frames_are_those_of_a_naive_reader(text: &[u8], pieces: &Pieces) {
    let whole = follow(text, || usize::MAX);
    let mut cut = pieces.clone();
    let parts = follow(text, || cut.length());
    assert_eq!(whole.ends, parts.ends, "cut another way");
    assert_eq!(whole.refused, parts.refused, "cut another way");
    assert_eq!(whole.raw, parts.raw, "cut another way");
    for length_first in [false, true] {
        let naive = naive::requests(text, length_first);
        let naive: Vec<usize> = naive.iter().map(|request| request.end).collect();
        let passed: Vec<usize> = naive.into_iter().filter(|end| *end <= whole.passed).collect();
        assert_eq!(whole.ends, passed, "a naive reader, length first: {length_first}");
    }
}

/// What passes, and whether it ends with an error.
fn passed(text: &[u8], pieces: Pieces, buffer: usize) -> (Vec<u8>, bool) {
    let switch = Switch::default();
    let mut strict = Strict::new(Wire::new(text, pieces), &switch);
    let mut passed = Vec::new();
    let mut room = vec![0; buffer];
    loop {
        match poll::run(strict.read(&mut room)) {
            Some(Ok(0)) => return (passed, false),
            Some(Ok(count)) => passed.extend_from_slice(&room[..count]),
            Some(Err(_)) => return (passed, true),
            // It waits for an upgrade's answer.
            None => switch.decide(false),
        }
    }
}

fn bytes_pass_the_same_however_they_are_cut(text: &[u8], pieces: &Pieces) {
    let whole = passed(text, Pieces::new(0), 64 << 10);
    let parts = passed(text, pieces.clone(), 1 + pieces.clone().length() % 500);
    assert_eq!(whole.1, parts.1, "an error");
    // With an error, what came just before it is lost.
    let least = if whole.1 { whole.0.len().min(parts.0.len()) } else { usize::MAX };
    let start = |bytes: &[u8]| bytes[..bytes.len().min(least)].escape_ascii().to_string();
    assert_eq!(start(&whole.0), start(&parts.0), "cut another way");
    // All, or up to what is refused, with nonsense in its place that hyper answers.
    let own = whole.0.strip_suffix(b"\0\r\n\r\n").filter(|_| !text.starts_with(&whole.0));
    assert!(text.starts_with(own.unwrap_or(&whole.0)), "added: {}", whole.0.escape_ascii());
}

/// A request as hyper has given it out.
struct Seen {
    method: String,
    /// If it came to its end.
    body: Option<Vec<u8>>,
}

/// What hyper reads behind the strict reader, when answers take so many rounds.
fn served(text: &[u8], pieces: Pieces, rounds: usize) -> Vec<Seen> {
    let switch = Switch::default();
    let io = TokioIo::new(Strict::new(Wire::new(text, pieces), &switch));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&seen);
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (switch, list) = (switch.clone(), Arc::clone(&list));
        async move {
            for _ in 0..rounds {
                tokio::task::yield_now().await;
            }
            let (parts, body) = request.into_parts();
            let asks =
                parts.method == Method::CONNECT || parts.headers.contains_key(header::UPGRADE);
            let method = parts.method.to_string();
            check_head(parts);
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            list.lock().expect("a list").push(Seen { method, body });
            let mut response = Response::new(Empty::<bytes::Bytes>::new());
            if asks {
                *response.status_mut() = StatusCode::BAD_REQUEST;
                switch.decide(false);
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1_builder().serve_connection(io, service).with_upgrades();
    assert!(poll::run(connection).is_some(), "a connection has stopped for ever");
    std::mem::take(&mut *seen.lock().expect("a list"))
}

fn requests_are_those_of_a_naive_reader(text: &[u8], pieces: Pieces, rounds: usize) {
    let naive = naive::requests(text, false);
    for (index, seen) in served(text, pieces, rounds).iter().enumerate() {
        let Some(body) = &seen.body else { continue };
        let Some(request) = naive.get(index) else {
            panic!("request {index}, {} {}, is none", seen.method, body.escape_ascii());
        };
        assert_eq!(seen.method, request.method, "request {index}");
        assert_eq!(body.escape_ascii().to_string(), request.body.escape_ascii().to_string());
    }
}

/// What is routed has an absolute target, and nothing of the client's connection.
fn check_head(parts: http::request::Parts) {
    let dialled = ([10, 0, 0, 1], 80).into();
    let Some(parts) = head(parts, dialled) else { return };
    assert!(parts.uri.authority().is_some(), "no authority: {}", parts.uri);
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::EXPECT] {
        assert!(!parts.headers.contains_key(&name), "{name} is passed on");
    }
    let te: Vec<_> = parts.headers.get_all(header::TE).iter().collect();
    assert!(te.is_empty() || te == ["trailers"], "TE is passed on");
    assert!(!parts.headers.contains_key("x-forwarded-client-cert"), "an identity is passed on");
}

fn verdicts_do_not_depend_on_pieces(text: &[u8], mut pieces: Pieces) {
    let text = &text[..text.len().min(16 << 10)];
    for version_only in [false, true] {
        let whole = sniff(text, version_only);
        let mut there = 0;
        while there < text.len() {
            there = text.len().min(there.saturating_add(pieces.length()));
            let now = sniff(&text[..there], version_only);
            assert!(now.is_none() || now == whole, "{now:?} became {whole:?}");
        }
        if let Some(Protocol::Tls(Some(name))) = whole {
            assert_eq!(Some(name), hello::server_name(text), "a naive reader of ClientHellos");
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 12] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\nX: 1\r\n\r\n",
        b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi",
        b"POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"EHLO mail.example\r\n",
    ];
    let hellos = [hello::write("cart.example"), hello::write("Cart.Example")];
    let texts: Vec<&[u8]> = texts.into_iter().chain(hellos.iter().map(Vec::as_slice)).collect();
    let mut seeds = Vec::new();
    for (number, text) in (0_u8..).zip(texts) {
        seeds.push([&[number << 1, number][..], text].concat());
        seeds.push([&[number << 1 | 1, number][..], &spell(text, DICTIONARY)].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_reach_what_they_are_for() {
        let text = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let seen = served(text, Pieces::new(3), 2);
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].body.as_deref(), Some(&b"hello"[..]));
        assert_eq!(seen[1].method, "GET");
    }

    #[test]
    fn a_hello_that_is_written_here_is_read() {
        let hello = hello::write("Cart.Example");
        let name = Some("cart.example".to_owned());
        assert_eq!(sniff(&hello, false), Some(Protocol::Tls(name.clone())));
        assert_eq!(hello::server_name(&hello), name);
    }
}
