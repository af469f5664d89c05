//! Breaks of connections, tunnels and agents.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use undermesh_model::Wire;

use super::mesh::{Mesh, SOON, connect, eventually, expect_reset, ping_pong, read_exactly, reset};
use crate::config::Keepalive;

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_the_client_reaches_the_server() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    reset(near);
    expect_reset(&mut far).await;
    for reporter in ["\"reporter\":\"source\"", "\"reporter\":\"destination\""] {
        let line = mesh.logged(&["\"event\":\"close\"", reporter]).await;
        assert_eq!(line["reason"], "client_reset");
        assert_eq!(line["response_flags"], "DC");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_the_server_reaches_the_client() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    reset(far);
    expect_reset(&mut near).await;
    for reporter in ["\"reporter\":\"source\"", "\"reporter\":\"destination\""] {
        let line = mesh.logged(&["\"event\":\"close\"", reporter]).await;
        assert_eq!(line["reason"], "server_reset");
        assert_eq!(line["response_flags"], "UC");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_a_fin_still_crosses() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    reset(near);
    // A socket that has seen a FIN keeps reading "end"; the reset is an error beside it.
    let error = timeout(SOON, far.ready(Interest::ERROR)).await;
    error.unwrap().unwrap();
    assert!(far.take_error().unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_before_a_reset_arrive_before_it() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    far.write_all(b"last words").await.unwrap();
    // Unread bytes make the kernel reset the connection on close.
    near.write_all(b"unread").await.unwrap();
    assert_eq!(far.peek(&mut [0; 6]).await.unwrap(), 6);
    drop(far);
    assert_eq!(read_exactly(&mut near, 10).await, b"last words");
    expect_reset(&mut near).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tunnel_resets_its_connections_and_the_next_gets_a_fresh_one() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    server.handle.abort();
    expect_reset(&mut near).await;
    expect_reset(&mut far).await;
    let _restarted = mesh.serve(&server.workload);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_answers_no_ping_is_given_up() {
    let mesh = Mesh::with(|config| {
        config.keepalive =
            Keepalive { interval: Duration::from_millis(50), timeout: Duration::from_millis(200) };
    });
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    server.handle.stop_accepting();
    let address = (server.workload.addresses[0], mesh.hbone_port);
    eventually("the listener closes", || std::net::TcpListener::bind(address).is_ok()).await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    mesh.identities.ready(&server.workload.identity).await;
    let tls = mesh.identities.server_config(&server.workload.identity, Wire::Hbone).unwrap();
    let mute = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(tls).accept(stream).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let _send = respond.send_response(http::Response::new(()), false).unwrap();
        // Sends the response, and then neither reads nor writes.
        let polls = timeout(Duration::from_millis(50), connection.accept()).await;
        assert!(polls.is_err());
        std::future::pending::<()>().await;
    });
    let mut near = client.dial(server.address).await;
    expect_reset(&mut near).await;
    let line = mesh.logged(&["\"event\":\"close\""]).await;
    assert_eq!(line["reason"], "tunnel_lost");
    mute.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_stops_accepting_keeps_its_connections_until_they_end() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    client.handle.stop_accepting();
    server.handle.stop_accepting();
    assert!(!server.handle.drained(Duration::from_millis(100)).await);
    let refused = tokio::net::TcpStream::connect(client.listener).await;
    assert!(refused.is_err());
    ping_pong(&mut near, &mut far).await;
    drop(near);
    drop(far);
    assert!(client.handle.drained(SOON).await);
    assert!(server.handle.drained(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_pod_resets_its_applications() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    client.handle.abort();
    expect_reset(&mut near).await;
    expect_reset(&mut far).await;
    assert!(client.handle.drained(SOON).await);
}
