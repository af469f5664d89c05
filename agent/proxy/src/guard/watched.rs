//! A client's stream that somebody watches while nobody reads from it: hyper does not look at one that it neither
//! reads nor writes, and a request that waits for an authorizer or for the application would go on waiting for a client
//! that has gone. A wire that carries several connections says so in its bytes: a few of them are read ahead.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use crate::duplex::{Broken, Duplex};

/// Most that is read before anybody wants it.
const AHEAD: usize = 16 << 10;

/// The stream, for whoever reads and writes.
pub(super) struct Watched<D>(Arc<Mutex<Ahead<D>>>);

/// The stream, for whoever waits for its end. Both have to be polled by the same task.
pub(super) struct Watch<D>(Weak<Mutex<Ahead<D>>>);

/// A stream, and what was read of it already.
struct Ahead<D> {
    stream: D,
    bytes: Bytes,
    /// The client has closed its half.
    ended: bool,
    /// Somebody waits for the next bytes, and hears of an end with them.
    awaited: bool,
}

impl<D> Watched<D> {
    pub(super) fn new(stream: D) -> (Self, Watch<D>) {
        let ahead = Ahead { stream, bytes: Bytes::new(), ended: false, awaited: false };
        let ahead = Arc::new(Mutex::new(ahead));
        let watch = Watch(Arc::downgrade(&ahead));
        (Self(ahead), watch)
    }

    /// The stream itself, unless it is being looked at.
    pub(super) fn into_inner(self) -> Option<D> {
        let ahead = Arc::into_inner(self.0)?;
        Some(ahead.into_inner().unwrap_or_else(PoisonError::into_inner).stream)
    }

    fn lock(&self) -> MutexGuard<'_, Ahead<D>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Duplex> Watch<D> {
    /// Returns when the stream is broken; never where it has ended in order.
    pub(super) async fn broken(&self) {
        poll_fn(|cx| match self.0.upgrade() {
            Some(ahead) => ahead.lock().unwrap_or_else(PoisonError::into_inner).poll_broken(cx),
            None => Poll::Pending,
        })
        .await;
    }
}

impl<D: Duplex> Ahead<D> {
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let unwatched = !self.awaited && !self.ended && self.bytes.is_empty();
        if unwatched
            && self.stream.poll_readable(cx).is_ready()
            && let Poll::Ready(read) = self.stream.poll_read(cx, AHEAD)
        {
            match read {
                Ok(Some(bytes)) => self.bytes = bytes,
                Ok(None) => self.ended = true,
                Err(_) => return Poll::Ready(()),
            }
            // Whoever wants to read has been told that there is nothing, if it was asked before us.
            cx.waker().wake_by_ref();
        }
        self.stream.poll_broken(cx).map(drop)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        if !self.bytes.is_empty() {
            let count = self.bytes.len().min(limit.max(1));
            return Poll::Ready(Ok(Some(self.bytes.split_to(count))));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        self.awaited = true;
        let read = ready!(self.stream.poll_read(cx, limit));
        self.awaited = false;
        self.ended = matches!(read, Ok(None));
        Poll::Ready(read)
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended || !self.bytes.is_empty() {
            return Poll::Ready(());
        }
        self.awaited = true;
        let readable = self.stream.poll_readable(cx);
        self.awaited = readable.is_pending();
        readable
    }
}

impl<D: Duplex> Duplex for Watched<D> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lock().poll_readable(cx)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        self.lock().poll_read(cx, limit)
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.lock().stream.poll_capacity(cx)
    }

    fn release_capacity(&mut self) {
        self.lock().stream.release_capacity();
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.lock().stream.poll_write(cx, bytes)
    }

    fn consumed(&mut self, count: usize) {
        self.lock().stream.consumed(count);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.lock().stream.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.lock().stream.poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.lock().stream.poll_broken(cx)
    }

    fn ended(&mut self) {
        self.lock().stream.ended();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::duplex::Socket;

    async fn pair() -> (Watched<Socket>, Watch<Socket>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap());
        let (far, accepted) = tokio::join!(far, listener.accept());
        let (watched, watch) = Watched::new(Socket::new(accepted.unwrap().0));
        (watched, watch, far.unwrap())
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_bounded_and_comes_in_order() {
        let (mut watched, watch, mut far) = pair().await;
        let sent: Vec<u8> = (0..4 * AHEAD).map(|number| number as u8).collect();
        far.write_all(&sent).await.unwrap();
        far.shutdown().await.unwrap();
        // As much as may be, and no more.
        for _ in 0..10 {
            let broken = tokio::time::timeout(std::time::Duration::from_millis(10), watch.broken());
            assert!(broken.await.is_err(), "it is not broken");
        }
        let held = watched.lock().bytes.len();
        assert!((1..=AHEAD).contains(&held), "{held} bytes are held");
        let mut read = Vec::new();
        while let Some(bytes) = poll_fn(|cx| watched.poll_read(cx, 1000)).await.unwrap() {
            assert!(bytes.len() <= 1000);
            read.extend_from_slice(&bytes);
        }
        assert!(read == sent, "{} bytes of {}", read.len(), sent.len());
        let again = watched.poll_read(&mut Context::from_waker(Waker::noop()), 1);
        assert!(matches!(again, Poll::Ready(Ok(None))), "an end stays one");
    }

    #[tokio::test]
    async fn a_client_that_resets_is_noticed_while_nobody_reads() {
        let (watched, watch, far) = pair().await;
        far.set_zero_linger().unwrap();
        drop(far);
        watch.broken().await;
        drop(watched);
    }

    /// Says in its bytes that it is broken, as the native wire does.
    struct Telling;

    impl Duplex for Telling {
        fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }

        fn poll_read(
            &mut self,
            _: &mut Context<'_>,
            _: usize,
        ) -> Poll<Result<Option<Bytes>, Broken>> {
            Poll::Ready(Err(Broken::Reset))
        }

        fn poll_capacity(&mut self, _: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
            Poll::Pending
        }

        fn release_capacity(&mut self) {}

        fn poll_write(&mut self, _: &mut Context<'_>, _: &mut Bytes) -> Poll<Result<(), Broken>> {
            Poll::Pending
        }

        fn consumed(&mut self, _: usize) {}

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
            Poll::Pending
        }

        fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
            Poll::Pending
        }

        fn poll_broken(&mut self, _: &mut Context<'_>) -> Poll<Broken> {
            Poll::Pending
        }

        fn ended(&mut self) {}
    }

    #[tokio::test]
    async fn a_break_that_only_a_reader_hears_of_is_noticed_while_nobody_reads() {
        let (watched, watch) = Watched::new(Telling);
        watch.broken().await;
        drop(watched);
    }
}
