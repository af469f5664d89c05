//! A mesh on loopback addresses.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::Handle,
    sync::watch,
    time::timeout,
};
use undermesh_identity::{
    CaDirectory, CaOptions, DirectoryAuthority, IdentityConfig, IdentityStore,
};
use undermesh_model::{SpiffeId, Wire};
use undermesh_snapshot::{EndpointTarget, Snapshot, WorkloadInfo};
use undermesh_telemetry::{AccessLog, AccessLogSink, Telemetry};

use crate::{
    OriginalDst, PodHandle, PodListeners, PodSockets, Proxy, ProxyConfig, ProxyStatus, Transparent,
    accept, testing,
};

/// Longest wait for something that should happen at once.
pub(super) const SOON: Duration = Duration::from_secs(15);

static NEXT: AtomicU32 = AtomicU32::new(1);

/// An address that no other test of this process uses.
fn fresh_address() -> IpAddr {
    let n = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 1 + n[1], n[2], n[3]).into()
}

pub(super) struct Mesh {
    pub(super) proxy: Arc<Proxy>,
    pub(super) identities: Arc<IdentityStore>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) ca: PathBuf,
    pub(super) hbone_port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    wanted: Mutex<BTreeSet<SpiffeId>>,
    _stop: watch::Sender<bool>,
}

