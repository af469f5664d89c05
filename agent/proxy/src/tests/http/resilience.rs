//! Faults, time limits and retries.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use undermesh_model::traffic::{Delay, Fault, Millionths, Retries, RetryOn};
use undermesh_snapshot::traffic::{AppProtocol, ClusterEndpoint, ClusterSpec};

use super::rig::{Rig, cluster, endpoint, get, route, rules, to};
use crate::tests::mesh::reset;

fn retries(on: RetryOn) -> Retries {
    Retries {
        attempts: 2,
        per_try_timeout: None,
        on,
        backoff: Duration::from_millis(1),
        avoid_previous: Some(true),
        other_localities: false,
    }
}

fn server_errors() -> RetryOn {
    RetryOn { server_errors: true, ..RetryOn::default() }
}

fn with(request: &str, name: &'static str, value: &'static str) -> Request<Full<bytes::Bytes>> {
    let mut request = get(request);
    request.headers_mut().insert(name, HeaderValue::from_static(value));
    request
}

fn outside(address: SocketAddr) -> ClusterEndpoint {
    let nobody = Arc::new(crate::testing::workload("nobody", &["127.0.0.1"]));
    ClusterEndpoint { workload: None, ..endpoint(address, &nobody) }
}

fn at(addresses: &[SocketAddr]) -> Arc<ClusterSpec> {
    let endpoints = addresses.iter().map(|address| outside(*address)).collect();
    cluster("outside".to_owned(), AppProtocol::Http, endpoints)
}

