//! Material for tests of destinations: specifications, a pod, and servers in memory.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{body::Incoming, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    io::DuplexStream,
    runtime::Handle,
    sync::{Semaphore, watch},
};
use undermesh_model::traffic::ClusterKey;
use undermesh_snapshot::traffic::{AppProtocol, ClusterEndpoint, ClusterSpec, Settings};

use super::{
    Body, ByteStream, Cluster, Dial, Dialling, DnsMetrics, Lease, Names, Node, Pick, SendError,
    UpstreamMetrics, Upstreams,
};
use crate::error::Failure;

/// The address of the pod.
pub(super) const OWN: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9))];

/// A pod with destinations, on a node of its own.
pub(super) struct Rig {
    pub(super) upstreams: Upstreams,
    pub(super) node: Arc<Node>,
    registry: Registry,
}

impl Rig {
    pub(super) fn new() -> Self {
        // Nobody answers there.
        Self::resolving_with(SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    /// A node that asks this DNS server.
    pub(super) fn resolving_with(server: SocketAddr) -> Self {
        let mut registry = Registry::default();
        let metrics = UpstreamMetrics::register(&mut registry);
        let dns_metrics = DnsMetrics::register(&mut registry);
        let names = Names::new(&[server], dns_metrics, &Handle::current());
        let node = Node::new(metrics, names, &Handle::current());
        Self { upstreams: Upstreams::new(&node, &OWN), node, registry }
    }

    /// A figure that is no cluster's.
    pub(super) fn sum(&self, name: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let figure = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(figure).unwrap_or_default()
    }

    pub(super) fn cluster(&self, spec: &ClusterSpec) -> Arc<Cluster> {
        self.upstreams.cluster(&Arc::new(spec.clone()))
    }

    /// A figure of the cluster `cart`; `label` narrows it down.
    pub(super) fn figure(&self, name: &str, label: &str) -> Option<u64> {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let starts = format!("{name}{{cluster=\"outbound|80||cart\"{label}}} ");
        text.lines().find_map(|line| line.strip_prefix(&starts)?.parse().ok())
    }

    /// How often a limit was reached.
    pub(super) fn overflow(&self, limit: &str) -> u64 {
        let label = format!(",limit=\"{limit}\"");
        self.figure("undermesh_upstream_overflow_total", &label).unwrap()
    }
}

/// The cluster `cart` with so many endpoints, `10.0.0.1:80` and so on.
pub(super) fn spec(endpoints: u8) -> ClusterSpec {
    ClusterSpec {
        key: ClusterKey::new("cart", 80).into(),
        rule: None,
        protocol: AppProtocol::Http,
        endpoints: (1..=endpoints).map(endpoint).collect(),
        dns: Vec::new(),
        dynamic: None,
        settings: Settings::default(),
    }
}

pub(super) fn address(nth: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, nth], 80))
}

pub(super) fn endpoint(nth: u8) -> ClusterEndpoint {
    ClusterEndpoint {
        address: address(nth),
        workload: None,
        weight: 1,
        locality: Default::default(),
        priority: 0,
    }
}

/// A first attempt without a key.
pub(super) fn pick() -> Pick<'static> {
    Pick {
        hash: None,
        client: [10, 9, 9, 9].into(),
        dialled: SocketAddr::from(([10, 96, 0, 1], 80)),
        tried: &[],
        leave_tiers_of: &[],
    }
}

/// A request without a body. `/hold` is answered once the server lets it be.
pub(super) fn request(method: Method, path: &str) -> Request<Body> {
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let uri = format!("http://cart{path}");
    Request::builder().method(method).uri(uri).body(body).unwrap()
}

/// One attempt: admitted, and sent to `server`.
pub(super) async fn send(
    cluster: &Cluster,
    server: &Server,
    path: &str,
) -> Result<(Lease, Response<Incoming>), SendError> {
    let lease = cluster.admit(&pick()).unwrap();
    let answer = lease.send(server, request(Method::GET, path)).await?;
    Ok((lease, answer))
}

/// One attempt, the answer read to its end.
pub(super) async fn exchange(cluster: &Cluster, server: &Server, path: &str) {
    let (lease, answer) = send(cluster, server, path).await.unwrap();
    answer.into_body().collect().await.unwrap();
    drop(lease);
    settle().await;
}

/// Lets everybody do what they can do without time passing.
pub(super) async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}

/// Waits, without time passing, until this is so.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never came true: {what}");
}

/// An endpoint in memory, whatever address it is dialled at.
pub(super) struct Server {
    http2: bool,
    /// Connections that were asked for.
    pub(super) dials: AtomicUsize,
    /// Dialling fails.
    pub(super) refuses: AtomicBool,
    /// Dialling waits for a permit each.
    pub(super) dial_gate: Option<Semaphore>,
    shared: Arc<Served>,
}

struct Served {
    /// Requests that have arrived.
    seen: watch::Sender<usize>,
    /// One permit for each answer to `/hold`.
    gate: Semaphore,
    /// Closes its connections when it goes up; HTTP/2 with GOAWAY.
    rounds: watch::Sender<usize>,
    max_streams: u32,
}

impl Server {
    pub(super) fn http1() -> Self {
        Self::new(false, 100)
    }

    pub(super) fn http2() -> Self {
        Self::new(true, 100)
    }

    pub(super) fn new(http2: bool, max_streams: u32) -> Self {
        let shared = Arc::new(Served {
            seen: watch::Sender::new(0),
            gate: Semaphore::new(0),
            rounds: watch::Sender::new(0),
            max_streams,
        });
        let (dials, refuses) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { http2, dials, refuses, dial_gate: None, shared }
    }

    pub(super) fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }

    /// Requests that have arrived.
    pub(super) fn seen(&self) -> usize {
        *self.shared.seen.borrow()
    }

    /// Answers so many of the requests that it holds.
    pub(super) fn answer(&self, count: usize) {
        self.shared.gate.add_permits(count);
    }

    /// Closes the connections that are open once they have nothing to do.
    pub(super) fn close(&self) {
        self.shared.rounds.send_modify(|rounds| *rounds += 1);
    }
}

impl Dial for Server {
    fn dial<'a>(&'a self, endpoint: &'a ClusterEndpoint) -> Dialling<'a> {
        self.dials.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if let Some(gate) = &self.dial_gate {
                gate.acquire().await.unwrap().forget();
            }
            if self.refuses.load(Ordering::Relaxed) {
                let kind = std::io::ErrorKind::ConnectionRefused;
                return Err(Failure::Connect { to: endpoint.address, kind });
            }
            let (client, server) = tokio::io::duplex(1 << 16);
            let shared = Arc::clone(&self.shared);
            match self.http2 {
                true => drop(tokio::spawn(serve_http2(shared, server))),
                false => drop(tokio::spawn(serve_http1(shared, server))),
            }
            Ok(Box::new(client) as Box<dyn ByteStream>)
        })
    }
}

async fn serve_http1(shared: Arc<Served>, stream: DuplexStream) {
    let mut rounds = shared.rounds.subscribe();
    let service = service_fn(|request| answer(Arc::clone(&shared), request));
    let connection = conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = rounds.changed() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

async fn serve_http2(shared: Arc<Served>, stream: DuplexStream) {
    let mut rounds = shared.rounds.subscribe();
    let service = service_fn(|request| answer(Arc::clone(&shared), request));
    let connection = conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(shared.max_streams)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = rounds.changed() => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

async fn answer(
    shared: Arc<Served>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    shared.seen.send_modify(|seen| *seen += 1);
    if request.uri().path() == "/hold" {
        shared.gate.acquire().await.unwrap().forget();
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}
