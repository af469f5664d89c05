//! Bytes, ends and back-pressure.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use super::mesh::{Mesh, SOON, connect, eventually, ping_pong, read_exactly, read_to_end};

/// Bytes that differ all along, so that a lost or doubled chunk shows.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_megabytes_cross_each_way_unharmed_at_once() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (near, far) = connect(&client, &server).await;
    let data = pattern(5 << 20);
    let exchange = |stream: tokio::net::TcpStream, data: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let writing = async {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let reading = read.read_to_end(&mut received);
        let (_, result) = tokio::join!(writing, reading);
        result.unwrap();
        assert!(received == data, "{} bytes arrived changed", received.len());
    };
    let both = async {
        tokio::join!(exchange(near, data.clone()), exchange(far, data.clone()));
    };
    timeout(SOON, both).await.unwrap();
    for reporter in ["source", "destination"] {
        let reporter = format!("\"reporter\":\"{reporter}\"");
        let line = mesh.logged(&["\"event\":\"close\"", &reporter]).await;
        assert_eq!(line["reason"], "closed");
        assert_eq!(line["bytes_sent"], 5 << 20);
        assert_eq!(line["bytes_received"], 5 << 20);
        assert_eq!(line["source"]["identity"], client.workload.identity.to_string());
        assert_eq!(line["destination"]["identity"], server.workload.identity.to_string());
        assert_eq!(line["source"]["pod"], "client");
        assert_eq!(line["destination"]["pod"], "server");
        assert_eq!(line["transport"], "hbone");
        assert_eq!(line["security"], "mutual_tls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_may_close_its_half_first() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"question");
    far.write_all(b"answer").await.unwrap();
    assert_eq!(read_exactly(&mut near, 6).await, b"answer");
    far.write_all(b"more").await.unwrap();
    drop(far);
    assert_eq!(read_to_end(&mut near).await.unwrap(), b"more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_close_its_half_first() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    far.write_all(b"all I have").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut near).await.unwrap(), b"all I have");
    near.write_all(b"still listening?").await.unwrap();
    assert_eq!(read_exactly(&mut far, 16).await, b"still listening?");
    near.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"");
    mesh.logged(&["\"event\":\"close\"", "\"reason\":\"closed\"", "\"reporter\":\"source\""]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_may_speak_first() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (mut near, mut far) = connect(&client, &server).await;
    far.write_all(b"220 ready").await.unwrap();
    assert_eq!(read_exactly(&mut near, 9).await, b"220 ready");
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_stops_the_writer_and_loses_nothing() {
    let mesh = Mesh::with(|config| config.http2.stream_window = 256 << 10);
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (near, mut far) = connect(&client, &server).await;
    let (_read, mut write) = near.into_split();
    let chunk = pattern(64 << 10);
    let mut written = 0;
    // The writer has stopped when nothing moves for a while.
    while let Ok(count) = timeout(Duration::from_millis(500), write.write(&chunk)).await {
        written += count.unwrap();
        // Windows and send buffer, and what the kernel buffers on three sockets of loopback.
        assert!(written < 32 << 20, "{written} bytes are buffered somewhere");
    }
    drop(write);
    drop(_read);
    let mut received = 0;
    let mut buffer = vec![0; 256 << 10];
    while received < written {
        let read = timeout(SOON, far.read(&mut buffer)).await.unwrap();
        received += read.unwrap();
    }
    assert_eq!(received, written);
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_do_not_hold_up_their_neighbours() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let chunk = vec![1; 64 << 10];
    let mut unread = Vec::new();
    // Five windows are more than the 16 MiB that tunnels commonly have in all.
    for _ in 0..5 {
        let (mut near, far) = connect(&client, &server).await;
        while timeout(Duration::from_millis(300), near.write_all(&chunk)).await.is_ok() {}
        unread.push((near, far));
    }
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    assert_eq!(mesh.metric("undermesh_proxy_tunnels{direction=\"outbound\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_connections_share_one_tunnel() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let mut pairs = Vec::new();
    for _ in 0..64 {
        pairs.push(connect(&client, &server).await);
    }
    for (near, far) in &mut pairs {
        ping_pong(near, far).await;
    }
    let status = mesh.status();
    let pod = status.pods.iter().find(|pod| pod.pod.name == "client").unwrap();
    assert_eq!(pod.outbound_connections, 64);
    assert_eq!(pod.pool.len(), 1);
    assert_eq!(pod.pool[0].streams, 64);
    let pod = status.pods.iter().find(|pod| pod.pod.name == "server").unwrap();
    assert_eq!((pod.inbound_tunnels, pod.inbound_connections), (1, 64));
    drop(pairs);
    eventually("all streams end", || {
        let status = mesh.status();
        status.pods.iter().all(|p| p.outbound_connections + p.inbound_connections == 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_deliveries_work_over_ipv6() {
    let mesh = Mesh::new();
    let client = mesh.client("client");
    let server = mesh.server_at("server", "::1".parse().unwrap()).await;
    let (mut near, mut far) = connect(&client, &server).await;
    ping_pong(&mut near, &mut far).await;
    assert_eq!(far.peer_addr().unwrap().ip().to_string(), "::1");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_come_from_the_address_that_the_kernel_knows() {
    let mesh = Mesh::new();
    let (client, server) = (mesh.client("client"), mesh.server("server").await);
    let (_near, far) = connect(&client, &server).await;
    assert_eq!(far.peer_addr().unwrap().ip().to_string(), "127.0.0.6");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_meshed_is_passed_through_from_the_pods_address() {
    let mesh = Mesh::new();
    let client = mesh.client("client");
    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = client.dial(outside.local_addr().unwrap()).await;
    let (mut far, peer) = outside.accept().await.unwrap();
    assert_eq!(peer.ip(), client.workload.addresses[0]);
    ping_pong(&mut near, &mut far).await;
    near.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"");
    drop(far);
    let line = mesh.logged(&["\"event\":\"close\""]).await;
    assert_eq!(line["transport"], "plain");
    assert_eq!(line["security"], "none");
}
