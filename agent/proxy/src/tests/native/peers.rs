//! Peers made by hand, byte by byte, as `docs/reference/wire.md` has it.

use std::{net::SocketAddr, sync::Arc};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use undermesh_model::Wire;

use super::super::mesh::{Client, Mesh, SOON, Server};

pub(super) const OPEN: u8 = 1;
pub(super) const ACCEPT: u8 = 2;
pub(super) const REFUSE: u8 = 3;
pub(super) const DATA: u8 = 4;
pub(super) const END: u8 = 5;
pub(super) const RESET: u8 = 6;
pub(super) const CLOSE: u8 = 7;

/// A frame as bytes.
pub(super) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, length[0], length[1]], payload].concat()
}

/// The payload of OPEN.
pub(super) fn open(client: &str, destination: SocketAddr) -> Vec<u8> {
    let mut payload = vec![1];
    for (tag, address) in [(1, client.parse().unwrap()), (2, destination)] {
        let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
        payload.extend_from_slice(&[tag, 6]);
        payload.extend_from_slice(&address.ip().octets());
        payload.extend_from_slice(&address.port().to_be_bytes());
    }
    payload
}

/// The next frame.
pub(super) async fn next(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let read = async {
        let mut header = [0; 4];
        stream.read_exact(&mut header).await.unwrap();
        let mut payload = vec![0; usize::from(u16::from_be_bytes([header[2], header[3]]))];
        stream.read_exact(&mut payload).await.unwrap();
        (header[0], payload)
    };
    timeout(SOON, read).await.unwrap()
}

/// The connection must end without another byte.
pub(super) async fn expect_end(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // With or without a word of goodbye.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

/// Dials `server` with the certificate of `client`.
pub(super) async fn dial(
    mesh: &Mesh,
    client: &Client,
    server: &Server,
) -> client::TlsStream<TcpStream> {
    let source = &client.workload.identity;
    mesh.identities.ready(source).await;
    let expected = [server.workload.identity.clone()];
    let config = mesh.identities.client_config(source, &expected, Wire::Native).unwrap();
    let tcp = tokio::net::TcpSocket::new_v4().unwrap();
    tcp.bind(SocketAddr::new(client.workload.addresses[0], 0)).unwrap();
    let tcp = tcp.connect(server.address).await.unwrap();
    let name = ServerName::IpAddress(server.address.ip().into());
    TlsConnector::from(config).connect(name, tcp).await.unwrap()
}

/// Takes the place of a server's agent at the port of its application.
pub(super) struct Impostor {
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl Impostor {
    pub(super) async fn new(mesh: &Mesh, server: &Server) -> Self {
        server.handle.abort();
        assert!(server.handle.drained(SOON).await);
        let identity = &server.workload.identity;
        mesh.identities.ready(identity).await;
        let config: Arc<_> = mesh.identities.server_config(identity, Wire::Native).unwrap();
        let listener = TcpListener::bind(server.address).await.unwrap();
        Self { listener, tls: TlsAcceptor::from(config) }
    }

    pub(super) async fn accept(&self) -> server::TlsStream<TcpStream> {
        let (stream, _) = timeout(SOON, self.listener.accept()).await.unwrap().unwrap();
        self.tls.accept(stream).await.unwrap()
    }

    /// Accepts a connection, and the first session on it.
    pub(super) async fn accept_session(&self) -> server::TlsStream<TcpStream> {
        let mut stream = self.accept().await;
        assert_eq!(next(&mut stream).await.0, OPEN);
        send(&mut stream, &frame(ACCEPT, &[])).await;
        stream
    }
}

pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}
