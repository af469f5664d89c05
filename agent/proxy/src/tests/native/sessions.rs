//! Bytes, ends and back-pressure over the native wire.

use std::{
    hash::{DefaultHasher, Hasher},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::{
    super::mesh::{Mesh, SOON, connect, ping_pong, read_exactly, read_to_end},
    handshakes, pair, sessions, unwarmed,
};

/// Writes bytes that never repeat and closes; returns their checksum.
async fn pour(mut to: impl AsyncWrite + Unpin, length: usize) -> u64 {
    let mut hash = DefaultHasher::new();
    let mut state = 1_u64;
    let mut chunk = vec![0; 100_003];
    let mut left = length;
    while left > 0 {
        for byte in &mut chunk {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        let part = &chunk[..left.min(chunk.len())];
        to.write_all(part).await.unwrap();
        hash.write(part);
        left -= part.len();
    }
    to.shutdown().await.unwrap();
    hash.finish()
}

/// Reads to the end; returns length and checksum. The pieces do not matter to the hash only if they
/// are hashed byte by byte, which `write` of the default hasher does.
async fn drink(mut from: impl AsyncRead + Unpin) -> (usize, u64) {
    let mut hash = DefaultHasher::new();
    let mut chunk = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        match from.read(&mut chunk).await.unwrap() {
            0 => return (length, hash.finish()),
            count => {
                hash.write(&chunk[..count]);
                length += count;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_mebibytes_cross_each_way_unharmed_at_once() {
    const LENGTH: usize = 64 << 20;
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (near, far) = connect(&client, &server).await;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let all = async {
        tokio::join!(
            pour(near_write, LENGTH),
            drink(far_read),
            pour(far_write, LENGTH),
            drink(near_read)
        )
    };
    let (up, received, down, answered) = timeout(SOON * 4, all).await.unwrap();
    assert_eq!(received, (LENGTH, up));
    assert_eq!(answered, (LENGTH, down));
    for reporter in ["source", "destination"] {
        let reporter = format!("\"reporter\":\"{reporter}\"");
        let line = mesh.logged(&["\"event\":\"close\"", &reporter]).await;
        assert_eq!(line["reason"], "closed");
        assert_eq!(line["bytes_sent"], LENGTH);
        assert_eq!(line["bytes_received"], LENGTH);
        assert_eq!(line["transport"], "native");
        assert_eq!(line["security"], "mutual_tls");
        assert_eq!(line["source"]["identity"], client.workload.identity.to_string());
        assert_eq!(line["destination"]["identity"], server.workload.identity.to_string());
        assert_eq!(line["source"]["pod"], "client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_client_says_at_once_needs_no_answer_first_and_is_counted() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let mut near = client.dial(server.address).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut far = server.accept().await;
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"question");
    far.write_all(b"answer").await.unwrap();
    drop(far);
    assert_eq!(read_to_end(&mut near).await.unwrap(), b"answer");
    for reporter in ["\"reporter\":\"source\"", "\"reporter\":\"destination\""] {
        let line = mesh.logged(&["\"event\":\"close\"", reporter]).await;
        assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&8.into(), &6.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_may_close_its_half_first() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
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
    let (client, server) = pair(&mesh).await;
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
    let (client, server) = pair(&mesh).await;
    let (mut near, mut far) = connect(&client, &server).await;
    far.write_all(b"220 ready").await.unwrap();
    assert_eq!(read_exactly(&mut near, 9).await, b"220 ready");
    ping_pong(&mut near, &mut far).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_stops_the_writer_and_loses_nothing() {
    let mesh = Mesh::new();
    let (client, server) = pair(&mesh).await;
    let (near, mut far) = connect(&client, &server).await;
    let (read, mut write) = near.into_split();
    let chunk = vec![5; 64 << 10];
    let mut written = 0;
    // The writer has stopped when nothing moves for a while.
    while let Ok(count) = timeout(Duration::from_millis(500), write.write(&chunk)).await {
        written += count.unwrap();
        // What the kernel buffers on three connections of loopback, and a frame or two.
        assert!(written < 48 << 20, "{written} bytes are buffered somewhere");
    }
    drop((read, write));
    let mut received = 0;
    let mut buffer = vec![0; 256 << 10];
    while received < written {
        received += timeout(SOON, far.read(&mut buffer)).await.unwrap().unwrap();
    }
    assert_eq!(received, written);
    assert_eq!(read_to_end(&mut far).await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_at_the_same_time_have_connections_of_their_own() {
    let mesh = unwarmed();
    let (client, server) = pair(&mesh).await;
    let mut pairs = Vec::new();
    for _ in 0..20 {
        pairs.push(connect(&client, &server).await);
    }
    for (near, far) in &mut pairs {
        ping_pong(near, far).await;
    }
    assert_eq!(sessions(&mesh, "fresh"), 20);
    assert_eq!(handshakes(&mesh, "full") + handshakes(&mesh, "resumed"), 20);
    let open = "undermesh_native_connections{direction=\"inbound\"}";
    assert_eq!(mesh.metric(open), 20);
}