impl Mesh {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let probe = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let hbone_port = probe.local_addr().unwrap().port();
        let mut config = ProxyConfig { hbone_port, ..ProxyConfig::default() };
        change(&mut config);
        let name = format!("undermesh-proxy-{}-{}", std::process::id(), hbone_port);
        let ca = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&ca);
        CaDirectory::init(&ca, &CaOptions::default()).unwrap();
        let authority = Arc::new(DirectoryAuthority::open(&ca).unwrap());
        let identity_config =
            IdentityConfig { poll: Duration::from_millis(50), ..IdentityConfig::default() };
        let identities = IdentityStore::new(authority, identity_config).unwrap();
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(Arc::clone(&identities).run(stopped));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = AccessLog::start(AccessLogSink::Memory(Arc::clone(&lines))).unwrap();
        let telemetry = Telemetry::new(log);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let proxy = Proxy::new(
            config,
            Arc::clone(&snapshot),
            Arc::clone(&identities),
            Arc::clone(&telemetry),
            Handle::current(),
        );
        Self {
            proxy,
            identities,
            telemetry,
            snapshot,
            ca,
            hbone_port,
            lines,
            wanted: Mutex::default(),
            _stop: stop,
        }
    }

    /// Asks for a certificate for `workload`.
    pub(super) fn want(&self, workload: &WorkloadInfo) {
        let mut wanted = self.wanted.lock().unwrap();
        wanted.insert(workload.identity.clone());
        self.identities.set_wanted(wanted.clone());
    }

    /// Changes the snapshot.
    pub(super) fn configure(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = Snapshot::clone(&self.snapshot.load());
        change(&mut snapshot);
        self.snapshot.store(Arc::new(snapshot));
        self.proxy.policies_changed();
    }

    /// Makes a workload known to everybody.
    pub(super) fn publish(&self, workload: &Arc<WorkloadInfo>) {
        self.configure(|snapshot| {
            for address in &workload.addresses {
                snapshot.workloads.insert(*address, Arc::clone(workload));
            }
        });
    }

    pub(super) fn client(&self, name: &str) -> Client {
        self.client_of(testing::workload(name, &[&fresh_address().to_string()]))
    }

    /// A client whose agent speaks the native wire.
    pub(super) fn native_client(&self, name: &str) -> Client {
        self.client_of(native_workload(name, fresh_address()))
    }

    fn client_of(&self, workload: WorkloadInfo) -> Client {
        let workload = Arc::new(workload);
        self.want(&workload);
        self.publish(&workload);
        self.client_without_certificate(workload)
    }

    pub(super) fn client_without_certificate(&self, workload: Arc<WorkloadInfo>) -> Client {
        let outbound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = outbound.local_addr().unwrap();
        let dialled = Arc::new(Dialled::default());
        let handle = self.proxy.serve_pod(PodListeners {
            outbound: vec![outbound],
            inbound: Vec::new(),
            original_dst: Arc::clone(&dialled) as Arc<dyn OriginalDst>,
            sockets: Arc::new(FromPod { own: Some(workload.addresses[0]), moved: HashMap::new() }),
            workload: Arc::clone(&workload),
        });
        Client { listener, dialled, workload, handle: handle.unwrap() }
    }

    pub(super) async fn server(&self, name: &str) -> Server {
        self.server_at(name, fresh_address()).await
    }

    pub(super) async fn server_at(&self, name: &str, address: IpAddr) -> Server {
        let workload = Arc::new(testing::workload(name, &[&address.to_string()]));
        self.want(&workload);
        self.publish(&workload);
        let app = self.application(address).await;
        Server { address: app.local_addr().unwrap(), app, handle: self.serve(&workload), workload }
    }

    /// An application that listens, at any port but that of tunnels.
    async fn application(&self, address: IpAddr) -> TcpListener {
        loop {
            let app = TcpListener::bind((address, 0)).await.unwrap();
            if app.local_addr().unwrap().port() != self.hbone_port {
                return app;
            }
        }
    }

    /// A server that speaks the native wire, and HBONE as every server does.
    pub(super) async fn native_server(&self, name: &str) -> Server {
        let workload = Arc::new(native_workload(name, fresh_address()));
        self.want(&workload);
        self.publish(&workload);
        let app = self.application(workload.addresses[0]).await;
        let captured = self.application(workload.addresses[0]).await;
        let address = captured.local_addr().unwrap();
        let moved = HashMap::from([(address, app.local_addr().unwrap())]);
        let handle = self.serve_with(&workload, moved);
        self.capture(&handle, captured);
        Server { app, address, workload, handle }
    }

    /// Hands what arrives at an application's port to the proxy, as the kernel does.
    pub(super) fn capture(&self, handle: &PodHandle, captured: TcpListener) {
        accept::spawn(&handle.pod, Vec::new(), vec![captured]);
    }

    /// The same, over HBONE only.
    pub(super) fn serve_hbone_again(&self, server: &Server) -> PodHandle {
        let moved = HashMap::from([(server.address, server.app.local_addr().unwrap())]);
        self.serve_with(&server.workload, moved)
    }

    /// Serves a pod again whose application is known by one address and listens at another.
    pub(super) fn serve_again(&self, server: &Server) -> PodHandle {
        let handle = self.serve_hbone_again(server);
        self.capture(&handle, TcpListener::from_std(listen(server.address)).unwrap());
        handle
    }

    /// Opens the tunnel listener of a workload.
    pub(super) fn serve(&self, workload: &Arc<WorkloadInfo>) -> PodHandle {
        self.serve_with(workload, HashMap::new())
    }

    fn serve_with(
        &self,
        workload: &Arc<WorkloadInfo>,
        moved: HashMap<SocketAddr, SocketAddr>,
    ) -> PodHandle {
        let address = SocketAddr::new(workload.addresses[0], self.hbone_port);
        let listeners = PodListeners {
            workload: Arc::clone(workload),
            outbound: Vec::new(),
            inbound: vec![listen(address)],
            original_dst: Arc::new(Dialled::default()),
            sockets: Arc::new(FromPod { own: None, moved }),
        };
        self.proxy.serve_pod(listeners).unwrap()
    }

    pub(super) fn service(&self, vip: &str, endpoints: Vec<EndpointTarget>) {
        self.configure(|snapshot| testing::add_service(snapshot, vip, endpoints));
    }

    pub(super) fn status(&self) -> ProxyStatus {
        self.proxy.status()
    }

    /// The value of a metric, 0 where there is none.
    pub(super) fn metric(&self, line: &str) -> u64 {
        let text = self.telemetry.encode();
        let value = text.lines().find_map(|l| l.strip_prefix(line));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Waits for a line of the access log that contains all of `parts`.
    pub(super) async fn logged(&self, parts: &[&str]) -> serde_json::Value {
        let found = || {
            let lines = self.lines.lock().unwrap();
            let line = lines.iter().find(|line| parts.iter().all(|part| line.contains(part)))?;
            Some(serde_json::from_str(line).unwrap())
        };
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(line) = found() {
                return line;
            }
            let lines = self.lines.lock().unwrap().join("\n");
            assert!(Instant::now() < deadline, "{parts:?} not in the log:\n{lines}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.ca);
    }
}

/// Waits until `condition` holds.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Stands for the BPF map: where each client socket was going.
#[derive(Default)]
pub(super) struct Dialled(Mutex<HashMap<SocketAddr, SocketAddr>>);

impl OriginalDst for Dialled {
    fn original_dst(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.0.lock().unwrap().get(&peer).copied()
    }

    fn neighbour(&self, _: SocketAddr, _: SocketAddr) -> Option<Arc<WorkloadInfo>> {
        None
    }
}

/// Sockets of a pod that lives in this network namespace, bound to its address where it has one.
struct FromPod {
    own: Option<IpAddr>,
    /// Where applications listen that are known by another address.
    moved: HashMap<SocketAddr, SocketAddr>,
}

/// Listens as soon as whoever listened there before has let go.
fn listen(address: SocketAddr) -> std::net::TcpListener {
    let deadline = Instant::now() + SOON;
    loop {
        match try_to_listen(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            listener => return listener.unwrap(),
        }
    }
}

fn try_to_listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn native_workload(name: &str, address: IpAddr) -> WorkloadInfo {
    let wire = Wire::Native;
    WorkloadInfo { wire, ..testing::workload(name, &[&address.to_string()]) }
}

impl PodSockets for FromPod {
    fn stream(&self, remote: IpAddr, _: Option<SocketAddr>) -> io::Result<Socket> {
        let domain = Domain::for_address(SocketAddr::new(remote, 0));
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if let Some(own) = self.own.filter(|own| own.is_ipv4() == remote.is_ipv4()) {
            socket.bind(&SocketAddr::new(own, 0).into())?;
        }
        Ok(socket)
    }

    fn transparent(&self, _: SocketAddr, _: SocketAddr) -> Option<io::Result<Transparent>> {
        None
    }

    fn application(&self, known_by: SocketAddr) -> SocketAddr {
        self.moved.get(&known_by).copied().unwrap_or(known_by)
    }
}

/// A pod that dials.
pub(super) struct Client {
    pub(super) listener: SocketAddr,
    pub(super) workload: Arc<WorkloadInfo>,
    pub(super) handle: PodHandle,
    dialled: Arc<Dialled>,
}

impl Client {
    /// Dials `to` as an application whose connect was redirected to the proxy.
    pub(super) async fn dial(&self, to: SocketAddr) -> TcpStream {
        self.try_dial(to).await.unwrap()
    }

    async fn try_dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse().unwrap())?;
        let from = socket.local_addr()?;
        self.dialled.0.lock().unwrap().insert(from, to);
        socket.connect(self.listener).await
    }

    /// Dials `to`, says something, and must be reset.
    pub(super) async fn dial_in_vain(&self, to: SocketAddr) {
        expect_refusal(self.try_dial(to).await).await;
    }
}

