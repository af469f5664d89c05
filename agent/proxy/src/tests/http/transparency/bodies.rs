//! Bodies on their way: who waits for whom, and what is not waited for.

use std::time::Duration;

use undermesh_model::traffic::DirectResponse;
use undermesh_snapshot::traffic::RouteAction;

use super::*;
use crate::tests::http::{frames::*, rig::route};

/// Far more than all buffers on the way hold: sockets, tunnels, and what a stream may have in flight.
const ENDLESS: usize = 256 << 20;

/// Writes for as long as somebody reads; how much was taken.
async fn write_endlessly(stream: &mut TcpStream) -> usize {
    let piece = vec![b'x'; 1 << 20];
    let mut taken = 0;
    while taken < ENDLESS {
        match timeout(Duration::from_secs(1), stream.write(&piece)).await {
            Ok(Ok(count)) => taken += count,
            Ok(Err(error)) => panic!("{error} after {taken} bytes"),
            Err(_) => break,
        }
    }
    taken
}

async fn stops_a_client(ends: &Ends) {
    let mut near = ends.dial().await;
    let head = format!("POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: {ENDLESS}\r\n\r\n");
    write(&mut near, head).await;
    let mut far = ends.server.accept().await;
    read_head(&mut far).await;
    let taken = write_endlessly(&mut near).await;
    assert!(taken < ENDLESS / 4, "{taken} bytes were taken that nobody reads");
    // Nothing is lost: all of it arrives once it is read.
    let mut received = 0;
    let mut buffer = vec![0; 1 << 20];
    while received < taken {
        received += timeout(SOON, far.read(&mut buffer)).await.expect("bytes").unwrap();
    }
    assert_eq!(received, taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_read_stops_its_client() {
    stops_a_client(&Ends::new(AppProtocol::Http).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judged_server_that_does_not_read_stops_its_client() {
    stops_a_client(&Ends::judged().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_its_server() {
    let ends = Ends::new(AppProtocol::Http).await;
    let mut near = ends.dial().await;
    write(&mut near, "GET / HTTP/1.1\r\nHost: cart\r\n\r\n").await;
    let mut far = ends.server.accept().await;
    read_head(&mut far).await;
    write(&mut far, format!("HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n")).await;
    let taken = write_endlessly(&mut far).await;
    assert!(taken < ENDLESS / 4, "{taken} bytes were taken that nobody reads");
}

async fn answers_early(ends: &Ends) {
    let mut near = ends.dial().await;
    write(&mut near, "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 1000000\r\n\r\nhello").await;
    let mut far = ends.server.accept().await;
    read_head(&mut far).await;
    write(&mut far, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
        .await;
    far.shutdown().await.unwrap();
    let head = read_head(&mut near).await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    let mut body = [0; 3];
    timeout(SOON, near.read_exact(&mut body)).await.unwrap().unwrap();
    assert_eq!(&body, b"no!");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_need_not_wait_for_the_request_to_end() {
    answers_early(&Ends::new(AppProtocol::Http).await).await;
    answers_early(&Ends::judged().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_refused_is_not_asked_for() {
    let ends = Ends::new(AppProtocol::Http).await;
    let all = ends.rig.cluster(&[]);
    let refusal = DirectResponse { status: 403, body: b"no".to_vec() };
    ends.rig.rules(rules(&all, vec![("/", route(RouteAction::Direct(refusal)))]));
    let mut near = ends.dial().await;
    let ask = "POST / HTTP/1.1\r\nHost: cart\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    write(&mut near, ask).await;
    let head = read_head(&mut near).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_http_1_1_cross_both_ways() {
    let ends = Ends::new(AppProtocol::Http).await;
    let mut near = ends.dial().await;
    let ask = "POST / HTTP/1.1\r\nHost: cart\r\nTE: trailers\r\nTrailer: X-Sum\r\n\
               Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\n";
    write(&mut near, ask).await;
    let mut far = ends.server.accept().await;
    let head = read_head(&mut far).await;
    assert_eq!((values(&head, "te"), values(&head, "trailer")), (vec!["trailers"], vec!["X-Sum"]));
    let sent = read_head(&mut far).await.to_ascii_lowercase();
    assert!(sent.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{sent}");
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Echo\r\nTransfer-Encoding: chunked\r\n\r\n\
                  2\r\nho\r\n0\r\nX-Echo: 8\r\nHost: x\r\n\r\n";
    write(&mut far, answer).await;
    read_head(&mut near).await;
    let heard = read_head(&mut near).await.to_ascii_lowercase();
    assert!(heard.ends_with("0\r\nx-echo: 8\r\n\r\n"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_and_small_frames_are_carried() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let mut peer = Peer::connect(&rig, VIP.parse().unwrap()).await;
    let request =
        [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "cart")];
    let streams: Vec<u32> = (0..100).map(|number| number * 2 + 1).collect();
    for stream in &streams {
        peer.say(&frame(HEADERS, END_HEADERS, *stream, fields(&request))).await;
    }
    // Empty frames that end nothing are counted (docs/reference/http.md, "Limits").
    peer.say(&frame(DATA, 0, 1, "").repeat(100)).await;
    for byte in ["a", "b"] {
        for stream in &streams {
            peer.say(&frame(DATA, 0, *stream, byte)).await;
        }
    }
    for stream in &streams {
        peer.say(&frame(DATA, END_STREAM, *stream, "")).await;
    }
    let mut answered = Vec::new();
    while answered.len() < streams.len() {
        match peer.hear().await {
            Heard::Answer(stream, 200) => answered.push(stream),
            Heard::SettingsAck | Heard::Data(..) => {}
            other => panic!("{other:?}"),
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, streams);
    assert!(rig.backends[0].requests().iter().all(|seen| seen.body == "ab"));
}
