//! Applications that speak HTTP, and rules about their service.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use undermesh_model::{
    ResourceRef,
    traffic::{ClusterKey, Dialect, HttpMatch, Locality, PathMatch},
};
use undermesh_snapshot::{
    WorkloadInfo,
    traffic::{
        AppProtocol, ClusterEndpoint, ClusterSpec, CompiledRoute, HeaderEdits, PortTraffic,
        RequestMatch, RouteAction, RouteTable, Settings, Target, Weighted,
    },
};

use crate::{
    ProxyConfig, testing,
    tests::mesh::{Client, Mesh, SOON, Server},
};

pub(super) const VIP: &str = "10.96.0.1:80";

/// What a backend was asked.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A pod whose application answers every request with its own name, or as `x-answer` asks.
pub(super) struct Backend {
    pub(super) server: Server,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    pub(super) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// A mesh with a client and backends behind one service.
pub(super) struct Rig {
    pub(super) mesh: Mesh,
    pub(super) client: Client,
    pub(super) backends: Vec<Backend>,
}

impl Rig {
    pub(super) async fn new(backends: &[&'static str]) -> Self {
        Self::with(backends, |_| {}).await
    }

    pub(super) async fn with(
        backends: &[&'static str],
        change: impl FnOnce(&mut ProxyConfig),
    ) -> Self {
        let mesh = Mesh::with(change);
        let client = mesh.client("client");
        let mut rig = Self { mesh, client, backends: Vec::new() };
        for name in backends {
            let server = rig.mesh.server(name).await;
            rig.backends.push(backend(name, server));
        }
        rig
    }

    /// A cluster of some of the backends.
    pub(super) fn cluster(&self, names: &[&str]) -> Arc<ClusterSpec> {
        self.cluster_of(names, AppProtocol::Http)
    }

    pub(super) fn cluster_of(&self, names: &[&str], protocol: AppProtocol) -> Arc<ClusterSpec> {
        let wanted =
            self.backends.iter().filter(|b| names.contains(&&*b.server.workload.name.name));
        let endpoints =
            wanted.map(|backend| endpoint(backend.server.address, &backend.server.workload));
        cluster(names.join("-"), protocol, endpoints.collect())
    }

    /// Puts rules in force.
    pub(super) fn rules(&self, traffic: PortTraffic) {
        let traffic = Arc::new(traffic);
        self.mesh.configure(|snapshot| {
            testing::add_service(snapshot, VIP, Vec::new());
            let vip: SocketAddr = VIP.parse().unwrap();
            let route = Arc::make_mut(snapshot.services.get_mut(&vip).unwrap());
            route.traffic.insert("shop".to_owned(), traffic);
        });
    }

    /// Sends one request over a connection of its own.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let stream = self.client.dial(VIP.parse().unwrap()).await;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(connection);
        let response = timeout(SOON, sender.send_request(request)).await.expect("an answer");
        let response = collect(response.unwrap()).await;
        driver.abort();
        response
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.send(get(path)).await;
        (response.status(), String::from_utf8_lossy(response.body()).into_owned())
    }
}

pub(super) async fn collect(response: Response<Incoming>) -> Response<Bytes> {
    let (parts, body) = response.into_parts();
    let body = timeout(SOON, body.collect()).await.expect("a whole answer").unwrap();
    Response::from_parts(parts, body.to_bytes())
}

pub(super) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "cart").body(Full::default()).unwrap()
}

pub(super) fn endpoint(address: SocketAddr, workload: &Arc<WorkloadInfo>) -> ClusterEndpoint {
    ClusterEndpoint {
        address,
        workload: Some(Arc::clone(workload)),
        weight: 1,
        locality: Locality::default(),
        priority: 0,
    }
}

pub(super) fn cluster(
    subset: String,
    protocol: AppProtocol,
    endpoints: Vec<ClusterEndpoint>,
) -> Arc<ClusterSpec> {
    let whole = ClusterKey::new("cart.shop.svc.cluster.local", 80);
    let key = Arc::new(ClusterKey { subset, ..whole });
    let (dns, settings) = (Vec::new(), Settings::default());
    Arc::new(ClusterSpec { key, rule: None, protocol, endpoints, dns, dynamic: None, settings })
}

