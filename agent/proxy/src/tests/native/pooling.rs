//! How connections are reused, resumed, made in advance and given up.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use undermesh_identity::{CaDirectory, CaOptions};

use super::{
    super::{
        judged::look_for_tokens,
        mesh::{
            Client, Mesh, SOON, Server, connect, eventually, ping_pong, read_exactly, read_to_end,
        },
    },
    handshakes, pair, sessions, unwarmed,
};

const OPEN: &str = "undermesh_native_connections{direction=\"inbound\"}";

/// One connection from beginning to end.
async fn exchange(client: &Client, server: &Server) {
    let (mut near, mut far) = connect(client, server).await;
    ping_pong(&mut near, &mut far).await;
    drop(near);
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"");
}

fn idle(mesh: &Mesh) -> usize {
    mesh.status().pods.iter().map(|pod| pod.native_idle).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_one_session_after_the_other() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    for done in 0..10 {
        eventually("the last session has ended", || idle(&mesh) == usize::from(done > 0)).await;
        exchange(&client, &server).await;
    }
    assert_eq!((sessions(&mesh, "fresh"), sessions(&mesh, "reused")), (1, 9));
    assert_eq!((handshakes(&mesh, "full"), handshakes(&mesh, "resumed")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_requests_leave_the_connection_to_the_next_where_requests_are_judged() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    look_for_tokens(&mesh, &server);
    for done in 0..10 {
        eventually("the last session has ended", || idle(&mesh) == usize::from(done > 0)).await;
        let mut near = client.dial(server.address).await;
        // Nothing that HTTP begins with.
        near.write_all(b"\x01\x02").await.unwrap();
        let mut far = server.accept().await;
        assert_eq!(read_exactly(&mut far, 2).await, b"\x01\x02");
        drop(near);
        assert_eq!(read_to_end(&mut far).await.unwrap(), b"");
    }
    assert_eq!((sessions(&mesh, "fresh"), sessions(&mesh, "reused")), (1, 9));
    assert_eq!(mesh.metric("undermesh_native_retries_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_resumes_the_first_ones_session() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    let (mut second, mut accepted) = connect(&client, &server).await;
    ping_pong(&mut second, &mut accepted).await;
    assert_eq!((handshakes(&mesh, "full"), handshakes(&mesh, "resumed")), (1, 1));
    let inbound = "undermesh_native_handshakes_total{direction=\"inbound\",result=\"resumed\"}";
    assert_eq!(mesh.metric(inbound), 1);
    for (side, result) in
        [("client", "full"), ("client", "resumed"), ("server", "full"), ("server", "resumed")]
    {
        let labels = format!("{{side=\"{side}\",result=\"{result}\"}}");
        assert_eq!(mesh.metric(&format!("undermesh_tls_handshakes_total{labels}")), 1);
        assert_eq!(mesh.metric(&format!("undermesh_tls_handshake_seconds_count{labels}")), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_pair_does_not_wait_for_a_handshake() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let mut pairs = Vec::new();
    for _ in 0..2 {
        pairs.push(connect(&client, &server).await);
    }
    for ready in 0..6 {
        eventually("a connection is ready", || idle(&mesh) > 0).await;
        assert_eq!(sessions(&mesh, "prewarmed"), ready);
        pairs.push(connect(&client, &server).await);
    }
    for (near, far) in &mut pairs {
        ping_pong(near, far).await;
    }
    assert_eq!(sessions(&mesh, "prewarmed"), 6);
    assert!(idle(&mesh) <= 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_a_used_one_is_not() {
    let mesh = Mesh::with(|config| {
        config.native.max_ready = 0;
        config.native.idle = Duration::from_millis(300);
    });
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    exchange(&client, &server).await;
    eventually("one of two is left", || mesh.metric(OPEN) == 1 && idle(&mesh) == 0).await;
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_idle_connections_are_kept_than_allowed() {
    let mesh = Mesh::with(|config| {
        config.native.max_ready = 0;
        config.native.max_idle = 3;
        config.native.surplus = Duration::from_millis(300);
    });
    let (client, server) = pair(&mesh).await;
    eight_at_once(&mesh, &client, &server).await;
    eventually("three are kept", || mesh.metric(OPEN) == 3 && idle(&mesh) == 3).await;
    exchange(&client, &server).await;
    assert_eq!(sessions(&mesh, "reused"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_at_once_finds_all_connections_that_it_had() {
    let mesh = Mesh::with(|config| {
        config.native.max_ready = 0;
        config.native.max_idle = 3;
        config.native.surplus = SOON;
    });
    let (client, server) = pair(&mesh).await;
    for _ in 0..2 {
        eight_at_once(&mesh, &client, &server).await;
        eventually("all are kept", || idle(&mesh) == 8).await;
    }
    assert_eq!((sessions(&mesh, "fresh"), sessions(&mesh, "reused")), (8, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_to_be_kept_nothing_is() {
    let mesh = Mesh::with(|config| {
        config.native.max_ready = 0;
        config.native.max_idle = 0;
    });
    let (client, server) = pair(&mesh).await;
    eight_at_once(&mesh, &client, &server).await;
    eventually("none is kept", || mesh.metric(OPEN) == 0).await;
}

/// Eight connections that are open together, and closed together.
async fn eight_at_once(mesh: &Mesh, client: &Client, server: &Server) {
    let mut pairs = Vec::new();
    for _ in 0..8 {
        pairs.push(connect(client, server).await);
    }
    assert_eq!(mesh.metric(OPEN), 8);
    for (near, mut far) in pairs {
        drop(near);
        assert_eq!(read_to_end(&mut far).await.unwrap(), b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_do_not_share_connections() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    exchange(&client, &server).await;
    eventually("it is idle", || idle(&mesh) == 1).await;
    let other = mesh.native_client("other");
    exchange(&other, &server).await;
    assert_eq!((sessions(&mesh, "fresh"), handshakes(&mesh, "full")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_nothing_is_reused_or_resumed_and_sessions_live_on() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    exchange(&client, &server).await;
    eventually("it is idle", || idle(&mesh) == 1).await;
    let full = handshakes(&mesh, "full");
    let serials = || -> Vec<_> {
        mesh.identities.certificates().into_iter().map(|status| status.serial).collect()
    };
    let old = serials();
    CaDirectory::rotate(&mesh.ca, &CaOptions::default(), || {}).unwrap();
    eventually("all certificates are new", || serials().iter().all(|serial| !old.contains(serial)))
        .await;
    eventually("idle connections are closed", || idle(&mesh) == 0 && mesh.metric(OPEN) == 1).await;
    exchange(&client, &server).await;
    assert_eq!(handshakes(&mesh, "full"), full + 1);
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_and_the_next_agent_gets_the_next_session() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    exchange(&client, &server).await;
    eventually("it is idle", || idle(&mesh) == 1).await;
    server.handle.stop_accepting();
    assert!(server.handle.drained(SOON).await);
    let _next = mesh.serve_again(&server);
    exchange(&client, &server).await;
    assert_eq!((sessions(&mesh, "reused"), mesh.metric("undermesh_native_retries_total")), (0, 0));
}
