//! Real certificates and real handshakes, in memory; time moves when the test says so.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
};

use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::{
    ClientConnection, Error, ServerConnection,
    pki_types::{PrivateKeyDer, ServerName},
};

use super::*;
use crate::{
    CaDirectory, CaOptions, DirectoryAuthority, SignFuture, classify, peer::PeerError,
    peer_identity,
};

/// A directory that goes with the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("um-identity-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("ca")
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The system's clock plus what the test has added.
#[derive(Debug, Default)]
struct TestClock(AtomicI64);

impl TestClock {
    fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + time::Duration::seconds(self.0.load(Ordering::Relaxed))
    }
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "shop", name)
}

fn init(path: &Path) {
    CaDirectory::init(path, &CaOptions::default()).unwrap();
}

struct Node {
    store: Arc<IdentityStore>,
    clock: Arc<TestClock>,
}

/// A store over a CA directory, with certificates for `names`.
async fn node(path: &Path, names: &[&str], lifetime: u64) -> Node {
    let clock = Arc::new(TestClock::default());
    let authority = DirectoryAuthority::with_clock(path, Arc::clone(&clock) as _).unwrap();
    node_with(Arc::new(authority), clock, names, lifetime).await
}

async fn node_with(
    authority: Arc<dyn CertificateAuthority>,
    clock: Arc<TestClock>,
    names: &[&str],
    lifetime: u64,
) -> Node {
    let config = IdentityConfig {
        lifetime: Duration::from_secs(lifetime),
        clock: Arc::clone(&clock) as _,
        ..IdentityConfig::default()
    };
    let store = IdentityStore::new(authority, config).unwrap();
    store.set_wanted(names.iter().map(|name| id(name)).collect());
    store.round().await;
    Node { store, clock }
}

struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

/// Moves bytes both ways until neither side has more to say; names the side that refuses.
fn pump(pair: &mut Pair) -> Result<(), (Error, &'static str)> {
    for _ in 0..20 {
        let mut wire = Vec::new();
        while pair.client.wants_write() {
            pair.client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            pair.server.read_tls(&mut rest).unwrap();
            pair.server.process_new_packets().map_err(|error| (error, "server"))?;
        }
        let mut wire = Vec::new();
        while pair.server.wants_write() {
            pair.server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            pair.client.read_tls(&mut rest).unwrap();
            pair.client.process_new_packets().map_err(|error| (error, "client"))?;
        }
    }
    Ok(())
}

fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<Pair, (Error, &'static str)> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut pair = Pair {
        client: ClientConnection::new(client, name).unwrap(),
        server: ServerConnection::new(server).unwrap(),
    };
    pump(&mut pair)?;
    assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking());
    Ok(pair)
}

/// Sends a word from the client to the server.
fn talk(pair: &mut Pair) {
    pair.client.writer().write_all(b"hello").unwrap();
    pump(pair).unwrap();
    let mut word = [0; 5];
    pair.server.reader().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
}

/// Why the handshake between two nodes' workloads is refused, and by whom.
fn refusal(client: &Node, server: &Node) -> (&'static str, &'static str) {
    let client = client.store.client_config(&id("web"), &[id("cart")]).unwrap();
    let server = server.store.server_config(&id("cart")).unwrap();
    let Err((error, side)) = handshake(client, server) else { panic!("the handshake succeeded") };
    (classify(&error), side)
}

#[tokio::test]
async fn two_workloads_of_a_mesh_know_each_other_after_the_handshake() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")]).unwrap();
    let server = node.store.server_config(&id("cart")).unwrap();
    let mut pair = handshake(client, server).unwrap();
    talk(&mut pair);
    let now = node.store.now();
    assert_eq!(peer_identity(pair.server.peer_certificates(), now), Ok(id("web")));
    assert_eq!(peer_identity(pair.client.peer_certificates(), now), Ok(id("cart")));
    assert_eq!(pair.client.alpn_protocol(), Some(&b"h2"[..]));
    let version = pair.client.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("cart"), &[id("cart")]).unwrap();
    let server = node.store.server_config(&id("web")).unwrap();
    let (error, side) = handshake(client, server).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_unexpected_identity", "client"));
}

#[tokio::test]
async fn another_authority_is_refused_by_both_sides() {
    let (ours, theirs) = (TempDir::new(), TempDir::new());
    init(&ours.path());
    init(&theirs.path());
    let ours = node(&ours.path(), &["web", "cart"], 3600).await;
    let theirs = node(&theirs.path(), &["web", "cart"], 3600).await;
    assert_eq!(refusal(&ours, &theirs), ("tls_unknown_issuer", "client"));
}

/// Signs whatever names a test wants, under a real CA directory.
struct OddAuthority {
    directory: DirectoryAuthority,
    path: PathBuf,
    names: Vec<String>,
}

