//! TLS record path: bytes that go to the other end of a connection and come back, under the configurations that two
//! workloads of a mesh have. In memory, which is rustls alone; and as frames of the native wire over loopback, which is
//! what agents do.
//!
//! `cargo bench -p undermesh-proxy --features fuzzing --bench records`. Claims nothing: what is fast enough depends on
//! the machine.

use std::{
    error::Error,
    fs,
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    pki_types::ServerName,
};
use tokio::{runtime, sync::watch, time::timeout};
use undermesh_identity::{
    CaDirectory, CaOptions, DirectoryAuthority, IdentityConfig, IdentityStore,
};
use undermesh_model::{SpiffeId, TrustDomain, Wire};
use undermesh_proxy::fuzzing::echo::Echo;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const KIB: usize = 1 << 10;
/// Certificates are there at once.
const SOON: Duration = Duration::from_secs(15);

fn main() -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (client, server) = runtime.block_on(configurations())?;
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("TLS records there and back");
    for (name, size) in [("1 KiB", KIB), ("64 KiB", 64 * KIB)] {
        let payload: Bytes = (0..=u8::MAX).cycle().take(size).collect();
        group.throughput(Throughput::Bytes(2 * size as u64));
        let mut sessions = Sessions::new(Arc::clone(&client), Arc::clone(&server))?;
        measure(&mut group, &format!("{name} in memory"), &payload, || {
            sessions.there_and_back(&payload)
        })?;
        let echo = Echo::connect(Arc::clone(&client), Arc::clone(&server));
        let mut echo = runtime.block_on(echo)?;
        measure(&mut group, &format!("{name} over the native wire"), &payload, || {
            Ok(runtime.block_on(echo.there_and_back(payload.clone()))?)
        })?;
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// Measures what brings back `payload`, having seen that it does.
fn measure<P: AsRef<[u8]>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    payload: &[u8],
    mut there_and_back: impl FnMut() -> Result<Vec<P>>,
) -> Result<()> {
    let back: Vec<u8> = there_and_back()?.iter().flat_map(AsRef::as_ref).copied().collect();
    if back != payload {
        return Err(format!("{name}: other bytes come back").into());
    }
    let mut failure = Ok(());
    group.bench_function(name, |bencher| {
        bencher.iter(|| there_and_back().map_err(|error| failure = Err(error)));
    });
    failure
}

/// What two workloads have for each other.
async fn configurations() -> Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let authority = Authority::make()?;
    let signer = Arc::new(DirectoryAuthority::open(&authority.0)?);
    let store = IdentityStore::new(signer, IdentityConfig::default())?;
    let id = |name: &str| SpiffeId::new(TrustDomain::default(), "shop", name);
    let (web, cart) = (id("web"), id("cart"));
    store.set_wanted([web.clone(), cart.clone()].into());
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(Arc::clone(&store).run(stopped));
    for id in [&web, &cart] {
        timeout(SOON, store.ready(id)).await?;
    }
    let client = store.client_config(&web, std::slice::from_ref(&cart), Wire::Native)?;
    let server = store.server_config(&cart, Wire::Native)?;
    stop.send(true)?;
    running.await?;
    Ok((client, server))
}

/// A certificate authority's directory, which goes with the value.
struct Authority(PathBuf);

impl Authority {
    fn make() -> Result<Self> {
        let name = format!("undermesh-bench-records-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        CaDirectory::init(&path, &CaOptions::default())?;
        Ok(Self(path))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Both ends of a session, and nothing between them.
struct Sessions {
    client: Connection,
    server: Connection,
    wire: Vec<u8>,
}

impl Sessions {
    fn new(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Self> {
        let name = ServerName::try_from("127.0.0.1")?;
        let mut sessions = Self {
            client: ClientConnection::new(client, name)?.into(),
            server: ServerConnection::new(server)?.into(),
            wire: Vec::new(),
        };
        for end in [&mut sessions.client, &mut sessions.server] {
            // As agents have it.
            end.set_buffer_limit(None);
        }
        let (client, server) = (&mut sessions.client, &mut sessions.server);
        // Hellos, both certificates, and tickets.
        for _ in 0..3 {
            carry(client, server, &mut sessions.wire, &mut Vec::new())?;
            carry(server, client, &mut sessions.wire, &mut Vec::new())?;
        }
        if sessions.client.is_handshaking() || sessions.server.is_handshaking() {
            return Err("the handshake does not end".into());
        }
        Ok(sessions)
    }

    fn there_and_back(&mut self, payload: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        self.client.writer().write_all(payload)?;
        carry(&mut self.client, &mut self.server, &mut self.wire, &mut there)?;
        self.server.writer().write_all(&there)?;
        carry(&mut self.server, &mut self.client, &mut self.wire, &mut back)?;
        Ok(vec![back])
    }
}

/// Moves everything that one end has to say to the other; `read` gets what was in it.
fn carry(
    from: &mut Connection,
    to: &mut Connection,
    wire: &mut Vec<u8>,
    read: &mut Vec<u8>,
) -> Result<()> {
    wire.clear();
    while from.wants_write() {
        from.write_tls(wire)?;
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest)?;
        let state = to.process_new_packets()?;
        let known = read.len();
        read.resize(known + state.plaintext_bytes_to_read(), 0);
        to.reader().read_exact(&mut read[known..])?;
    }
    Ok(())
}