/// An address where nobody listens.
fn nowhere() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_delay_and_abort() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut faulty = route(to(&v1));
    let time = Duration::from_millis(50);
    let delay = Some(Delay { time, share: Millionths::ALL });
    let abort = Some((429, Millionths::ALL));
    faulty.fault = Some(Fault { delay, abort, grpc_abort: None });
    rig.rules(rules(&v1, vec![("/", faulty)]));
    let started = std::time::Instant::now();
    let answer = rig.get("/").await;
    assert_eq!(answer, (StatusCode::TOO_MANY_REQUESTS, "fault filter abort".to_owned()));
    assert!(started.elapsed() >= time);
    assert_eq!(rig.backends[0].requests().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_too_long_is_given_up() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut hasty = route(to(&v1));
    hasty.timeout = Some(Duration::from_millis(50));
    rig.rules(rules(&v1, vec![("/", hasty)]));
    let response = rig.send(with("/", "x-wait-ms", "10000")).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.body(), "upstream request timeout");
    assert_eq!(rig.get("/").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_its_own_time() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut hasty = route(to(&v1));
    let per_try_timeout = Some(Duration::from_millis(50));
    hasty.retries = Some(Retries { per_try_timeout, ..retries(server_errors()) });
    rig.rules(rules(&v1, vec![("/", hasty)]));
    let response = rig.send(with("/", "x-wait-ms", "10000")).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(rig.backends[0].requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_sends_the_same_body_again() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut patient = route(to(&v1));
    patient.retries = Some(retries(server_errors()));
    rig.rules(rules(&v1, vec![("/", patient)]));
    let request = |size: usize| {
        let body = Full::from(vec![b'x'; size]);
        let request = Request::post("/").header("host", "cart").header("x-answer", "503,200");
        request.body(body).unwrap()
    };
    assert_eq!(rig.send(request(60_000)).await.status(), StatusCode::OK);
    let seen = rig.backends[0].requests();
    assert_eq!(seen.iter().map(|seen| seen.body.len()).collect::<Vec<_>>(), [60_000, 60_000]);
    assert_eq!(seen[1].headers["x-envoy-attempt-count"], "2");
    rig.backends[0].seen.lock().unwrap().clear();
    // More than is kept: what came of the first attempt is the answer.
    assert_eq!(rig.send(request(100_000)).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.backends[0].requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_end_and_their_last_answer_is_the_answer() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut patient = route(to(&v1));
    patient.retries = Some(retries(server_errors()));
    rig.rules(rules(&v1, vec![("/", patient)]));
    let response = rig.send(with("/", "x-answer", "503,502,500,200")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(rig.backends[0].requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_beyond_the_limit_is_not_made_and_the_endpoints_answer_is_passed_on() {
    let rig = Rig::new(&["v1"]).await;
    let mut v1 = rig.cluster(&["v1"]);
    Arc::make_mut(&mut v1).settings.pool.http.max_retries = Some(1);
    let mut patient = route(to(&v1));
    let backoff = Duration::from_secs(60);
    patient.retries = Some(Retries { backoff, ..retries(server_errors()) });
    rig.rules(rules(&v1, vec![("/", patient)]));
    // One waits to be tried again and holds the only permit; the other one gets on.
    let request = || rig.send(with("/", "x-answer", "507"));
    let answer = tokio::select! {
        answer = request() => answer,
        answer = request() => answer,
    };
    assert_eq!((answer.status().as_u16(), &answer.body()[..]), (507, &b"v1"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reached_nobody_is_sent_to_another_endpoint_without_any_rule() {
    let rig = Rig::new(&[]).await;
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = at(&[nowhere(), app.local_addr().unwrap()]);
    rig.rules(rules(&both, Vec::new()));
    let answering = tokio::spawn(async move {
        for _ in 0..4 {
            let (mut stream, _) = app.accept().await.unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
            stream.write_all(answer).await.unwrap();
        }
    });
    for _ in 0..4 {
        assert_eq!(rig.get("/").await, (StatusCode::OK, "hi".to_owned()));
    }
    answering.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_endpoints_are_answered_as_envoy_does() {
    let rig = Rig::new(&[]).await;
    rig.rules(rules(&at(&[nowhere()]), Vec::new()));
    let (status, body) = rig.get("/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("remote connection failure"), "{body}");
    rig.rules(rules(&at(&[]), Vec::new()));
    let unavailable = (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream".to_owned());
    assert_eq!(rig.get("/").await, unavailable);
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    rig.rules(rules(&at(&[app.local_addr().unwrap()]), Vec::new()));
    let broken = tokio::spawn(async move {
        let (mut stream, _) = app.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        reset(stream);
        app
    });
    let (status, body) = rig.get("/").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("connection termination"), "{body}");
    broken.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_once_more_as_a_kept_connection_closes_says_the_same() {
    let rig = Rig::new(&[]).await;
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    rig.rules(rules(&at(&[app.local_addr().unwrap()]), Vec::new()));
    let served = tokio::spawn(async move {
        let (mut kept, _) = app.accept().await.unwrap();
        head(&mut kept).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        kept.write_all(answer).await.unwrap();
        let first = head(&mut kept).await;
        drop(kept);
        let (mut other, _) = app.accept().await.unwrap();
        let again = head(&mut other).await;
        other.write_all(answer).await.unwrap();
        [first, again]
    });
    assert_eq!(rig.get("/").await.0, StatusCode::OK);
    assert_eq!(rig.send(with("/again?x=1", "x-own", "1")).await.status(), StatusCode::OK);
    let [first, again] = served.await.unwrap();
    assert!(first.starts_with("GET /again?x=1 HTTP/1.1\r\n"), "{first}");
    for header in ["x-own: 1", "host: cart", "x-envoy-attempt-count: 1", "x-request-id: "] {
        assert!(first.contains(&format!("\r\n{header}")), "{header}: {first}");
    }
    assert_eq!(again, first);
}

/// Reads a request's head.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_gets_a_grpc_status_for_local_errors() {
    let rig = Rig::new(&[]).await;
    rig.rules(rules(&at(&[]), Vec::new()));
    let mut sender = rig.http2().await;
    let request = Request::post("http://cart/cart.Cart/Get")
        .header("content-type", "application/grpc")
        .body(Full::default())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(response.headers()["grpc-message"], "no healthy upstream");
}
