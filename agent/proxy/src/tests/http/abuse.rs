//! Clients that mean harm: what they may cost is bounded (docs/reference/http.md, "Limits").

use std::time::Duration;

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};
use undermesh_model::traffic::DirectResponse;
use undermesh_snapshot::traffic::RouteAction;

use super::{
    frames::*,
    rig::{Rig, VIP, route, rules},
};
use crate::tests::mesh::SOON;

const REQUEST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "cart")];
/// Longest head in the tests of heads that take too long.
const LIMIT: Duration = Duration::from_millis(250);
/// More than sockets hold.
const FLOOD: usize = 64 << 20;

async fn rig() -> Rig {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    rig
}

async fn peer(rig: &Rig) -> Peer {
    Peer::connect(rig, VIP.parse().unwrap()).await
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, fields(&REQUEST))
}

/// What ends the connection, or is waited for.
async fn end(peer: &mut Peer, wanted: &[Heard]) -> Heard {
    loop {
        let heard = peer.hear().await;
        let ended = matches!(heard, Heard::GoAway(_) | Heard::Closed | Heard::Silence);
        if ended || wanted.contains(&heard) {
            return heard;
        }
    }
}

/// Numbers of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| number * 2 + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_at_once_end_the_connection() {
    let rig = rig().await;
    let mut peer = peer(&rig).await;
    let pair = |stream| [get(stream), frame(RST_STREAM, 0, stream, [0, 0, 0, 8])].concat();
    peer.say(&streams(2000).flat_map(pair).collect::<Vec<u8>>()).await;
    assert_eq!(end(&mut peer, &[]).await, Heard::GoAway(ENHANCE_YOUR_CALM));
    assert_eq!(rig.get("/").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_that_a_client_provokes_end_the_connection() {
    let rig = rig().await;
    let mut peer = peer(&rig).await;
    let block = fields(&[&REQUEST[..], &[("connection", "close")]].concat());
    let malformed = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, &block);
    peer.say(&streams(600).flat_map(malformed).collect::<Vec<u8>>()).await;
    assert_eq!(end(&mut peer, &[]).await, Heard::GoAway(ENHANCE_YOUR_CALM));
    assert_eq!(rig.backends[0].requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_block_without_end_ends_the_connection() {
    let rig = rig().await;
    for piece in [16 << 10, 1, 0] {
        let mut peer = peer(&rig).await;
        peer.say(&frame(HEADERS, END_STREAM, 1, fields(&REQUEST))).await;
        // Each byte sets the size of the table, which costs nothing.
        let more = frame(CONTINUATION, 0, 1, vec![0x20; piece]);
        let many = more.repeat((4 << 20) / more.len());
        peer.try_say(&many, SOON).await;
        let heard = end(&mut peer, &[]).await;
        assert!(matches!(heard, Heard::GoAway(_) | Heard::Closed), "{piece}: {heard:?}");
    }
    assert_eq!(rig.backends[0].requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_block_that_becomes_a_large_head_is_refused() {
    let rig = rig().await;
    let mut peer = peer(&rig).await;
    let bomb = |size| {
        let large = literal(0x40, b"x-bomb", &[b'x'; 3000]);
        let block = [fields(&REQUEST), large, indexed(62).repeat(size)].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, 1, block)
    };
    peer.say(&bomb(30)).await;
    assert_eq!(end(&mut peer, &[Heard::Answer(1, 431)]).await, Heard::Answer(1, 431));
    peer.say(&get(3)).await;
    assert_eq!(end(&mut peer, &[Heard::Answer(3, 200)]).await, Heard::Answer(3, 200));
    assert_eq!(rig.backends[0].requests().len(), 1);
    let mut peer = self::peer(&rig).await;
    peer.say(&bomb(5000)).await;
    assert_eq!(end(&mut peer, &[]).await, Heard::GoAway(ENHANCE_YOUR_CALM));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_want_an_answer_are_not_read_faster_than_it_is() {
    let rig = rig().await;
    for wants in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, setting(3, 100))] {
        let mut peer = peer(&rig).await;
        let flood = wants.repeat(FLOOD / wants.len());
        assert!(!peer.try_say(&flood, Duration::from_secs(2)).await, "all of it was taken");
    }
    assert_eq!(rig.get("/").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_allowed_are_refused() {
    let rig = Rig::new(&["v1"]).await;
    let all = rig.cluster(&["v1"]);
    let answer = DirectResponse { status: 200, body: b"here".to_vec() };
    rig.rules(rules(&all, vec![("/", route(RouteAction::Direct(answer)))]));
    let mut peer = peer(&rig).await;
    let allowed = peer.settings.iter().find(|setting| setting.0 == 3).expect("a limit").1;
    assert_eq!(allowed, 1024);
    // Without a window no answer comes to its end.
    peer.say(&settings(4, 0)).await;
    peer.say(&streams(allowed + 1).flat_map(get).collect::<Vec<u8>>()).await;
    let refused = Heard::Reset(allowed * 2 + 1, REFUSED_STREAM);
    assert_eq!(end(&mut peer, &[refused]).await, refused);
    peer.say(&settings(4, 100)).await;
    let last = Heard::Answer(allowed * 2 - 1, 200);
    assert_eq!(end(&mut peer, &[last]).await, last);
}

async fn hurried() -> Rig {
    let rig = Rig::with(&["v1"], |config| config.head_timeout = LIMIT).await;
    rig.plain_rules();
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let rig = hurried().await;
    let block = fields(&REQUEST);
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, "")].concat();
    for (name, says) in [
        ("a request line", b"GET / HT".to_vec()),
        ("headers", b"GET / HTTP/1.1\r\nHost: cart\r\nX:".to_vec()),
        ("a preface", PREFACE.to_vec()),
        ("a frame's head", [&begun[..], &[0, 0, 8, PING]].concat()),
        ("a frame", [&begun[..], &sized(8, PING, 0, 0, b"1234")].concat()),
        ("a block", [&begun[..], &frame(HEADERS, END_STREAM, 1, &block)].concat()),
    ] {
        let mut peer = Peer::bare(&rig, VIP.parse().unwrap()).await;
        peer.say(&says).await;
        peer.ends(name).await;
    }
    // However much of it comes, and however often.
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: cart\r\n").await.unwrap();
    let dribble = async {
        while stream.write_all(b"X: y\r\n").await.is_ok() {
            sleep(LIMIT / 5).await;
        }
    };
    timeout(SOON, dribble).await.expect("it is closed");
    assert_eq!(rig.backends[0].requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_or_a_next_request_may_take_longer_than_a_head() {
    let rig = hurried().await;
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    let mut peer = peer(&rig).await;
    for _ in 0..2 {
        let head = b"POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 5\r\n\r\nhel";
        stream.write_all(head).await.unwrap();
        sleep(LIMIT * 2).await;
        stream.write_all(b"lo").await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"v1") {
            let read = timeout(SOON, stream.read_buf(&mut heard)).await;
            assert!(read.unwrap().unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
        }
        sleep(LIMIT * 2).await;
    }
    let mut post = REQUEST;
    post[0].1 = "POST";
    peer.say(&frame(HEADERS, END_HEADERS, 1, fields(&post))).await;
    peer.say(&sized(5, DATA, END_STREAM, 1, b"he")).await;
    sleep(LIMIT * 2).await;
    peer.say(b"llo").await;
    assert_eq!(end(&mut peer, &[Heard::Answer(1, 200)]).await, Heard::Answer(1, 200));
    assert_eq!(rig.backends[0].requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_frames_without_end_end_the_connection() {
    let rig = rig().await;
    let mut peer = peer(&rig).await;
    let mut post = REQUEST;
    post[0].1 = "POST";
    peer.say(&frame(HEADERS, END_HEADERS, 1, fields(&post))).await;
    peer.say(&frame(DATA, 0, 1, "").repeat(1000)).await;
    assert_eq!(end(&mut peer, &[]).await, Heard::GoAway(ENHANCE_YOUR_CALM));
}
