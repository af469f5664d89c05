//! What HTTP/1 and HTTP/2 clients may do besides plain requests.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use undermesh_snapshot::traffic::AppProtocol;

use super::rig::{Rig, VIP, get, route, rules, to};
use crate::tests::mesh::{SOON, read_exactly};

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_is_answered_in_its_own_version() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let once = rig.say("GET / HTTP/1.0\r\n\r\n", false).await;
    assert!(once.starts_with("HTTP/1.0 200 OK") && once.ends_with("v1"), "{once}");
    let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    let twice = rig.say(kept, false).await;
    assert_eq!(twice.matches("HTTP/1.0 200 OK").count(), 2, "{twice}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_is_told_to_continue() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    let head = "POST / HTTP/1.1\r\nHost: cart\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hi").await.unwrap();
    assert!(read_exactly(&mut stream, 15).await.starts_with(b"HTTP/1.1 200 OK"));
    let seen = &rig.backends[0].requests()[0];
    assert!(!seen.headers.contains_key("expect"));
    assert_eq!(seen.body, "hi");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_says_which_host_is_meant() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let text = "GET http://cart/a HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n";
    assert!(rig.say(text, false).await.starts_with("HTTP/1.1 200 OK"));
    let seen = &rig.backends[0].requests()[0];
    assert_eq!(
        (seen.target.as_str(), &seen.headers["host"]),
        ("/a", &HeaderValue::from_static("cart"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_half_still_hears_the_answer() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let text = "GET / HTTP/1.1\r\nHost: cart\r\nX-Wait-Ms: 50\r\n\r\n";
    let answer = rig.say(text, true).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("v1"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_clients_reach_http_1_servers_and_the_other_way_round() {
    let rig = Rig::new(&["v1"]).await;
    for protocol in [AppProtocol::Http, AppProtocol::Http2] {
        let v1 = rig.cluster_of(&["v1"], protocol);
        rig.rules(rules(&v1, vec![("/", route(to(&v1)))]));
        let mut sender = rig.http2().await;
        let request = Request::get("http://cart/two").body(Full::default()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!((response.version(), response.status()), (Version::HTTP_2, StatusCode::OK));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "v1");
        assert_eq!(rig.get("/one").await, (StatusCode::OK, "v1".to_owned()));
    }
    let seen = rig.backends[0].requests();
    let targets: Vec<_> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/two", "/one", "http://cart/two", "http://cart/one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_uploads_stream_through() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let body = Full::from(vec![b'u'; 20 << 20]);
    let request = Request::put("/").header("host", "cart").body(body).unwrap();
    assert_eq!(rig.send(request).await.status(), StatusCode::OK);
    assert_eq!(rig.backends[0].requests()[0].body.len(), 20 << 20);
}

/// Serves one connection of the first backend, whose own application is out of the way.
async fn serve_once<F, R, B>(stream: TcpStream, answer: F)
where
    F: Fn(Request<hyper::body::Incoming>) -> R + Clone,
    R: Future<Output = Response<B>> + Send + 'static,
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, hyper::Error>(answer.await) }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

/// A mesh whose only server is left to the test.
async fn with_server(protocol: AppProtocol) -> (Rig, crate::tests::mesh::Server) {
    let rig = Rig::new(&[]).await;
    let server = rig.mesh.server("v1").await;
    let endpoint = super::rig::endpoint(server.address, &server.workload);
    let v1 = super::rig::cluster("v1".to_owned(), protocol, vec![endpoint]);
    rig.rules(rules(&v1, vec![("/", route(to(&v1)))]));
    (rig, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_cross_both_ways() {
    let (rig, server) = with_server(AppProtocol::Grpc).await;
    let app = tokio::spawn(async move {
        let stream = server.accept().await;
        serve_once(stream, |request| async move {
            let trailers = request.into_body().collect().await.unwrap().trailers().cloned();
            let asked = trailers.unwrap().remove("x-sum").unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("5"));
            trailers.insert("x-echo", asked);
            let body = Full::new(Bytes::from("data"));
            Response::new(body.with_trailers(std::future::ready(Some(Ok(trailers)))))
        })
        .await;
    });
    let stream = rig.client.dial(VIP.parse().unwrap()).await;
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    let body = Full::new(Bytes::from("ask")).with_trailers(std::future::ready(Some(Ok(trailers))));
    let request =
        Request::post("http://cart/cart.Cart/Get").header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(body).unwrap();
    let response = timeout(SOON, sender.send_request(request)).await.unwrap().unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "5");
    assert_eq!(body.trailers().unwrap()["x-echo"], "7");
    assert_eq!(body.to_bytes(), "data");
    app.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_becomes_the_endpoints() {
    let (rig, server) = with_server(AppProtocol::Http).await;
    let app = tokio::spawn(async move {
        let mut stream = server.accept().await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"));
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(read_exactly(&mut stream, 4).await, b"ping");
        stream.write_all(b"pong").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    let ask = "GET /ws HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 4).await, b"pong");
    // One half is over, and the other is not.
    stream.write_all(b"bye").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, app).await.unwrap().unwrap(), b"bye");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http_2_reaches_an_http_1_1_endpoint() {
    let (rig, server) = with_server(AppProtocol::Http).await;
    let app = tokio::spawn(async move {
        let mut stream = server.accept().await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                      Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(read_exactly(&mut stream, 4).await, b"ping");
        stream.write_all(b"pong").await.unwrap();
        stream
    });
    let io = TokioIo::new(rig.client.dial(VIP.parse().unwrap()).await);
    let (mut sender, mut connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    // The server's settings say that it may be asked.
    while !connection.is_extended_connect_protocol_enabled() {
        let _ = timeout(Duration::from_millis(5), &mut connection).await;
    }
    tokio::spawn(connection);
    let mut request = Request::connect("http://cart/ws").body(Full::<Bytes>::default()).unwrap();
    request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
    let mut response = timeout(SOON, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
    let mut stream = TokioIo::new(upgraded);
    stream.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    timeout(SOON, stream.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(&pong, b"pong");
    drop(app);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_refused_leaves_the_connection_as_it_was() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let ask = "GET /ws HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let next = "GET / HTTP/1.1\r\nHost: cart\r\nConnection: close\r\n\r\n";
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    stream.write_all(ask.as_bytes()).await.unwrap();
    assert!(read_exactly(&mut stream, 15).await.starts_with(b"HTTP/1.1 200"));
    stream.write_all(next.as_bytes()).await.unwrap();
    let mut rest = String::new();
    timeout(SOON, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 1, "{rest}");
    assert_eq!(rig.backends[0].requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_that_succeeds_is_a_tunnel() {
    let (rig, server) = with_server(AppProtocol::Http).await;
    let app = tokio::spawn(async move {
        let mut stream = server.accept().await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert_eq!(read_exactly(&mut stream, 4).await, b"ping");
        stream.write_all(b"pong").await.unwrap();
        String::from_utf8(head).unwrap()
    });
    rig.rules({
        let snapshot = rig.mesh.snapshot.load();
        let vip: std::net::SocketAddr = VIP.parse().unwrap();
        let traffic = snapshot.services[&vip].traffic["shop"].clone();
        rules(&traffic.default, Vec::new())
    });
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    stream.write_all(b"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.unwrap().unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"));
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 4).await, b"pong");
    assert!(app.await.unwrap().starts_with("CONNECT db:5432 HTTP/1.1\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_say_who_they_are() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let mut request = get("/");
    let claim = HeaderValue::from_static("By=spiffe://cluster.local/ns/shop/sa/admin");
    request.headers_mut().insert("x-forwarded-client-cert", claim);
    request.headers_mut().insert("traceparent", HeaderValue::from_static("00-0-0-01"));
    request.headers_mut().insert("x-request-id", HeaderValue::from_static("mine"));
    rig.send(request).await;
    let seen = &rig.backends[0].requests()[0];
    assert!(!seen.headers.contains_key("x-forwarded-client-cert"));
    assert_eq!(seen.headers["traceparent"], "00-0-0-01");
    assert_eq!(seen.headers["x-request-id"], "mine");
}
