//! Limits that are set, on what clients send, at both edges: where they dial, and where their requests are judged.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use super::{
    frames::*,
    rig::{Rig, VIP},
};
use crate::{
    HeadLimits, ProxyConfig,
    tests::{judged::look_at_requests, mesh::SOON},
};

const REQUEST: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "cart")];

/// A mesh, and an address at each edge.
async fn edges(change: impl FnOnce(&mut ProxyConfig)) -> (Rig, [SocketAddr; 2]) {
    let rig = Rig::with(&["v1"], change).await;
    rig.plain_rules();
    look_at_requests(&rig.mesh, &rig.backends[0].server);
    let judged = rig.backends[0].server.address;
    (rig, [VIP.parse().unwrap(), judged])
}

/// Says this over HTTP/1 and hears all that comes.
async fn say(rig: &Rig, to: SocketAddr, text: &str) -> String {
    let mut stream = rig.client.dial(to).await;
    // It may be refused before it has come to its end.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut heard = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut heard)).await.expect("an end");
    String::from_utf8_lossy(&heard).into_owned()
}

fn limited(rig: &Rig, reason: &str) -> u64 {
    rig.mesh.metric(&format!("undermesh_client_limits_total{{reason=\"{reason}\"}}"))
}

/// Some of them are the proxy's own.
fn http1(headers: usize, longest: usize) -> String {
    let rest: String = (0..headers - 3).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = "x".repeat(longest);
    format!("GET / HTTP/1.1\r\nhost: cart\r\nx: {long}\r\nconnection: close\r\n{rest}\r\n")
}

fn http2(headers: usize, longest: usize) -> Vec<u8> {
    let long = format!("/{}", "x".repeat(longest));
    let names: Vec<String> = (0..headers).map(|number| format!("x-{number}")).collect();
    let mut request = REQUEST.to_vec();
    request[2].1 = &long;
    request.extend(names.iter().map(|name| (name.as_str(), "1")));
    frame(HEADERS, END_STREAM | END_HEADERS, 1, fields(&request))
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_as_large_as_is_set_at_most() {
    let head = HeadLimits { bytes: 8 << 10, headers: 20 };
    let (rig, edges) = edges(|config| config.head = head).await;
    let mut refused = 0;
    for to in edges {
        for (headers, longest, status) in [(16, 6000, 200), (21, 10, 431), (16, 9000, 431)] {
            let heard = say(&rig, to, &http1(headers, longest)).await;
            let line = format!("HTTP/1.1 {status} ");
            assert!(heard.starts_with(&line), "{to} {headers} {longest}: {heard}");
            let mut peer = Peer::connect(&rig, to).await;
            peer.say(&http2(headers, longest)).await;
            let heard = peer.hear().await;
            let heard = if matches!(heard, Heard::Data(..)) { peer.hear().await } else { heard };
            assert_eq!(heard, Heard::Answer(1, status), "{to} {headers} {longest}");
            refused += if status == 431 { 2 } else { 0 };
        }
    }
    assert_eq!(limited(&rig, "head_too_large"), refused);
    assert_eq!(rig.backends[0].requests().len(), 4);
    rig.mesh.logged(&["head_too_large", "21 headers, where 20 may be"]).await;
    rig.mesh.logged(&["head_too_large", "where 8192 may be"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_may_be_allowed_than_by_default() {
    let head = HeadLimits { bytes: 256 << 10, headers: 500 };
    let (rig, edges) = edges(|config| config.head = head).await;
    for to in edges {
        let heard = say(&rig, to, &http1(480, 60_000)).await;
        assert!(heard.starts_with("HTTP/1.1 200 "), "{to}: {heard}");
    }
    // Nothing is taken for the next request that the reader before hyper has not followed.
    for to in edges {
        let two = format!("{}GET / HTTP/1.1\nhost: b\n\n", http1(480, 10)).replace("close", "x");
        let heard = say(&rig, to, &two).await;
        assert_eq!(heard.matches("HTTP/1.1 ").count(), 2, "{to}: {heard}");
        assert!(heard.contains("HTTP/1.1 400 "), "{to}: {heard}");
    }
    assert_eq!(rig.backends[0].requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_too_slowly_is_broken_off() {
    let (rig, edges) = edges(|config| {
        config.body_min_rate = 1000;
        config.body_rate_window = Duration::from_secs(1);
    })
    .await;
    let mut counted = 0;
    for to in edges {
        let mut stream = rig.client.dial(to).await;
        let head = b"POST / HTTP/1.1\r\nhost: cart\r\ncontent-length: 100000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        // Never still, and never fast.
        let dribble = async {
            while stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, dribble).await.expect("it is closed");
        // It is too slow for whoever judges it as well, if it has come so far.
        let before = std::mem::replace(&mut counted, limited(&rig, "body_too_slow"));
        assert!((before + 1..=before + 2).contains(&counted), "{to}: {before}, {counted}");
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        let fast = format!(
            "POST / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\ncontent-length: 5000\r\n\r\n{}",
            "x".repeat(5000)
        );
        assert!(say(&rig, to, &fast).await.starts_with("HTTP/1.1 200 "));
    }
    let line = rig.mesh.logged(&["body_too_slow"]).await;
    assert_eq!(line["status"], 408, "{line}");
    assert_eq!(line["response_flags"], "SI", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_http2_is_closed_when_nobody_asks_for_anything() {
    let idle = Duration::from_millis(600);
    let (rig, edges) = edges(|config| config.http2_idle_timeout = idle).await;
    for (number, to) in edges.into_iter().enumerate() {
        let mut peer = Peer::connect(&rig, to).await;
        // Longer than it may be idle.
        let wait = (idle * 2).as_millis().to_string();
        let slow = [&REQUEST[..], &[("x-wait-ms", &wait)]].concat();
        peer.say(&frame(HEADERS, END_STREAM | END_HEADERS, 1, fields(&slow))).await;
        let mut heard = peer.hear().await;
        while matches!(heard, Heard::Data(..)) {
            heard = peer.hear().await;
        }
        assert_eq!(heard, Heard::Answer(1, 200), "{to}");
        // This one answers no PING, and is not waited for.
        let heard = peer.hear().await;
        assert_eq!(heard, Heard::GoAway(NO_ERROR), "{to}");
        assert_eq!(limited(&rig, "http2_idle"), number as u64 + 1, "{to}");
    }
}