pub(super) fn route(action: RouteAction) -> CompiledRoute {
    CompiledRoute {
        origin: ResourceRef::namespaced("VirtualService", "shop", "cart").into(),
        name: "route".into(),
        action,
        path: None,
        authority: None,
        headers: HeaderEdits::default(),
        timeout: None,
        retries: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
    }
}

pub(super) fn to(cluster: &Arc<ClusterSpec>) -> RouteAction {
    RouteAction::Forward(vec![weighted(cluster, 1)])
}

pub(super) fn weighted(cluster: &Arc<ClusterSpec>, weight: u32) -> Weighted {
    let target = Target::Cluster(Arc::clone(cluster));
    Weighted { target, weight, headers: HeaderEdits::default() }
}

/// Rules by the beginning of the path.
pub(super) fn rules(default: &Arc<ClusterSpec>, routes: Vec<(&str, CompiledRoute)>) -> PortTraffic {
    let entry = |(prefix, route): (&str, CompiledRoute)| {
        let path = Some(PathMatch::Prefix(prefix.to_owned()));
        let matching = HttpMatch { path, ..HttpMatch::default() };
        (RequestMatch::new(&matching, Dialect::Istio).unwrap(), Arc::new(route))
    };
    PortTraffic {
        protocol: default.protocol,
        http: RouteTable::new(routes.into_iter().map(entry).collect()),
        l4: Vec::new(),
        default: Arc::clone(default),
    }
}

fn backend(name: &'static str, mut server: Server) -> Backend {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let app = std::mem::replace(&mut server.app, unused_listener());
    let notes = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = app.accept().await else { return };
            let notes = Arc::clone(&notes);
            let service = service_fn(move |request| answer(name, Arc::clone(&notes), request));
            tokio::spawn(async move {
                let mut builder =
                    hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                // More than the proxy takes.
                builder.http1().max_headers(1000);
                let io = TokioIo::new(stream);
                let _ = builder.serve_connection_with_upgrades(io, service).await;
            });
        }
    });
    Backend { server, seen, task }
}

fn unused_listener() -> tokio::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::net::TcpListener::from_std(listener).unwrap()
}

async fn answer(
    name: &'static str,
    seen: Arc<Mutex<Vec<Seen>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let target = parts.uri.to_string();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(Seen { target, headers: parts.headers.clone(), body });
        seen.len()
    };
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(wait) = header("x-wait-ms") {
        tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
    }
    // "503,200": the first request gets the first status, later ones the last.
    let statuses: Vec<u16> = header("x-answer")
        .map(|list| list.split(',').map(|status| status.parse().unwrap()).collect())
        .unwrap_or_default();
    let status = statuses.get(number - 1).or(statuses.last()).copied().unwrap_or(200);
    let response = Response::builder().status(status).header("x-from", name);
    let body = if parts.method == http::Method::HEAD { "" } else { name };
    Ok(response.body(Full::from(body)).unwrap())
}

impl Rig {
    /// Says this on a connection of its own, closes its half where asked to, and hears the rest.
    pub(super) async fn say(&self, text: &str, and_close: bool) -> String {
        let mut stream = self.client.dial(VIP.parse().unwrap()).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        if and_close {
            stream.shutdown().await.unwrap();
        }
        let mut heard = Vec::new();
        // A reset after the answer does not matter to whoever has read it.
        let _ = timeout(SOON, stream.read_to_end(&mut heard)).await.expect("an end");
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// An HTTP/2 connection.
    pub(super) async fn http2(&self) -> http2::SendRequest<Full<Bytes>> {
        let stream = self.client.dial(VIP.parse().unwrap()).await;
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// An HTTP/1.1 connection.
    pub(super) async fn http1(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = self.client.dial(VIP.parse().unwrap()).await;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        sender
    }

    /// All of the service's requests go to the first backend.
    pub(super) fn plain_rules(&self) {
        let all = self.cluster(&["v1"]);
        self.rules(rules(&all, vec![("/", route(to(&all)))]));
    }
}
