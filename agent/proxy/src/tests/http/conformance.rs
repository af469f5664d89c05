//! HTTP/2 as RFC 9113 and RFC 7541 have it, row by row: what a client sends, and what it may hear.
//!
//! Every row runs against both edges: that of the client's node, which routes, and that of the destination,
//! which judges. Where a row says `/never`, no endpoint may hear of the request.

mod flow;
mod framing;
mod generic;
mod hpack;
mod messages;
mod streams;

use std::net::SocketAddr;

use undermesh_model::traffic::DirectResponse;
use undermesh_snapshot::traffic::RouteAction;

use super::{
    frames::{
        self, END_HEADERS, END_STREAM, HEADERS, Heard, PREFACE, PROTOCOL_ERROR, Peer, SETTINGS,
        frame,
    },
    rig::{Rig, VIP, route, rules},
};
use crate::tests::judged::look_at_requests;

/// The stream of a request that proves that a connection works still.
const LATER: u32 = 1001;

/// What is sent, and what may come of it.
struct Row {
    /// The section of RFC 9113, or of RFC 7541 for HPACK, and the claim.
    name: &'static str,
    steps: Vec<Step>,
    /// Any one of these, before anything else that ends a stream or the connection.
    allowed: Vec<Heard>,
    /// There is no other request: the client leaves, or leaves no room for an answer.
    last: bool,
}

enum Step {
    Say(Vec<u8>),
    Await(Heard),
}

/// A row that says everything at once.
fn row(name: &'static str, says: &[Vec<u8>], allowed: &[Heard]) -> Row {
    Row { name, steps: vec![Step::Say(says.concat())], allowed: allowed.to_vec(), last: false }
}

/// A row that waits for something in between.
fn steps(name: &'static str, steps: Vec<Step>, allowed: &[Heard]) -> Row {
    Row { name, steps, allowed: allowed.to_vec(), last: false }
}

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "cart");
const NEVER: (&str, &str) = (":path", "/never");
/// The endpoint takes so long that everything else is seen before its answer.
const SLOWLY: (&str, &str) = ("x-wait-ms", "500");

/// h2 names most errors of a connection so where the RFCs have an exacter code (docs/reference/http.md,
/// "Deviations").
const INEXACT: Heard = Heard::GoAway(PROTOCOL_ERROR);

/// The header block of an ordinary request.
fn block() -> Vec<u8> {
    frames::fields(&[METHOD, SCHEME, PATH, AUTHORITY])
}

fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags, stream, frames::fields(fields))
}

/// A whole request.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, block())
}

/// The same, to a slow endpoint.
fn slow(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM | END_HEADERS, &[METHOD, SCHEME, PATH, AUTHORITY, SLOWLY])
}

/// The beginning of a request with a body.
fn post(stream: u32) -> Vec<u8> {
    let fields = [(":method", "POST"), SCHEME, PATH, AUTHORITY];
    headers(stream, END_HEADERS, &fields)
}

/// A request that no endpoint may hear of.
fn never(more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [&[METHOD, SCHEME, NEVER, AUTHORITY], more].concat();
    headers(1, END_STREAM | END_HEADERS, &fields)
}

/// Whether a row came out as it should.
async fn run(rig: &Rig, to: SocketAddr, row: &Row) -> Result<(), String> {
    let mut peer = Peer::connect(rig, to).await;
    for step in &row.steps {
        match step {
            Step::Say(bytes) => peer.say(bytes).await,
            Step::Await(wanted) => {
                let heard = ended(&mut peer, &[*wanted]).await;
                if heard != *wanted {
                    return Err(format!("{heard:?} instead of {wanted:?} on the way"));
                }
            }
        }
    }
    let heard = ended(&mut peer, &row.allowed).await;
    if !row.allowed.contains(&heard) {
        return Err(format!("{heard:?}, where only {:?} is allowed", row.allowed));
    }
    if row.last || matches!(heard, Heard::GoAway(_) | Heard::Closed | Heard::Data(..)) {
        return Ok(());
    }
    // Whatever became of a stream, the connection is none the worse for it.
    peer.say(&get(LATER)).await;
    loop {
        match ended(&mut peer, &[]).await {
            Heard::Answer(LATER, 200) => return Ok(()),
            Heard::Answer(stream, _) | Heard::Reset(stream, _) if stream != LATER => {}
            other => return Err(format!("{heard:?}, and then {other:?} for another request")),
        }
    }
}

/// The next thing heard that ends something or is waited for.
async fn ended(peer: &mut Peer, wanted: &[Heard]) -> Heard {
    loop {
        let heard = peer.hear().await;
        let passing = matches!(heard, Heard::SettingsAck | Heard::Data(..) | Heard::Pong(_));
        if !passing || wanted.contains(&heard) {
            return heard;
        }
    }
}

async fn hold(rig: &Rig, to: SocketAddr) {
    let rows = [
        generic::rows(),
        framing::rows(),
        streams::rows(),
        flow::rows(),
        messages::rows(),
        hpack::rows(),
    ];
    let mut wrong = Vec::new();
    for row in rows.iter().flatten() {
        if let Err(why) = run(rig, to, row).await {
            wrong.push(format!("{}: {why}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{} rows do not hold:\n{}", wrong.len(), wrong.join("\n"));
    let heard_of =
        |path: &str| rig.backends[0].requests().iter().any(|seen| seen.target.contains(path));
    assert!(!heard_of("/never"), "a malformed request has reached the endpoint");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routing_edge_speaks_http_2_as_the_rfcs_have_it() {
    let rig = Rig::new(&["v1"]).await;
    rig.rules(rules(&rig.cluster(&["v1"]), Vec::new()));
    hold(&rig, VIP.parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judging_edge_speaks_http_2_as_the_rfcs_have_it() {
    let rig = Rig::new(&["v1"]).await;
    let server = &rig.backends[0].server;
    look_at_requests(&rig.mesh, server);
    hold(&rig, server.address).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_like_http_2_and_is_not_is_refused() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let rows = [
        ("3.4 another preface", b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".to_vec()),
        ("3.4 a preface without settings", [PREFACE, &get(1)].concat()),
        ("3.4 settings before the preface", [&frame(SETTINGS, 0, 0, ""), PREFACE].concat()),
    ];
    for (name, says) in rows {
        let mut peer = Peer::bare(&rig, VIP.parse().unwrap()).await;
        peer.say(&says).await;
        peer.ends(name).await;
    }
    assert_eq!(rig.backends[0].requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_proxys_own_to_head_has_no_body() {
    let rig = Rig::new(&["v1"]).await;
    let answer = DirectResponse { status: 200, body: b"here".to_vec() };
    let direct = route(RouteAction::Direct(answer));
    rig.rules(rules(&rig.cluster(&["v1"]), vec![("/", direct)]));
    let mut peer = Peer::connect(&rig, VIP.parse().unwrap()).await;
    let head = [(":method", "HEAD"), SCHEME, PATH, AUTHORITY];
    // Without a window, a body would never come to its end.
    peer.say(&frames::settings(4, 0)).await;
    peer.say(&headers(1, END_STREAM | END_HEADERS, &head)).await;
    assert_eq!(ended(&mut peer, &[]).await, Heard::Answer(1, 200));
}
