//! Who is let in and who is not.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, ServerConfig, ServerConnection, SignatureScheme,
    client::ResolvesClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use undermesh_model::{SpiffeId, TrustDomain, Wire};

use super::{Node, Pair, also_trust, handshake, node, node_with, pump, refusal, talk};
use crate::{
    AuthorityError, CertificateAuthority, DirectoryAuthority, NATIVE_ALPN, PeerError, SignFuture,
    StoreError, Svid, classify, peer_expiry, peer_identity,
    testing::{TempDir, id, init},
    verifier::ClientVerifier,
};

#[tokio::test]
async fn two_workloads_of_a_mesh_know_each_other_after_the_handshake() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let server = node.store.server_config(&id("cart"), Wire::Hbone).unwrap();
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
    let client = node.store.client_config(&id("cart"), &[id("cart")], Wire::Hbone).unwrap();
    let server = node.store.server_config(&id("web"), Wire::Hbone).unwrap();
    let (error, side) = handshake(client, server).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_unexpected_identity", "client"));
}

#[tokio::test]
async fn a_server_outside_the_wires_has_to_have_a_certificate_of_the_mesh_for_one_of_the_names() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let meet = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let client = node.store.outside_config(&id("web"), &names, &[b"istio-h2", b"h2"]).unwrap();
        let again = node.store.outside_config(&id("web"), &names, &[b"istio-h2", b"h2"]).unwrap();
        assert!(Arc::ptr_eq(&client, &again));
        handshake(client, node.store.server_config(&id("cart"), Wire::Hbone).unwrap())
    };
    let cart = id("cart").to_string();
    let pair = meet(&["spiffe://elsewhere", &cart]).unwrap();
    assert_eq!(peer_identity(pair.server.peer_certificates(), node.store.now()), Ok(id("web")));
    assert_eq!(pair.client.alpn_protocol(), Some(&b"h2"[..]));
    let web = id("web").to_string();
    let (error, side) = meet(&[&web]).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_wrong_name", "client"));
}

#[tokio::test]
async fn another_authority_is_refused_by_both_sides() {
    let (ours, theirs) = (TempDir::new(), TempDir::new());
    init(&ours.path());
    init(&theirs.path());
    let our_node = node(&ours.path(), &["web", "cart"], 3600).await;
    let their_node = node(&theirs.path(), &["web", "cart"], 3600).await;
    assert_eq!(refusal(&our_node, &their_node), ("tls_unknown_issuer", "client"));
    // The server only gets to judge a client that has accepted it.
    also_trust(&theirs.path(), &ours.path());
    their_node.store.round().await;
    assert_eq!(refusal(&their_node, &our_node), ("tls_unknown_issuer", "server"));
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let mut client = ClientConfig::clone(
        &node.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap(),
    );
    client.client_auth_cert_resolver = Arc::new(NoCertificate);
    let server = node.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    let (error, side) = handshake(Arc::new(client), server).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_no_certificate", "server"));
}

/// A client that has nothing to show.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn keys_are_exchanged_hybrid_and_with_older_peers_classically_in_one_round_trip() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let mut server =
        ServerConfig::clone(&node.store.server_config(&id("cart"), Wire::Hbone).unwrap());
    let group = |pair: &Pair| pair.client.negotiated_key_exchange_group().unwrap().name();
    let both = handshake(Arc::clone(&client), Arc::new(server.clone())).unwrap();
    assert_eq!(group(&both), NamedGroup::X25519MLKEM768);
    let mut older = CryptoProvider::clone(server.crypto_provider());
    older.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let verifier = ClientVerifier::new(
        Arc::clone(&node.store.lock().trust.roots),
        Arc::new(older.clone()),
        TrustDomain::default(),
    );
    let resolver = Arc::clone(&server.cert_resolver);
    server = ServerConfig::builder_with_provider(Arc::new(older))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(verifier.unwrap()))
        .with_cert_resolver(resolver);
    let older = handshake(client, Arc::new(server)).unwrap();
    assert_eq!(group(&older), NamedGroup::X25519);
    assert_eq!(older.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
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
    let client = stale.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let server = stale.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    fresh.clock.advance(7200);
    let theirs = fresh.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    let (error, side) = handshake(client, theirs).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_expired_certificate", "server"));
    let ours = fresh.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let (error, side) = handshake(ours, server).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_expired_certificate", "client"));
    stale.clock.advance(7200);
    let refused = stale.store.server_config(&id("cart"), Wire::Hbone).unwrap_err();
    assert!(matches!(refused, StoreError::Expired(..)), "{refused}");
}

