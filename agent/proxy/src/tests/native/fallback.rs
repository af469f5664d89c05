//! Destinations that do not speak the native wire although they were said to.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use undermesh_model::Wire;

use super::{
    super::mesh::{Client, Mesh, SOON, Server, connect, eventually, ping_pong},
    fallbacks, pair, sessions,
};

/// A server that speaks HBONE only: nobody listens at the port that its application is known by.
async fn hbone_only(mesh: &Mesh) -> (Client, Server) {
    let (client, server) = pair(mesh).await;
    server.handle.abort();
    assert!(server.handle.drained(SOON).await);
    let handle = mesh.serve_hbone_again(&server);
    (client, Server { handle, ..server })
}

async fn expect_hbone(mesh: &Mesh, client: &Client, server: &Server) {
    let (mut near, mut far) = connect(client, server).await;
    ping_pong(&mut near, &mut far).await;
    let line = mesh.logged(&["\"event\":\"open\"", "\"reporter\":\"source\""]).await;
    assert_eq!(line["transport"], "hbone");
    assert_eq!(line["security"], "mutual_tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_refuses_is_reached_over_hbone_and_remembered_for_a_while() {
    let mesh = Mesh::with(|config| config.native.hbone_only = Duration::from_secs(1));
    let (client, server) = hbone_only(&mesh).await;
    expect_hbone(&mesh, &client, &server).await;
    expect_hbone(&mesh, &client, &server).await;
    assert_eq!(fallbacks(&mesh, "connection_refused"), 1);
    let captured = TcpListener::bind(server.address).await.unwrap();
    mesh.capture(&server.handle, captured);
    tokio::time::timeout(SOON, async {
        while sessions(&mesh, "fresh") == 0 {
            let (mut near, mut far) = connect(&client, &server).await;
            ping_pong(&mut near, &mut far).await;
        }
    })
    .await
    .unwrap();
    mesh.logged(&["\"event\":\"open\"", "\"transport\":\"native\""]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_in_plaintext_is_reached_over_hbone() {
    let mesh = Mesh::new();
    let (client, server) = hbone_only(&mesh).await;
    let application = TcpListener::bind(server.address).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = application.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    expect_hbone(&mesh, &client, &server).await;
    assert_eq!(fallbacks(&mesh, "tls_not_tls"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_nothing_is_reached_over_hbone() {
    let mesh = Mesh::with(|config| config.native.handshake_timeout = Duration::from_millis(200));
    let (client, server) = hbone_only(&mesh).await;
    let _mute = TcpListener::bind(server.address).await.unwrap();
    expect_hbone(&mesh, &client, &server).await;
    assert_eq!(fallbacks(&mesh, "handshake_timeout"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_closes_at_once_is_reached_over_hbone() {
    let mesh = Mesh::new();
    let (client, server) = hbone_only(&mesh).await;
    let application = TcpListener::bind(server.address).await.unwrap();
    tokio::spawn(async move {
        loop {
            drop(application.accept().await.unwrap());
        }
    });
    expect_hbone(&mesh, &client, &server).await;
    assert_eq!(fallbacks(&mesh, "tls_interrupted"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_protocol_is_reached_over_hbone() {
    let mesh = Mesh::new();
    let (client, server) = hbone_only(&mesh).await;
    let application = TcpListener::bind(server.address).await.unwrap();
    let identity = &server.workload.identity;
    mesh.identities.ready(identity).await;
    let tls = TlsAcceptor::from(mesh.identities.server_config(identity, Wire::Hbone).unwrap());
    tokio::spawn(async move {
        let (stream, _) = application.accept().await.unwrap();
        tls.accept(stream).await.map(drop)
    });
    expect_hbone(&mesh, &client, &server).await;
    assert_eq!(fallbacks(&mesh, "tls_refused_by_peer"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_over_both_wires_is_refused_and_not_remembered() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    server.handle.abort();
    assert!(server.handle.drained(SOON).await);
    client.dial_in_vain(server.address).await;
    let line = mesh.logged(&["\"event\":\"denied\"", "\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "connection_refused");
    let _back = mesh.serve_again(&server);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    eventually("the native wire is spoken", || sessions(&mesh, "fresh") == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_or_destination_that_is_said_to_speak_hbone_is_spoken_to_in_it() {
    let mesh = Mesh::new();
    let (native_client, native_server) = pair(&mesh).await;
    let (client, server) = (mesh.client("old-client"), mesh.server("old-server").await);
    for (client, server) in [(&client, &native_server), (&native_client, &server)] {
        expect_hbone(&mesh, client, server).await;
    }
    assert_eq!(sessions(&mesh, "fresh"), 0);
    assert_eq!(fallbacks(&mesh, "connection_refused"), 0);
}
