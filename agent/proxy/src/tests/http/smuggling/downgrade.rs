//! Requests of HTTP/2 that an endpoint of HTTP/1.1 would read in another way.

use std::net::SocketAddr;

use super::super::{
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Heard, PROTOCOL_ERROR, Peer, frame,
        literal,
    },
    recorder::{Recorded, Recorder},
    rig::VIP,
};
use crate::tests::{judged::look_at_requests, mesh::eventually};

/// Pseudo-headers, which rows change.
const USUAL: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/row"), (":authority", "cart")];

/// A request with other pseudo-headers and these headers and body, in frames of some bytes.
fn request(other: &[(&str, &str)], headers: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let changed = |field: &(&'static str, &'static str)| {
        let other = other.iter().find(|other| other.0 == field.0);
        other.map_or(field.1, |other| other.1).to_owned()
    };
    let pseudo = USUAL.iter().map(|field| (field.0, changed(field)));
    let headers = headers.iter().map(|field| (field.0, field.1.to_owned()));
    let block: Vec<u8> = pseudo
        .chain(headers)
        .flat_map(|(name, value)| literal(0, name.as_bytes(), value.as_bytes()))
        .collect();
    let end = if body.is_none() { END_STREAM } else { 0 };
    let (first, rest) = block.split_at(block.len().min(16 << 10));
    let mut frames = frame(HEADERS, end, 1, first);
    frames.extend(frame(CONTINUATION, END_HEADERS, 1, rest));
    frames.extend(body.map(|body| frame(DATA, END_STREAM, 1, body)).into_iter().flatten());
    frames
}

/// The answer, or how the stream ended otherwise.
async fn heard(recorder: &Recorder, to: SocketAddr, says: &[u8]) -> Heard {
    let mut peer = Peer::connect(&recorder.rig, to).await;
    peer.say(says).await;
    loop {
        match peer.hear().await {
            Heard::SettingsAck | Heard::Data(..) => {}
            heard => return heard,
        }
    }
}

type Fields = &'static [(&'static str, &'static str)];

/// What follows the end of a head.
const HIDDEN: &str = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: cart";

/// Requests that are refused: pseudo-headers other than usual, headers, and a body.
const REFUSED: &[(Fields, Fields, Option<&str>)] = &[
    // What ends a line, or a header, where there is none.
    (&[], &[("x-test", HIDDEN)], None),
    (&[], &[("x-test", "x\nTransfer-Encoding: chunked")], Some("0\r\n\r\n")),
    (&[], &[("x-test", "x\rTransfer-Encoding: chunked")], Some("0\r\n\r\n")),
    (&[], &[("x-test", "x\0")], None),
    (&[], &[("x-test: x\r\ntransfer-encoding", "chunked")], Some("0\r\n\r\n")),
    (&[], &[("transfer-encoding: chunked\r\nx", "y")], Some("0\r\n\r\n")),
    (&[], &[("x:y", "z")], None),
    (&[(":method", "GET /smuggled HTTP/1.1\r\nX: y")], &[], None),
    (&[(":method", "GET /smuggled?")], &[], None),
    (&[(":path", "/row HTTP/1.1\r\nHost: cart\r\n\r\nGET /smuggled")], &[], None),
    (&[(":path", "/row /smuggled")], &[], None),
    (&[(":path", "/row\r\n")], &[], None),
    (&[(":path", "smuggled")], &[], None),
    (&[(":authority", HIDDEN)], &[], None),
    (&[(":authority", "cart /smuggled")], &[], None),
    (&[(":authority", "me@cart")], &[], None),
    (&[(":scheme", "http://cart/smuggled?")], &[], None),
    (&[], &[("host", "other")], None),
    (&[], &[("host", HIDDEN)], None),
    (&[], &[("host", "cart"), ("host", "other")], None),
    // A length or a coding that is none of HTTP/2.
    (&[], &[("transfer-encoding", "chunked")], Some("0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n")),
    (&[], &[("transfer-encoding", "identity")], Some("hello")),
    (&[], &[("content-length", "0")], Some("GET /smuggled HTTP/1.1\r\n\r\n")),
    (&[], &[("content-length", "4")], Some("hello")),
    (&[], &[("content-length", "6")], Some("hello")),
    (&[], &[("content-length", "5, 5")], Some("hello")),
    (&[], &[("content-length", "0x5")], Some("hello")),
    (&[], &[("content-length", "5"), ("content-length", "5")], Some("hello")),
    (&[], &[("content-length", "5")], None),
    (&[], &[("connection", "x-test")], None),
    (&[], &[("upgrade", "websocket")], None),
];

async fn hold(recorder: &Recorder, to: SocketAddr) {
    let mut wrong = Vec::new();
    for (other, headers, body) in REFUSED {
        let heard = heard(recorder, to, &request(other, headers, *body)).await;
        let refused = matches!(
            heard,
            Heard::Reset(1, PROTOCOL_ERROR) | Heard::GoAway(PROTOCOL_ERROR) | Heard::Answer(1, 400)
        );
        if !refused {
            wrong.push(format!("{other:?} {headers:?} {body:?}: {heard:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} requests were not refused:\n{}", wrong.len(), wrong.join("\n"));
    let whole: Vec<Recorded> = recorder.recorded().into_iter().filter(|one| one.whole).collect();
    assert!(whole.is_empty(), "the endpoint heard {whole:?}");
    let smuggled = recorder.recorded().into_iter().find(|one| one.head.contains("smuggled"));
    assert!(smuggled.is_none(), "the endpoint heard {smuggled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_from_http_2_into_http_1_1() {
    let recorder = Recorder::new().await;
    hold(&recorder, VIP.parse().unwrap()).await;
    let headers = [
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("x-test", "1"),
        ("x-test", "2"),
        ("te", "trailers"),
        ("content-length", "5"),
    ];
    let says = request(&[(":path", "/row?a#b")], &headers, Some("hello"));
    assert_eq!(heard(&recorder, VIP.parse().unwrap(), &says).await, Heard::Answer(1, 200));
    let whole = || recorder.recorded().into_iter().find(|one| one.whole);
    eventually("it is recorded", || whole().is_some()).await;
    let request = whole().unwrap();
    // A fragment ends here: it is none of the endpoint's business.
    assert_eq!(request.summary(), "POST /row?a hello");
    assert_eq!(request.values("cookie"), ["a=b; c=d"]);
    assert_eq!(request.values("x-test"), ["1", "2"]);
    assert_eq!(request.values("content-length"), ["5"]);
    assert_eq!(request.values("host"), ["cart"]);
    assert!(request.values("transfer-encoding").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_from_http_2_past_the_judging_edge() {
    let recorder = Recorder::new().await;
    look_at_requests(&recorder.rig.mesh, &recorder.server);
    hold(&recorder, recorder.server.address).await;
}
