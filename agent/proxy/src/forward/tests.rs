//! Forwarding between two plain sockets; tunnels are tested with whole connections.

use std::{
    io::ErrorKind,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use undermesh_telemetry::ByteCounters;

use super::*;
use crate::duplex::Socket;

const SOON: Duration = Duration::from_secs(10);

/// A client and a server with the proxy's forwarding between them.
struct Bench {
    client: TcpStream,
    server: TcpStream,
    counters: Arc<ByteCounters>,
    ending: JoinHandle<Ending>,
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

async fn bench() -> Bench {
    let (client, from_client) = connected().await;
    let (to_server, server) = connected().await;
    let counters = Arc::new(ByteCounters::default());
    let task_counters = Arc::clone(&counters);
    let ending = tokio::spawn(async move {
        let (mut a, mut b) = (Socket::new(from_client), Socket::new(to_server));
        forward(&mut a, &mut b, &task_counters).await
    });
    Bench { client, server, counters, ending }
}

impl Bench {
    async fn ending(self) -> Ending {
        timeout(SOON, self.ending).await.unwrap().unwrap()
    }
}

async fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap()?;
    Ok(bytes)
}

#[tokio::test]
async fn each_half_closes_on_its_own_and_bytes_are_counted() {
    let mut bench = bench().await;
    bench.client.write_all(b"question").await.unwrap();
    bench.client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut bench.server).await.unwrap(), b"question");
    bench.server.write_all(b"an answer").await.unwrap();
    bench.server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut bench.client).await.unwrap(), b"an answer");
    assert_eq!(bench.counters.received(), 8);
    assert_eq!(bench.counters.sent(), 9);
    assert_eq!(bench.ending().await, Ending::Closed);
}

#[tokio::test]
async fn a_reset_crosses_from_the_client() {
    let mut bench = bench().await;
    bench.client.write_all(b"x").await.unwrap();
    assert_eq!(bench.server.read_u8().await.unwrap(), b'x');
    reset(bench.client).await;
    let error = read_all(&mut bench.server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let ending = bench.ending.await.unwrap();
    assert_eq!(ending, Ending::Broken(End::Client, Broken::Reset));
}

#[tokio::test]
async fn bytes_before_a_reset_arrive_before_it() {
    let mut bench = bench().await;
    bench.server.write_all(b"last words").await.unwrap();
    reset(bench.server).await;
    let mut words = [0; 10];
    bench.client.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"last words");
    let error = read_all(&mut bench.client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(bench.ending.await.unwrap().close_reason().reason, "server_reset");
}

#[tokio::test]
async fn a_reset_after_the_clients_fin_crosses() {
    let mut bench = bench().await;
    bench.client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut bench.server).await.unwrap(), b"");
    // Nothing reads from the client any more; only an error event tells. The same is true of the
    // server, whose reads go on to say "end".
    reset(bench.client).await;
    let error = timeout(SOON, bench.server.ready(Interest::ERROR)).await;
    error.unwrap().unwrap();
    assert!(bench.server.take_error().unwrap().is_some());
    let ending = timeout(SOON, bench.ending).await.unwrap().unwrap();
    assert_eq!(ending, Ending::Broken(End::Client, Broken::Reset));
}

#[tokio::test]
async fn a_reset_crosses_while_the_other_side_does_not_read() {
    let mut bench = bench().await;
    let chunk = vec![7; 64 << 10];
    // Fill every buffer between the two, until the client cannot write.
    while timeout(Duration::from_millis(300), bench.client.write_all(&chunk)).await.is_ok() {}
    reset(bench.client).await;
    let ending = timeout(SOON, bench.ending).await.unwrap().unwrap();
    assert_eq!(ending, Ending::Broken(End::Client, Broken::Reset));
    let error = read_all(&mut bench.server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_answer_survives_a_server_that_stops_reading_the_question() {
    let mut bench = bench().await;
    bench.client.write_all(&[0; 1024]).await.unwrap();
    bench.server.write_all(b"too long").await.unwrap();
    // Closing with unread bytes resets the connection.
    assert!(bench.server.peek(&mut [0; 1]).await.unwrap() > 0);
    drop(bench.server);
    let mut answer = [0; 8];
    bench.client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"too long");
    assert!(read_all(&mut bench.client).await.is_err());
}

#[tokio::test]
async fn a_dropped_forwarder_resets_both_sides() {
    let mut bench = bench().await;
    bench.client.write_all(b"x").await.unwrap();
    assert_eq!(bench.server.read_u8().await.unwrap(), b'x');
    bench.ending.abort();
    for stream in [&mut bench.client, &mut bench.server] {
        let error = read_all(stream).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// Says something once, and takes everything.
struct Once(Option<Bytes>);

impl Duplex for Once {
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.0.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_read(&mut self, _: &mut Context<'_>, _: usize) -> Poll<Result<Option<Bytes>, Broken>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Ok(Some(bytes))))
    }

    fn poll_capacity(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        Poll::Ready(Ok(1024))
    }

    fn release_capacity(&mut self) {}

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        bytes.advance(bytes.len());
        Poll::Ready(Ok(()))
    }

    fn consumed(&mut self, _: usize) {}

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<Broken> {
        Poll::Pending
    }

    fn ended(&mut self) {}
}

#[test]
fn what_was_passed_on_is_not_kept_while_nothing_follows() {
    let memory = Arc::new([7; 64]);
    let said = Bytes::from_owner(Memory(Arc::clone(&memory)));
    let (mut from, mut to) = (Once(Some(said)), Once(None));
    let counters = ByteCounters::default();
    let mut flow = Flow::new(&counters, ByteCounters::add_received);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(flow.poll(&mut cx, &mut from, &mut to).is_pending());
    assert_eq!(counters.received(), 64);
    assert_eq!(Arc::strong_count(&memory), 1);
}

struct Memory(Arc<[u8; 64]>);

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &*self.0
    }
}