#[tokio::test]
async fn a_resumed_session_does_not_revive_an_expired_certificate() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let server = node.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    handshake(Arc::clone(&client), Arc::clone(&server)).unwrap();
    let resumed = handshake(client, server).unwrap();
    assert_eq!(resumed.server.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    node.clock.advance(7200);
    let peer = peer_identity(resumed.server.peer_certificates(), node.store.now());
    assert_eq!(peer, Err(PeerError::Expired));
}

#[tokio::test]
async fn a_session_cannot_be_resumed_once_its_root_is_trusted_no_more() {
    let (ours, theirs) = (TempDir::new(), TempDir::new());
    init(&ours.path());
    init(&theirs.path());
    let alone = fs::read_to_string(ours.path().join("bundle.pem")).unwrap();
    also_trust(&ours.path(), &theirs.path());
    also_trust(&theirs.path(), &ours.path());
    let server = node(&ours.path(), &["cart"], 3600).await;
    let client = node(&theirs.path(), &["web"], 3600).await;
    let config = client.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let serve = || server.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    handshake(Arc::clone(&config), serve()).unwrap();
    let resumed = handshake(Arc::clone(&config), serve()).unwrap();
    assert_eq!(resumed.server.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    fs::write(ours.path().join("bundle.pem"), alone).unwrap();
    server.store.round().await;
    let (error, side) = handshake(config, serve()).err().unwrap();
    assert_eq!((classify(&error), side), ("tls_unknown_issuer", "server"));
}

#[tokio::test]
async fn sessions_are_not_shared_between_identities() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "shop", "cart"], 3600).await;
    let server = node.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    for name in ["web", "shop"] {
        let client = node.store.client_config(&id(name), &[id("cart")], Wire::Hbone).unwrap();
        let pair = handshake(client, Arc::clone(&server)).unwrap();
        assert_eq!(pair.server.handshake_kind(), Some(rustls::HandshakeKind::Full), "{name}");
        let peer = peer_identity(pair.server.peer_certificates(), node.store.now());
        assert_eq!(peer, Ok(id(name)));
    }
}

#[tokio::test]
async fn wires_are_not_mistaken_for_each_other_and_share_no_sessions() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = |wire| node.store.client_config(&id("web"), &[id("cart")], wire).unwrap();
    let server = |wire| node.store.server_config(&id("cart"), wire).unwrap();
    for (ours, theirs) in [(Wire::Native, Wire::Hbone), (Wire::Hbone, Wire::Native)] {
        let pair = handshake(client(ours), server(ours)).unwrap();
        let expected: &[u8] = if ours == Wire::Native { NATIVE_ALPN } else { b"h2" };
        assert_eq!(pair.client.alpn_protocol(), Some(expected));
        assert_eq!(pair.server.handshake_kind(), Some(rustls::HandshakeKind::Full));
        let (error, side) = handshake(client(ours), server(theirs)).err().unwrap();
        assert_eq!((classify(&error), side), ("tls_incompatible", "server"));
        let again = handshake(client(ours), server(ours)).unwrap();
        assert_eq!(again.server.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn a_certificate_says_when_it_expires() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")], Wire::Native).unwrap();
    let server = node.store.server_config(&id("cart"), Wire::Native).unwrap();
    let pair = handshake(client, server).unwrap();
    let until = peer_expiry(pair.client.peer_certificates().unwrap()).unwrap();
    assert_eq!(until, node.store.lock().entries[&id("cart")].svid.as_ref().unwrap().not_after());
    assert_eq!(peer_expiry(&[]), None);
}

#[tokio::test]
async fn many_connections_may_be_resumed_at_the_same_time() {
    let dir = TempDir::new();
    init(&dir.path());
    let node = node(&dir.path(), &["web", "cart"], 3600).await;
    let client = node.store.client_config(&id("web"), &[id("cart")], Wire::Native).unwrap();
    let server = node.store.server_config(&id("cart"), Wire::Native).unwrap();
    for _ in 0..12 {
        handshake(Arc::clone(&client), Arc::clone(&server)).unwrap();
    }
    // A hello takes its ticket along, before any of the others has brought new ones.
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let begun: Vec<_> = (0..32)
        .map(|_| ClientConnection::new(Arc::clone(&client), name.clone()).unwrap())
        .collect();
    for client in begun {
        let server = ServerConnection::new(Arc::clone(&server)).unwrap();
        let mut pair = Pair { client, server };
        pump(&mut pair).unwrap();
        assert_eq!(pair.server.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    }
}
