//! Connections that should end: their requests are answered first.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;

use super::rig::{Rig, VIP, collect, get, route, rules, to};
use crate::{
    testing,
    tests::mesh::{SOON, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_leaves_answers_what_was_asked() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let (mut one, mut two) = (rig.http1().await, rig.http2().await);
    one.send_request(get("/")).await.unwrap().into_body().collect().await.unwrap();
    let slow = Request::get("http://cart/").header("x-wait-ms", "300").body(Full::default());
    let waiting = tokio::spawn(two.send_request(slow.unwrap()));
    eventually("it is under way", || rig.backends[0].requests().len() == 2).await;
    rig.client.handle.stop_accepting();
    let response = timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(collect(response).await.body(), "v1");
    // GOAWAY: no more requests on this one.
    eventually("the client is told", || two.is_closed()).await;
    // An HTTP/1.1 connection is told with its next answer.
    one.ready().await.unwrap();
    let last = one.send_request(get("/")).await.unwrap();
    assert_eq!(last.headers()["connection"], "close");
    assert_eq!(collect(last).await.body(), "v1");
    assert!(rig.client.handle.drained(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_are_gone_hold_no_more_and_end_the_connection() {
    let rig = Rig::new(&["v1", "v2"]).await;
    rig.plain_rules();
    let mut sender = rig.http1().await;
    assert_eq!(collect(sender.send_request(get("/")).await.unwrap()).await.body(), "v1");
    let v2 = &rig.backends[1].server;
    let endpoint = testing::endpoint(&v2.address.to_string(), Some(&v2.workload));
    rig.mesh.service(VIP, vec![endpoint]);
    sender.ready().await.unwrap();
    let response = sender.send_request(get("/")).await.unwrap();
    assert_eq!(response.headers()["connection"], "close");
    assert_eq!(collect(response).await.body(), "v2");
    let closed = timeout(SOON, sender.ready()).await.unwrap();
    assert!(closed.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_under_load_lose_no_request() {
    let rig = Arc::new(Rig::new(&["v1", "v2"]).await);
    rig.plain_rules();
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(ask_until(Arc::clone(&rig), Arc::clone(&done)))).collect();
    for change in 0..60 {
        let to_v2 = rig.cluster(&["v2"]);
        if change % 2 == 0 {
            rig.rules(rules(&to_v2, vec![("/", route(to(&to_v2)))]));
        } else {
            rig.plain_rules();
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    done.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        asked += client.await.unwrap();
    }
    let answered: usize = rig.backends.iter().map(|backend| backend.requests().len()).sum();
    assert!(rig.backends.iter().all(|backend| !backend.requests().is_empty()));
    assert_eq!(answered, asked);
}

/// Asks over one connection, and says how often; every answer has to be one of a backend.
async fn ask_until(rig: Arc<Rig>, done: Arc<AtomicBool>) -> usize {
    let mut sender = rig.http1().await;
    let mut asked = 0;
    while !done.load(Ordering::Relaxed) {
        sender.ready().await.unwrap();
        let response = timeout(SOON, sender.send_request(get("/"))).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        collect(response).await;
        asked += 1;
    }
    asked
}