/// The connection must be reset, perhaps before `connect` has returned.
pub(super) async fn expect_refusal(connected: io::Result<TcpStream>) {
    match connected {
        Ok(mut stream) => {
            // What is written must never arrive anywhere.
            let _ = stream.write_all(b"secret").await;
            expect_reset(&mut stream).await;
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// A pod with an application that accepts.
pub(super) struct Server {
    pub(super) app: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) workload: Arc<WorkloadInfo>,
    pub(super) handle: PodHandle,
}

impl Server {
    pub(super) async fn accept(&self) -> TcpStream {
        timeout(SOON, self.app.accept()).await.unwrap().unwrap().0
    }
}

/// Both ends of an established connection.
pub(super) async fn connect(client: &Client, server: &Server) -> (TcpStream, TcpStream) {
    let near = client.dial(server.address).await;
    (near, server.accept().await)
}

pub(super) async fn ping_pong(near: &mut TcpStream, far: &mut TcpStream) {
    near.write_all(b"ping").await.unwrap();
    assert_eq!(read_exactly(far, 4).await, b"ping");
    far.write_all(b"pong").await.unwrap();
    assert_eq!(read_exactly(near, 4).await, b"pong");
}

pub(super) async fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let read = timeout(SOON, stream.read_exact(&mut bytes));
    read.await.expect("bytes in time").unwrap();
    bytes
}

pub(super) async fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut bytes));
    read.await.expect("an end in time")?;
    Ok(bytes)
}

/// The connection must end with a reset, not with an orderly close.
pub(super) async fn expect_reset(stream: &mut TcpStream) {
    let error = read_to_end(stream).await.expect_err("a reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

pub(super) fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}
