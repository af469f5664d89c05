//! Connections that must not be established, and what the log says about them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use undermesh_model::Wire;

use super::mesh::{Client, Mesh, SOON, Server, eventually, expect_refusal, ping_pong, reset};
use crate::testing;

async fn expect_no_connection(server: &Server) {
    let accepted = timeout(Duration::from_millis(100), server.app.accept()).await;
    assert!(accepted.is_err(), "the application was reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_an_original_destination_is_reset() {
    let mesh = Mesh::new();
    let client = mesh.client("client");
    expect_refusal(TcpStream::connect(client.listener).await).await;
    let line = mesh.logged(&["original_dst_unknown"]).await;
    assert_eq!(line["event"], "denied");
    assert_eq!(line["source"]["pod"], "client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_does_not_listen_is_a_reset_and_a_reason_in_both_logs() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let address = server.address;
    drop(server.app);
    client.dial_in_vain(address).await;
    let line = mesh.logged(&["\"reporter\":\"destination\""]).await;
    assert_eq!(line["reason"], "connection_refused");
    assert_eq!(line["source"]["identity"], client.workload.identity.to_string());
    let line = mesh.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "destination_unreachable");
    assert!(line["detail"].as_str().unwrap().contains("connection_refused"));
    assert_eq!(line["response_flags"], "UF");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_at_the_destination_is_refused_before_any_byte_is_forwarded() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("impostor").await);
    let expected = testing::workload("server", &[&server.address.ip().to_string()]);
    mesh.publish(&Arc::new(expected));
    client.dial_in_vain(server.address).await;
    expect_no_connection(&server).await;
    let line = mesh.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "tls_unexpected_identity");
    assert_eq!(line["event"], "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meshed_destination_without_a_tunnel_listener_never_gets_plaintext() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    server.handle.abort();
    assert!(server.handle.drained(SOON).await);
    client.dial_in_vain(server.address).await;
    expect_no_connection(&server).await;
    let line = mesh.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "connection_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_a_certificate_waits_and_is_then_refused() {
    let mesh = Mesh::with(|config| config.identity_timeout = Duration::from_millis(200));
    let server = mesh.server("server").await;
    let unknown = testing::workload("unknown", &["127.0.0.1"]);
    let client = mesh.client_without_certificate(Arc::new(unknown));
    client.dial_in_vain(server.address).await;
    mesh.logged(&["\"reason\":\"no_certificate\"", "\"reporter\":\"source\""]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_certificate_comes_late_is_served() {
    let mesh = Mesh::new();
    let server = mesh.server("server").await;
    let late = Arc::new(testing::workload("late", &["127.0.0.1"]));
    let client = mesh.client_without_certificate(Arc::clone(&late));
    let mut near = client.dial(server.address).await;
    assert!(mesh.identities.client_config(&late.identity, &[], Wire::Hbone).is_err());
    mesh.want(&late);
    let mut far = server.accept().await;
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_endpoints_is_a_reset() {
    let mesh = Mesh::new();
    let client = mesh.client("client");
    mesh.service("10.96.0.1:80", Vec::new());
    client.dial_in_vain("10.96.0.1:80".parse().unwrap()).await;
    let line = mesh.logged(&["no_endpoints"]).await;
    assert_eq!(line["response_flags"], "UH");
    assert_eq!(line["service"], "cart.shop.svc.cluster.local");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_replaced_by_another() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let dead = mesh.server("dead").await;
    dead.handle.abort();
    assert!(dead.handle.drained(SOON).await);
    mesh.service(
        "10.96.0.1:80",
        vec![
            testing::endpoint(&dead.address.to_string(), Some(&dead.workload)),
            testing::endpoint(&server.address.to_string(), Some(&server.workload)),
        ],
    );
    // Whichever comes first, every connection arrives.
    for _ in 0..8 {
        let mut near = client.dial("10.96.0.1:80".parse().unwrap()).await;
        let mut far = server.accept().await;
        ping_pong(&mut near, &mut far).await;
    }
    let line = mesh.logged(&["\"event\":\"open\"", "\"reporter\":\"source\""]).await;
    assert_eq!(line["service"], "cart.shop.svc.cluster.local");
    assert_eq!(line["dialled"], "10.96.0.1:80");
    assert_eq!(line["destination"]["pod"], "server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_leads_only_to_its_own_pod_and_not_to_the_proxy() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_port = SocketAddr::new(server.address.ip(), mesh.hbone_port);
    let wrong = elsewhere.local_addr().unwrap();
    for (authority, reason) in [
        (wrong.to_string(), "wrong_destination"),
        (own_port.to_string(), "wrong_destination"),
        ("localhost:80".to_owned(), "bad_request"),
    ] {
        let request = Request::connect(&authority).body(()).unwrap();
        let (status, said) = ask(&mesh, &client, &server, request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{authority}");
        assert_eq!(said, reason);
        mesh.logged(&["\"reporter\":\"destination\"", &format!("\"reason\":\"{reason}\"")]).await;
    }
    let get = Request::builder().method(Method::GET);
    let get = get.uri(format!("http://{}/", server.address)).body(()).unwrap();
    let (status, said) = ask(&mesh, &client, &server, get).await;
    assert_eq!((status, said.as_str()), (StatusCode::BAD_REQUEST, "bad_request"));
    expect_no_connection(&server).await;
}

/// Sends one request over a tunnel made by hand, with the client's certificate.
async fn ask(
    mesh: &Mesh,
    client: &Client,
    server: &Server,
    request: Request<()>,
) -> (StatusCode, String) {
    mesh.identities.ready(&client.workload.identity).await;
    let expected = [server.workload.identity.clone()];
    let config = mesh.identities.client_config(&client.workload.identity, &expected, Wire::Hbone);
    let address = SocketAddr::new(server.address.ip(), mesh.hbone_port);
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
    let tls = TlsConnector::from(config.unwrap()).connect(name, tcp).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tls).await.unwrap();
    let driver = tokio::spawn(connection);
    let (response, _send) = sender.send_request(request, false).unwrap();
    let response = timeout(SOON, response).await.unwrap().unwrap();
    let reason = response.headers()[crate::headers::REASON].to_str().unwrap();
    let answer = (response.status(), reason.to_owned());
    driver.abort();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_speaks_no_tls_is_refused_and_named() {
    let mesh = Mesh::new();
    let server = mesh.server("server").await;
    let address = SocketAddr::new(server.address.ip(), mesh.hbone_port);
    let mut stranger = TcpStream::connect(address).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let line = mesh.logged(&["\"reporter\":\"destination\""]).await;
    assert_eq!(line["event"], "denied");
    assert_eq!(line["reason"], "tls_not_tls");
    let from = stranger.local_addr().unwrap().to_string();
    assert_eq!(line["source"]["address"], from);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_nothing_is_closed_in_time() {
    let mesh = Mesh::with(|config| config.handshake_timeout = Duration::from_millis(200));
    let server = mesh.server("server").await;
    let address = SocketAddr::new(server.address.ip(), mesh.hbone_port);
    let _silent = TcpStream::connect(address).await.unwrap();
    mesh.logged(&["\"reason\":\"handshake_timeout\""]).await;
    let series = "undermesh_tls_handshakes_total{side=\"server\",result=\"handshake_timeout\"}";
    assert_eq!(mesh.metric(series), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_mesh_is_refused_and_both_sides_say_so() {
    let mesh = Mesh::new();
    let server = mesh.server("server").await;
    let other = Mesh::with(|config| config.hbone_port = mesh.hbone_port);
    let client = other.client("client");
    // The client is made to trust the server's mesh, but not the other way round.
    let bundle = std::fs::read_to_string(mesh.ca.join("bundle.pem")).unwrap();
    let own = std::fs::read_to_string(other.ca.join("bundle.pem")).unwrap();
    std::fs::write(other.ca.join("bundle.pem"), format!("{own}{bundle}")).unwrap();
    eventually("both roots are trusted", || other.identities.root_count() == 2).await;
    other.publish(&server.workload);
    client.dial_in_vain(server.address).await;
    expect_no_connection(&server).await;
    let line = mesh.logged(&["\"reporter\":\"destination\""]).await;
    assert_eq!(line["reason"], "tls_unknown_issuer");
    let line = other.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "tls_refused_by_peer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_while_connecting_is_noticed() {
    let mesh = Mesh::new();
    let client = mesh.client("client");
    // Accepts TCP and says nothing: the handshake hangs.
    let mute = testing::workload("mute", &["127.0.0.1"]);
    mesh.publish(&Arc::new(mute));
    let _listener = TcpListener::bind(("127.0.0.1", mesh.hbone_port)).await.unwrap();
    let near = client.dial("127.0.0.1:80".parse().unwrap()).await;
    eventually("the proxy is connecting", || {
        mesh.metric("undermesh_proxy_pool_requests_total{result=\"miss\"}") == 1
    })
    .await;
    reset(near);
    let line = mesh.logged(&["client_reset"]).await;
    assert_eq!(line["event"], "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_peer_is_refused_before_any_byte_is_forwarded_and_the_policy_is_named() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    guard(&mesh, &server, &["other"]);
    client.dial_in_vain(server.address).await;
    expect_no_connection(&server).await;
    let line = mesh.logged(&["\"reporter\":\"destination\"", "policy_denied"]).await;
    assert_eq!(
        line["detail"],
        "not allowed by AuthorizationPolicy shop/members, rule[0] from[0] namespaces"
    );
    let line = mesh.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "destination_denied");
    let series =
        "undermesh_policy_denials_total{policy_namespace=\"shop\",policy=\"members\",rule=\"\"}";
    assert_eq!(mesh.metric(series), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_policy_closes_what_it_refuses_and_nothing_else() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let mut near = client.dial(server.address).await;
    let mut far = server.accept().await;
    guard(&mesh, &server, &["shop"]);
    ping_pong(&mut near, &mut far).await;
    guard(&mesh, &server, &["other"]);
    let line = mesh.logged(&["policy_denied_late"]).await;
    assert_eq!(line["event"], "close");
    assert_eq!(
        line["detail"],
        "not allowed by AuthorizationPolicy shop/members, rule[0] from[0] namespaces"
    );
    let end = timeout(SOON, near.read_u8()).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// Lets only identities of these namespaces reach a pod.
fn guard(mesh: &Mesh, server: &Server, namespaces: &[&str]) {
    mesh.configure(|snapshot| {
        let name = server.workload.name.clone();
        snapshot.policies.insert(name, Arc::new(testing::policy(namespaces)));
    });
}
