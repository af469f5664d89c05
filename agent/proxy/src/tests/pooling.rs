//! How tunnels are shared, kept and replaced.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use undermesh_identity::{CaDirectory, CaOptions};

use undermesh_model::Wire;

use super::mesh::{Client, Mesh, SOON, Server, connect, eventually, ping_pong};

const HANDSHAKES: &str = "undermesh_proxy_handshakes_total{direction=\"outbound\",result=\"ok\"}";

fn tunnels(mesh: &Mesh) -> usize {
    let status = mesh.status();
    let pods = status.pods.iter();
    pods.map(|pod| pod.pool.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_connections_to_a_cold_destination_share_one_handshake() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let mut dialled = Vec::new();
    for _ in 0..50 {
        dialled.push(client.dial(server.address).await);
    }
    let mut accepted = Vec::new();
    for _ in 0..50 {
        accepted.push(server.accept().await);
    }
    assert_eq!(mesh.metric(HANDSHAKES), 1);
    assert_eq!(mesh.metric("undermesh_proxy_pool_requests_total{result=\"miss\"}"), 1);
    for side in ["client", "server"] {
        let labels = format!("{{side=\"{side}\",result=\"full\"}}");
        assert_eq!(mesh.metric(&format!("undermesh_tls_handshakes_total{labels}")), 1);
        assert_eq!(mesh.metric(&format!("undermesh_tls_handshake_seconds_count{labels}")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tunnel_gets_a_second_one() {
    let mesh = Mesh::with(|config| config.pool.max_streams = 2);
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let mut pairs = Vec::new();
    for _ in 0..5 {
        pairs.push(connect(&client, &server).await);
    }
    for (near, far) in &mut pairs {
        ping_pong(near, far).await;
    }
    assert_eq!(tunnels(&mesh), 3);
    assert_eq!(mesh.metric(HANDSHAKES), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peers_own_limit_of_streams_is_kept() {
    let mesh = Mesh::with(|config| config.http2.max_inbound_streams = 2);
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let mut pairs = Vec::new();
    for _ in 0..5 {
        pairs.push(connect(&client, &server).await);
    }
    assert_eq!(tunnels(&mesh), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_do_not_share_tunnels() {
    let mesh = Mesh::new();
    let server = mesh.server("server").await;
    let clients = [mesh.client("one"), mesh.client("two")];
    for client in &clients {
        let (mut near, mut far) = connect(client, &server).await;
        ping_pong(&mut near, &mut far).await;
    }
    assert_eq!(mesh.metric(HANDSHAKES), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_tunnel_is_closed_and_a_used_one_is_not() {
    let mesh = Mesh::with(|config| config.pool.idle = Duration::from_millis(200));
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let idle = mesh.server("idle").await;
    let (mut near, mut far) = connect(&client, &server).await;
    drop(connect(&client, &idle).await);
    let open = "undermesh_proxy_tunnels{direction=\"inbound\"}";
    eventually("both tunnels are open", || mesh.metric(HANDSHAKES) == 2).await;
    eventually("one tunnel is left", || tunnels(&mesh) == 1 && mesh.metric(open) == 1).await;
    ping_pong(&mut near, &mut far).await;
    drop((near, far));
    eventually("no tunnel is left", || tunnels(&mesh) == 0 && mesh.metric(open) == 0).await;
}

async fn expect_fresh_tunnel(mesh: &Mesh, client: &Client, server: &Server) {
    let before = mesh.metric(HANDSHAKES);
    let (mut near, mut far) = connect(client, server).await;
    ping_pong(&mut near, &mut far).await;
    assert_eq!(mesh.metric(HANDSHAKES), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_goaway_streams_live_on_and_new_ones_go_to_a_fresh_tunnel() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    server.handle.stop_accepting();
    let address = (server.workload.addresses[0], mesh.hbone_port);
    eventually("the listener closes", || std::net::TcpStream::connect(address).is_err()).await;
    let _next = mesh.serve(&server.workload);
    expect_fresh_tunnel(&mesh, &client, &server).await;
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_streams_live_on_and_new_ones_go_to_a_fresh_tunnel() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    // Another certificate changes the generation and must not cost a tunnel.
    let before = mesh.identities.generation();
    let _other = mesh.client("other");
    eventually("the other has a certificate", || mesh.identities.generation() > before).await;
    connect(&client, &server).await;
    assert_eq!(mesh.metric(HANDSHAKES), 1);
    let old: Vec<_> = serials(&mesh);
    CaDirectory::rotate(&mesh.ca, &CaOptions::default(), || {}).unwrap();
    eventually("all certificates are new", || {
        serials(&mesh).iter().all(|serial| !old.contains(serial))
    })
    .await;
    expect_fresh_tunnel(&mesh, &client, &server).await;
    ping_pong(&mut near, &mut far).await;
}

fn serials(mesh: &Mesh) -> Vec<String> {
    let certificates = mesh.identities.certificates();
    certificates.into_iter().map(|status| status.serial).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_handshake_is_told_to_all_who_wait_and_tried_anew_later() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    server.handle.abort();
    assert!(server.handle.drained(SOON).await);
    let dial = || client.dial_in_vain(server.address);
    tokio::join!(dial(), dial(), dial(), dial(), dial(), dial());
    assert_eq!(tunnels(&mesh), 0);
    let _back = mesh.serve(&server.workload);
    expect_fresh_tunnel(&mesh, &client, &server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_dying_tunnel_refused_is_sent_over_a_fresh_one() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    server.handle.abort();
    assert!(server.handle.drained(SOON).await);
    mesh.identities.ready(&server.workload.identity).await;
    let tls = mesh.identities.server_config(&server.workload.identity, Wire::Hbone);
    let tls = TlsAcceptor::from(tls.unwrap());
    let listener = TcpListener::bind((server.workload.addresses[0], mesh.hbone_port));
    let listener = listener.await.unwrap();
    let dying = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = tls.accept(stream).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        // The agent that takes over must find the address free.
        drop(listener);
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        (respond, connection)
    });
    let near = client.dial(server.address).await;
    let (_respond, mut connection) = dying.await.unwrap();
    let _next = mesh.serve(&server.workload);
    let driver = tokio::spawn(async move { connection.accept().await.is_some() });
    let mut far = server.accept().await;
    let mut near = near;
    ping_pong(&mut near, &mut far).await;
    assert_eq!(mesh.metric(HANDSHAKES), 2);
    driver.abort();
}
