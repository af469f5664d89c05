//! Breaks of connections and agents, over the native wire.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    time::timeout,
};

use super::{
    super::mesh::{Mesh, SOON, connect, eventually, expect_reset, ping_pong, read_exactly, reset},
    pair,
};

const REPORTERS: [&str; 2] = ["\"reporter\":\"source\"", "\"reporter\":\"destination\""];

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_the_client_reaches_the_server() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    reset(near);
    expect_reset(&mut far).await;
    for reporter in REPORTERS {
        let line = mesh.logged(&["\"event\":\"close\"", reporter]).await;
        assert_eq!(line["reason"], "client_reset");
        assert_eq!(line["response_flags"], "DC");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_the_server_reaches_the_client() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    reset(far);
    expect_reset(&mut near).await;
    for reporter in REPORTERS {
        let line = mesh.logged(&["\"event\":\"close\"", reporter]).await;
        assert_eq!(line["reason"], "server_reset");
        assert_eq!(line["response_flags"], "UC");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_after_a_fin_still_crosses() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    reset(near);
    // A socket that has seen a FIN keeps reading "end"; the reset is an error beside it.
    timeout(SOON, far.ready(Interest::ERROR)).await.unwrap().unwrap();
    assert!(far.take_error().unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_before_a_reset_arrive_before_it() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
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
async fn a_reset_crosses_while_the_other_side_does_not_read() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    let chunk = vec![7; 64 << 10];
    // Fill every buffer between the two, until the client cannot write.
    while timeout(Duration::from_millis(300), near.write_all(&chunk)).await.is_ok() {}
    reset(near);
    let line = mesh.logged(&["\"event\":\"close\"", "\"reporter\":\"destination\""]).await;
    assert_eq!(line["response_flags"], "DC");
    expect_reset(&mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_reset_is_not_used_again() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    reset(near);
    expect_reset(&mut far).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    assert_eq!(super::sessions(&mesh, "reused"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_server_resets_its_connections_and_the_next_agent_serves_new_ones() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    server.handle.abort();
    expect_reset(&mut near).await;
    expect_reset(&mut far).await;
    assert!(server.handle.drained(SOON).await);
    let _restarted = mesh.serve_again(&server);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_client_resets_both_applications() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    client.handle.abort();
    expect_reset(&mut near).await;
    expect_reset(&mut far).await;
    assert!(client.handle.drained(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_stop_accepting_finish_their_sessions_and_close_what_is_idle() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    drop(connect(&client, &server).await);
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    server.handle.stop_accepting();
    client.handle.stop_accepting();
    assert!(!server.handle.drained(Duration::from_millis(100)).await);
    ping_pong(&mut near, &mut far).await;
    drop(near);
    drop(far);
    assert!(client.handle.drained(SOON).await);
    assert!(server.handle.drained(SOON).await);
    let open = "undermesh_native_connections{direction=\"outbound\"}";
    eventually("all connections are closed", || mesh.metric(open) == 0).await;
}
