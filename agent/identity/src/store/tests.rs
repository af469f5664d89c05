//! Real certificates and real handshakes, in memory; time moves when the test says so.

mod handshake;
mod renewal;

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use rustls::{ClientConnection, Error, ServerConnection, pki_types::ServerName};

use super::*;
use crate::{
    DirectoryAuthority, classify,
    testing::{TestClock, id},
};

pub(super) struct Node {
    pub(super) store: Arc<IdentityStore>,
    pub(super) clock: Arc<TestClock>,
}

/// A store over a CA directory, with certificates for `names`.
pub(super) async fn node(path: &Path, names: &[&str], lifetime: u64) -> Node {
    let clock = Arc::new(TestClock::default());
    let authority = DirectoryAuthority::with_clock(path, Arc::clone(&clock) as _).unwrap();
    node_with(Arc::new(authority), clock, names, lifetime).await
}

pub(super) async fn node_with(
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

pub(super) struct Pair {
    pub(super) client: ClientConnection,
    pub(super) server: ServerConnection,
}

/// Moves bytes both ways until neither side has more to say; names the side that refuses.
pub(super) fn pump(pair: &mut Pair) -> Result<(), (Error, &'static str)> {
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

pub(super) fn handshake(
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
pub(super) fn talk(pair: &mut Pair) {
    pair.client.writer().write_all(b"hello").unwrap();
    pump(pair).unwrap();
    let mut word = [0; 5];
    pair.server.reader().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hello");
}

/// Why the handshake between two nodes' workloads is refused, and by whom.
pub(super) fn refusal(client: &Node, server: &Node) -> (&'static str, &'static str) {
    let client = client.store.client_config(&id("web"), &[id("cart")], Wire::Hbone).unwrap();
    let server = server.store.server_config(&id("cart"), Wire::Hbone).unwrap();
    let Err((error, side)) = handshake(client, server) else { panic!("the handshake succeeded") };
    (classify(&error), side)
}

/// Makes the authority in `to` trust the one in `from` as well.
pub(super) fn also_trust(to: &Path, from: &Path) {
    let read = |path: &Path| fs::read_to_string(path.join("bundle.pem")).unwrap();
    fs::write(to.join("bundle.pem"), format!("{}{}", read(to), read(from))).unwrap();
}
