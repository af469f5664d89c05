//! Sessions that must not be opened, bytes that are no frames, and what is tried again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use undermesh_identity::{CaDirectory, CaOptions};

use super::{
    super::mesh::{Mesh, SOON, Server, connect, eventually, expect_reset, ping_pong, read_to_end},
    fallbacks, pair,
    peers::{
        ACCEPT, CLOSE, DATA, END, Impostor, OPEN, REFUSE, RESET, dial, expect_end, frame, next,
        open, send,
    },
    sessions, unwarmed,
};
use crate::testing;

const RETRIES: &str = "undermesh_native_retries_total";
const HBONE: &str = "undermesh_proxy_handshakes_total{direction=\"outbound\",result=\"ok\"}";

async fn expect_no_connection(server: &Server) {
    let accepted = timeout(Duration::from_millis(100), server.app.accept()).await;
    assert!(accepted.is_err(), "the application was reached");
}

/// Lets only identities of these namespaces reach a pod.
fn guard(mesh: &Mesh, server: &Server, namespaces: &[&str]) {
    mesh.configure(|snapshot| {
        let name = server.workload.name.clone();
        snapshot.policies.insert(name, Arc::new(testing::policy(namespaces)));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_peer_is_refused_before_any_byte_is_forwarded_and_not_over_another_wire() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    guard(&mesh, &server, &["other"]);
    client.dial_in_vain(server.address).await;
    expect_no_connection(&server).await;
    let line = mesh.logged(&["\"reporter\":\"destination\"", "policy_denied"]).await;
    assert_eq!(
        line["detail"],
        "not allowed by AuthorizationPolicy shop/members, rule[0] from[0] namespaces"
    );
    assert_eq!(line["transport"], "native");
    let line = mesh.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "destination_denied");
    assert_eq!(line["transport"], "native");
    let series =
        "undermesh_policy_denials_total{policy_namespace=\"shop\",policy=\"members\",rule=\"\"}";
    assert_eq!((mesh.metric(series), mesh.metric(HBONE)), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_is_asked_for_every_session_of_a_connection_and_again_when_it_changes() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    drop(connect(&client, &server).await);
    let idle = || mesh.status().pods.iter().any(|pod| pod.native_idle == 1);
    eventually("the connection is idle", idle).await;
    let (mut near, mut far) = connect(&client, &server).await;
    guard(&mesh, &server, &["shop"]);
    ping_pong(&mut near, &mut far).await;
    guard(&mesh, &server, &["other"]);
    let line = mesh.logged(&["policy_denied_late"]).await;
    assert_eq!(line["event"], "close");
    expect_reset(&mut near).await;
    expect_reset(&mut far).await;
    client.dial_in_vain(server.address).await;
    expect_no_connection(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_at_the_destination_is_refused_and_not_over_another_wire() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.native_client("client"), mesh.native_server("impostor").await);
    let mut expected = testing::workload("server", &[&server.address.ip().to_string()]);
    expected.wire = undermesh_model::Wire::Native;
    mesh.publish(&Arc::new(expected));
    client.dial_in_vain(server.address).await;
    expect_no_connection(&server).await;
    let line = mesh.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "tls_unexpected_identity");
    assert_eq!(line["transport"], "native");
    let labels = "{side=\"client\",result=\"tls_unexpected_identity\"}";
    assert!(mesh.metric(&format!("undermesh_tls_handshakes_total{labels}")) >= 1);
    assert_eq!(mesh.metric(&format!("undermesh_tls_handshake_seconds_count{labels}")), 0);
    assert_eq!(mesh.metric(HBONE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_mesh_is_refused_and_both_sides_say_so() {
    let mesh = Mesh::new();
    let server = mesh.native_server("server").await;
    let other = Mesh::with(|config| config.hbone_port = mesh.hbone_port);
    let client = other.native_client("client");
    // Only what comes from a pod's address is asked whether it is a tunnel.
    mesh.publish(&client.workload);
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
async fn an_application_that_does_not_listen_is_a_reset_and_a_reason_in_both_logs() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let Server { app, address, handle: _handle, .. } = server;
    drop(app);
    client.dial_in_vain(address).await;
    let line = mesh.logged(&["\"reporter\":\"destination\""]).await;
    assert_eq!(line["reason"], "connection_refused");
    let line = mesh.logged(&["\"reporter\":\"source\""]).await;
    assert_eq!(line["reason"], "destination_unreachable");
    assert!(line["detail"].as_str().unwrap().contains("connection_refused"));
    assert_eq!(mesh.metric(HBONE), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_is_replaced_by_another_with_all_that_was_said() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let Server { app, address, handle: _handle, workload } = mesh.native_server("dead").await;
    drop(app);
    mesh.service(
        "10.96.0.1:80",
        vec![
            testing::endpoint(&address.to_string(), Some(&workload)),
            testing::endpoint(&server.address.to_string(), Some(&server.workload)),
        ],
    );
    // Whichever comes first, every connection arrives.
    for _ in 0..8 {
        let mut near = client.dial("10.96.0.1:80".parse().unwrap()).await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut far = server.accept().await;
        assert_eq!(read_to_end(&mut far).await.unwrap(), b"question");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_leads_only_to_where_its_connection_leads() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let app = server.app.local_addr().unwrap();
    let proxy = SocketAddr::new(server.address.ip(), mesh.hbone_port);
    for wrong in [app, proxy, "127.0.0.1:80".parse().unwrap()] {
        let mut peer = dial(&mesh, &client, &server).await;
        send(&mut peer, &frame(OPEN, &open("10.0.0.1:4711", wrong))).await;
        let (kind, payload) = next(&mut peer).await;
        assert_eq!((kind, payload.as_slice()), (REFUSE, &b"\x01\x90wrong_destination"[..]));
        expect_end(&mut peer).await;
    }
    expect_no_connection(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_address_is_believed_only_where_its_connection_proves_it() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let own = client.workload.addresses[0];
    for (said, believed) in [(format!("{own}:4711"), true), ("10.9.9.9:4712".to_owned(), false)] {
        let mut peer = dial(&mesh, &client, &server).await;
        let from = peer.get_ref().0.local_addr().unwrap().to_string();
        send(&mut peer, &frame(OPEN, &open(&said, server.address))).await;
        assert_eq!(next(&mut peer).await, (ACCEPT, vec![]));
        let expected = if believed { &said } else { &from };
        mesh.logged(&["\"event\":\"open\"", &format!("\"address\":\"{expected}\"")]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_made_by_hand_is_served_session_after_session() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let mut peer = dial(&mesh, &client, &server).await;
    for _ in 0..3 {
        let session = [
            frame(OPEN, &open("10.0.0.1:4711", server.address)),
            frame(DATA, b"ques"),
            // An unknown frame that may be passed over.
            vec![200, 1, 0, 1, 0],
            frame(DATA, b""),
            frame(DATA, b"tion"),
            frame(END, b""),
        ];
        send(&mut peer, &session.concat()).await;
        let mut far = server.accept().await;
        assert_eq!(read_to_end(&mut far).await.unwrap(), b"question");
        far.write_all(b"answer").await.unwrap();
        drop(far);
        assert_eq!(next(&mut peer).await, (ACCEPT, vec![]));
        assert_eq!(next(&mut peer).await, (DATA, b"answer".to_vec()));
        assert_eq!(next(&mut peer).await, (END, vec![]));
    }
    server.handle.stop_accepting();
    assert_eq!(next(&mut peer).await, (CLOSE, vec![0, 0, 0, 3]));
    expect_end(&mut peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_connection_is_counted_and_reaches_no_application() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let cases: [(&str, Vec<u8>); 7] = [
        ("unknown_type", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("flags", vec![OPEN, 2, 0, 0]),
        ("too_long", vec![OPEN, 0, 0xff, 0xff]),
        ("payload", frame(OPEN, &[9; 40])),
        ("unexpected", frame(ACCEPT, &[])),
        ("unexpected", frame(DATA, b"early")),
        ("unexpected", frame(RESET, b"")),
    ];
    for (error, bytes) in cases {
        let series = format!(
            "undermesh_native_frame_errors_total{{direction=\"inbound\",error=\"{error}\"}}"
        );
        let before = mesh.metric(&series);
        let mut peer = dial(&mesh, &client, &server).await;
        send(&mut peer, &bytes).await;
        expect_end(&mut peer).await;
        eventually("it is counted", || mesh.metric(&series) == before + 1).await;
    }
    expect_no_connection(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_a_session_resets_the_application() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    for garbage in [frame(OPEN, &[]), [frame(END, b""), frame(DATA, b"more")].concat()] {
        let mut peer = dial(&mesh, &client, &server).await;
        send(&mut peer, &frame(OPEN, &open("10.0.0.1:4711", server.address))).await;
        assert_eq!(next(&mut peer).await, (ACCEPT, vec![]));
        let far = server.accept().await;
        send(&mut peer, &garbage).await;
        mesh.logged(&["\"event\":\"close\"", "tunnel_lost"]).await;
        // An END may have been passed on before the garbage was seen.
        let end = timeout(SOON, async {
            far.ready(tokio::io::Interest::ERROR).await.unwrap();
            far.take_error().unwrap()
        });
        assert!(end.await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_closing_peer_has_not_seen_is_asked_again_with_all_that_was_said() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    let impostor = Impostor::new(&mesh, &server).await;
    let mut near = client.dial(server.address).await;
    let mut peer = impostor.accept_session().await;
    near.shutdown().await.unwrap();
    assert_eq!(next(&mut peer).await.0, END);
    send(&mut peer, &frame(END, &[])).await;
    assert_eq!(read_to_end(&mut near).await.unwrap(), b"");
    let idle = || mesh.status().pods.iter().any(|pod| pod.native_idle == 1);
    eventually("the connection is idle", idle).await;
    // The second session crosses a CLOSE that counts one.
    let mut near = client.dial(server.address).await;
    near.write_all(b"question").await.unwrap();
    assert_eq!(next(&mut peer).await.0, OPEN);
    drop(impostor);
    let _next = mesh.serve_again(&server);
    send(&mut peer, &frame(CLOSE, &[0, 0, 0, 1])).await;
    let mut far = server.accept().await;
    near.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"question");
    assert_eq!((mesh.metric(RETRIES), sessions(&mesh, "fresh")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dying_peer_may_have_seen_is_not_asked_again() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    let impostor = Impostor::new(&mesh, &server).await;
    let other = mesh.native_server("other").await;
    mesh.service(
        "10.96.0.1:80",
        vec![testing::endpoint(&server.address.to_string(), Some(&server.workload))],
    );
    let mut near = client.dial("10.96.0.1:80".parse().unwrap()).await;
    near.write_all(b"pay").await.unwrap();
    let mut peer = impostor.accept().await;
    let mut seen = Vec::new();
    while !seen.ends_with(b"pay") {
        seen.push(timeout(SOON, peer.read_u8()).await.unwrap().unwrap());
    }
    drop(peer);
    expect_reset(&mut near).await;
    let line = mesh.logged(&["\"event\":\"denied\""]).await;
    assert_eq!(line["reason"], "tunnel_lost");
    expect_no_connection(&other).await;
    assert_eq!((mesh.metric(RETRIES), mesh.metric(HBONE)), (0, 0));
    assert_eq!(fallbacks(&mesh, "tunnel_lost"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_connection_that_died_before_anything_was_said_is_replaced() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    let impostor = Impostor::new(&mesh, &server).await;
    let mut near = client.dial(server.address).await;
    let mut peer = impostor.accept_session().await;
    near.shutdown().await.unwrap();
    assert_eq!(next(&mut peer).await.0, END);
    send(&mut peer, &frame(END, &[])).await;
    assert_eq!(read_to_end(&mut near).await.unwrap(), b"");
    let idle = || mesh.status().pods.iter().any(|pod| pod.native_idle == 1);
    eventually("the connection is idle", idle).await;
    // A server that speaks first: nothing of the application's leaves with OPEN.
    let mut near = client.dial(server.address).await;
    assert_eq!(next(&mut peer).await.0, OPEN);
    drop(impostor);
    let _next = mesh.serve_again(&server);
    drop(peer);
    let mut far = server.accept().await;
    ping_pong(&mut near, &mut far).await;
    assert_eq!(mesh.metric(RETRIES), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_garbage_costs_only_its_own_client() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    let impostor = Impostor::new(&mesh, &server).await;
    for garbage in [frame(DATA, b"before ACCEPT"), frame(OPEN, &[]), vec![9, 9, 9, 9]] {
        let mut near = client.dial(server.address).await;
        let mut peer = impostor.accept().await;
        assert_eq!(next(&mut peer).await.0, OPEN);
        send(&mut peer, &garbage).await;
        expect_reset(&mut near).await;
    }
    let series = "undermesh_native_frame_errors_total{direction=\"outbound\",error=\"unexpected\"}";
    assert_eq!(mesh.metric(series), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_with_the_trust_that_it_was_made_with() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let mut peer = dial(&mesh, &client, &server).await;
    send(&mut peer, &frame(OPEN, &open("10.0.0.1:4711", server.address))).await;
    assert_eq!(next(&mut peer).await, (ACCEPT, vec![]));
    drop(server.accept().await);
    assert_eq!(next(&mut peer).await, (END, vec![]));
    send(&mut peer, &frame(END, &[])).await;
    CaDirectory::rotate(&mesh.ca, &CaOptions::default(), || {}).unwrap();
    assert_eq!(next(&mut peer).await, (CLOSE, vec![0, 0, 0, 1]));
    expect_end(&mut peer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_the_protocol_is_refused() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let listener = TcpListener::bind((server.address.ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let pod = Arc::clone(&server.handle.pod);
    tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        crate::native::serve(&pod, stream, peer, address).await;
    });
    let expected = [server.workload.identity.clone()];
    let source = &client.workload.identity;
    mesh.identities.ready(source).await;
    let wire = undermesh_model::Wire::Native;
    let config = mesh.identities.client_config(source, &expected, wire).unwrap();
    let mut config = (*config).clone();
    config.alpn_protocols.clear();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let mut end = Vec::new();
    let _ = timeout(SOON, tls.unwrap().read_to_end(&mut end)).await.unwrap();
    assert_eq!(end, b"");
    let line = mesh.logged(&["\"event\":\"denied\"", "\"reporter\":\"destination\""]).await;
    assert_eq!(line["reason"], "tls_incompatible");
    assert_eq!(line["transport"], "native");
}