impl CertificateAuthority for OddAuthority {
    fn sign<'a>(&'a self, id: &'a SpiffeId, _: Duration) -> SignFuture<'a> {
        Box::pin(async move {
            let key =
                KeyPair::from_pem(&fs::read_to_string(self.path.join("intermediate.key")).unwrap())
                    .unwrap();
            let pem = fs::read_to_string(self.path.join("intermediate.crt")).unwrap();
            let issuer = Issuer::from_ca_cert_pem(&pem, key).unwrap();
            let leaf_key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.not_after = OffsetDateTime::now_utc() + time::Duration::hours(1);
            params.subject_alt_names = self
                .names
                .iter()
                .map(|name| SanType::URI(name.clone().try_into().unwrap()))
                .collect();
            let leaf = params.signed_by(&leaf_key, &issuer).unwrap().der().clone();
            let chain = vec![leaf, crate::pem::certificates(&pem, Path::new("x"))?.swap_remove(0)];
            Svid::new(id.clone(), chain, &PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into()))
        })
    }

    fn roots(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        self.directory.roots()
    }

    fn issuer(&self) -> Result<Vec<u8>, AuthorityError> {
        self.directory.issuer()
    }
}

async fn odd_node(path: &Path, names: &[&str]) -> Node {
    let authority = OddAuthority {
        directory: DirectoryAuthority::open(path).unwrap(),
        path: path.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    node_with(Arc::new(authority), Arc::default(), &["web", "cart"], 3600).await
}

#[tokio::test]
async fn exactly_one_uri_of_our_trust_domain_is_demanded_by_both_sides() {
    let dir = TempDir::new();
    init(&dir.path());
    let good = node(&dir.path(), &["web", "cart"], 3600).await;
    let other = "spiffe://elsewhere.org/ns/shop/sa/cart";
    let ours = "spiffe://cluster.local/ns/shop/sa/cart";
    for (names, reason) in [
        (vec![], "tls_no_identity"),
        (vec![ours, "spiffe://cluster.local/ns/shop/sa/web"], "tls_no_identity"),
        (vec!["spiffe://cluster.local/cart"], "tls_no_identity"),
        (vec!["https://cluster.local/ns/shop/sa/cart"], "tls_no_identity"),
        (vec![other], "tls_wrong_trust_domain"),
    ] {
        let odd = odd_node(&dir.path(), &names).await;
        assert_eq!(refusal(&good, &odd), (reason, "client"), "{names:?}");
        assert_eq!(refusal(&odd, &good), (reason, "server"), "{names:?}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_sides_and_not_offered_by_its_owner() {
    let dir = TempDir::new();
    init(&dir.path());
    let fresh = node(&dir.path(), &["web", "cart"], 100_000).await;
    let stale = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = stale.store.client_config(&id("web"), &[id("cart")]).unwrap();
    let server = stale.store.server_config(&id("cart")).unwrap();
    fresh.clock.advance(7200);
    let theirs = fresh.store.server_config(&id("cart")).unwrap();
    let (error, side) = handshake(client, theirs).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_expired_certificate", "server"));
    let ours = fresh.store.client_config(&id("web"), &[id("cart")]).unwrap();
    let (error, side) = handshake(ours, server).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_expired_certificate", "client"));
    stale.clock.advance(7200);
    let refused = stale.store.server_config(&id("cart")).unwrap_err();
    assert!(matches!(refused, StoreError::Expired(..)), "{refused}");
}

#[tokio::test]
async fn certificates_are_renewed_well_before_they_expire_under_a_live_connection() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")]).unwrap();
    let server = node.store.server_config(&id("cart")).unwrap();
    let mut pair = handshake(client, server).unwrap();
    let serial = node.store.certificates()[0].serial.clone();
    node.clock.advance(1500);
    node.store.round().await;
    assert_eq!(node.store.certificates()[0].serial, serial, "renewed too early");
    node.clock.advance(400);
    let generation = node.store.generation();
    node.store.round().await;
    assert_ne!(node.store.certificates()[0].serial, serial, "not renewed at half its life");
    assert!(node.store.generation() > generation);
    talk(&mut pair);
}

#[tokio::test]
async fn a_resumed_session_does_not_revive_an_expired_certificate() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")]).unwrap();
    let server = node.store.server_config(&id("cart")).unwrap();
    handshake(Arc::clone(&client), Arc::clone(&server)).unwrap();
    let resumed = handshake(client, server).unwrap();
    assert_eq!(resumed.server.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    node.clock.advance(7200);
    let peer = peer_identity(resumed.server.peer_certificates(), node.store.now());
    assert_eq!(peer, Err(PeerError::Expired));
}

#[tokio::test]
async fn roots_overlap_while_they_are_rotated_and_the_old_one_ends_with_prune() {
    let dir = TempDir::new();
    init(&dir.path());
    let old = node(&dir.path(), &["web", "cart"], 3600).await;
    let before = old.store.certificates()[0].serial.clone();
    let generation = old.store.generation();
    let settle = || old.store.follow_authority();
    CaDirectory::rotate(&dir.path(), &CaOptions::default(), settle).unwrap();
    assert!(old.store.generation() > generation, "the bundle was not reloaded");
    let new = node(&dir.path(), &["web", "cart"], 3600).await;
    assert_eq!(new.store.root_count(), 2);
    let old_server = old.store.server_config(&id("cart")).unwrap();
    let client = new.store.client_config(&id("web"), &[id("cart")]).unwrap();
    handshake(Arc::clone(&client), Arc::clone(&old_server)).unwrap();
    old.store.round().await;
    assert_ne!(old.store.certificates()[0].serial, before, "not renewed under the new issuer");
    assert_eq!(CaDirectory::prune(&dir.path()).unwrap(), 1);
    new.store.round().await;
    let client = new.store.client_config(&id("web"), &[id("cart")]).unwrap();
    let (error, _) = handshake(client, old_server).err().unwrap();
    assert_eq!(classify(&error), "tls_unknown_issuer");
    let renewed = old.store.server_config(&id("cart")).unwrap();
    let client = new.store.client_config(&id("web"), &[id("cart")]).unwrap();
    handshake(client, renewed).unwrap();
}

#[tokio::test]
async fn a_broken_bundle_leaves_the_old_one_in_force() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    fs::write(dir.path().join("bundle.pem"), "nonsense").unwrap();
    node.store.round().await;
    assert_eq!(node.store.root_count(), 1);
    let client = node.store.client_config(&id("web"), &[id("cart")]).unwrap();
    handshake(client, node.store.server_config(&id("cart")).unwrap()).unwrap();
}

#[tokio::test]
async fn the_running_store_issues_what_becomes_wanted_and_forgets_the_rest() {
    let dir = TempDir::new();
    init(&dir.path());
    let store = node(&dir.path(), &[], 3600).await.store;
    let stop = watch::Sender::new(false);
    let running = tokio::spawn(Arc::clone(&store).run(stop.subscribe()));
    store.set_wanted([id("web")].into());
    let deadline = Duration::from_secs(10);
    tokio::time::timeout(deadline, store.ready(&id("web"))).await.unwrap();
    store.server_config(&id("web")).unwrap();
    store.set_wanted(BTreeSet::new());
    assert!(matches!(store.server_config(&id("web")), Err(StoreError::NoCertificate(..))));
    stop.send(true).unwrap();
    tokio::time::timeout(deadline, running).await.unwrap().unwrap();
}

#[test]
fn keys_are_private_and_an_authority_is_never_overwritten() {
    let dir = TempDir::new();
    init(&dir.path());
    for key in ["root.key", "intermediate.key"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    let again = CaDirectory::init(&dir.path(), &CaOptions::default()).unwrap_err();
    assert!(matches!(again, AuthorityError::Exists(_)), "{again}");
    fs::set_permissions(dir.path().join("intermediate.key"), fs::Permissions::from_mode(0o644))
        .unwrap();
    let open = CaDirectory::open(&dir.path()).unwrap_err().to_string();
    assert!(open.contains("intermediate.key") && open.contains("mode 644"), "{open}");
}

#[test]
fn a_node_needs_no_root_key_and_mismatched_files_are_named() {
    let dir = TempDir::new();
    init(&dir.path());
    let out = dir.0.join("node");
    CaDirectory::issue_intermediate(&dir.path(), &out, &CaOptions::default()).unwrap();
    assert!(!out.join("root.key").exists());
    let node = CaDirectory::open(&out).unwrap();
    node.sign(&id("web"), Duration::from_secs(60), OffsetDateTime::now_utc()).unwrap();
    fs::copy(dir.path().join("intermediate.key"), out.join("intermediate.key")).unwrap();
    let error = CaDirectory::open(&out).unwrap_err().to_string();
    assert!(error.contains("it is not the key of intermediate.crt"), "{error}");
}

#[test]
fn a_certificate_never_outlives_its_issuer() {
    let dir = TempDir::new();
    let intermediate_lifetime = Duration::from_secs(3600);
    let options = CaOptions { intermediate_lifetime, ..CaOptions::default() };
    let ca = CaDirectory::init(&dir.path(), &options).unwrap();
    let now = OffsetDateTime::now_utc();
    let svid = ca.sign(&id("web"), Duration::from_secs(86_400), now).unwrap();
    assert!(svid.not_after() <= now + Duration::from_secs(3601));
    let late = ca.sign(&id("web"), Duration::from_secs(60), now + Duration::from_secs(7200));
    assert!(late.unwrap_err().to_string().contains("has expired; run `undermesh ca rotate`"));
}

#[test]
fn no_key_is_shown_by_debug() {
    let dir = TempDir::new();
    let ca = CaDirectory::init(&dir.path(), &CaOptions::default()).unwrap();
    let svid = ca.sign(&id("web"), Duration::from_secs(60), OffsetDateTime::now_utc()).unwrap();
    let text = format!("{svid:?}");
    assert!(text.contains(svid.serial()) && !text.to_lowercase().contains("key"), "{text}");
}
