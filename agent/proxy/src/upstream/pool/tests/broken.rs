//! Connections that end under requests, streams that are refused, and connections that become something else.

use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::{Mutex as AsyncMutex, mpsc},
};
use undermesh_snapshot::traffic::ClusterEndpoint;

use super::{connections, http1, http2};
use crate::upstream::{
    Body, ByteStream, Dial, Dialling, SendError,
    testing::{Rig, Server, exchange, pick, request, settle, until},
};

/// Gives out the client's ends of streams whose other ends a test has.
struct Ends(AsyncMutex<mpsc::Receiver<DuplexStream>>);

impl Ends {
    fn new(count: usize) -> (Self, Vec<DuplexStream>) {
        let (sender, receiver) = mpsc::channel(count);
        let servers = (0..count).map(|_| {
            let (client, server) = tokio::io::duplex(1 << 16);
            sender.try_send(client).unwrap();
            server
        });
        let servers = servers.collect();
        (Self(AsyncMutex::new(receiver)), servers)
    }
}

impl Dial for Ends {
    fn dial<'a>(&'a self, _endpoint: &'a ClusterEndpoint) -> Dialling<'a> {
        Box::pin(async move {
            let stream = self.0.lock().await.recv().await.unwrap();
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}

/// Reads a request's head and answers it.
async fn serve_one(stream: &mut DuplexStream) {
    read_head(stream).await;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
}

async fn read_head(stream: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
}

/// A connection that served one request and dies under the second.
async fn under_a_second(method: Method, body: &'static [u8]) -> Result<StatusCode, SendError> {
    let rig = Rig::new();
    let cluster = rig.cluster(&http1());
    let (ends, servers) = Ends::new(2);
    let server = tokio::spawn(async move {
        let mut servers = servers.into_iter();
        let mut first = servers.next().unwrap();
        serve_one(&mut first).await;
        read_head(&mut first).await;
        drop(first);
        let mut second = servers.next().unwrap();
        read_head(&mut second).await;
        second.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        second
    });
    let lease = cluster.admit(&pick()).unwrap();
    let answer = lease.send(&ends, request(Method::GET, "/")).await.unwrap();
    answer.into_body().collect().await.unwrap();
    drop(lease);
    settle().await;
    let body: Body = Full::from(body).map_err(|never| match never {}).boxed_unsync();
    let mut second = request(method, "/").map(|_| body);
    second.headers_mut().insert("x-kept", HeaderValue::from_static("1"));
    let lease = cluster.admit(&pick()).unwrap();
    let answer = lease.send(&ends, second).await;
    server.abort();
    answer.map(|answer| answer.status())
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_dies_under_a_request_is_replaced_where_that_is_safe() {
    let answer = under_a_second(Method::GET, b"").await;
    assert_eq!(answer.unwrap(), StatusCode::ACCEPTED);
    let unsafe_ones: [(Method, &[u8]); 2] = [(Method::POST, b""), (Method::PUT, b"content")];
    for (method, body) in unsafe_ones {
        let error = under_a_second(method, body).await.err();
        assert!(matches!(error, Some(SendError::Reset { sent: true, .. })), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_that_dies_under_a_request_is_an_error() {
    let rig = Rig::new();
    let cluster = rig.cluster(&http1());
    let (ends, mut servers) = Ends::new(1);
    let mut server = servers.remove(0);
    let reading = tokio::spawn(async move { read_head(&mut server).await });
    let lease = cluster.admit(&pick()).unwrap();
    let error = lease.send(&ends, request(Method::GET, "/")).await.err();
    reading.await.unwrap();
    assert!(matches!(error, Some(SendError::Reset { sent: true, refused: false, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_peer_refuses_is_known_to_be_refused() {
    let rig = Rig::new();
    let cluster = rig.cluster(&http2());
    let (ends, mut servers) = Ends::new(1);
    let server = servers.remove(0);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(server).await.unwrap();
        while let Some(Ok((_, mut answer))) = connection.accept().await {
            answer.send_reset(h2::Reason::REFUSED_STREAM);
        }
    });
    let lease = cluster.admit(&pick()).unwrap();
    let error = lease.send(&ends, request(Method::POST, "/")).await.err();
    assert!(matches!(error, Some(SendError::Reset { refused: true, .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_counts_until_it_ends() {
    let rig = Rig::new();
    let cluster = rig.cluster(&http1());
    let (ends, mut servers) = Ends::new(1);
    let mut server = servers.remove(0);
    let serving = tokio::spawn(async move {
        read_head(&mut server).await;
        let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        server.write_all(head).await.unwrap();
        server
    });
    let lease = cluster.admit(&pick()).unwrap();
    let mut asking = request(Method::GET, "/");
    asking.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    asking.headers_mut().insert("upgrade", HeaderValue::from_static("x"));
    let answer = lease.send(&ends, asking).await.unwrap();
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    drop(lease);
    settle().await;
    assert_eq!(connections(&rig), 1);
    drop((upgraded, serving));
    until("it is over", || connections(&rig) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn each_version_may_have_a_connection_at_the_limit() {
    let (rig, server) = (Rig::new(), Server::http2());
    let mut spec = http2();
    spec.settings.pool.tcp.max_connections = Some(1);
    let cluster = rig.cluster(&spec);
    exchange(&cluster, &server, "/").await;
    let (ends, mut servers) = Ends::new(1);
    let mut http1 = servers.remove(0);
    tokio::spawn(async move {
        serve_one(&mut http1).await;
        http1
    });
    let mut upgrade = request(Method::GET, "/");
    upgrade.headers_mut().insert("upgrade", HeaderValue::from_static("x"));
    let lease = cluster.admit(&pick()).unwrap();
    assert_eq!(lease.send(&ends, upgrade).await.unwrap().status(), StatusCode::OK);
}
