//! The end of a connection to a controller that stops. Who is told so may be about to write something, and a connection
//! that is gone by then is reset at its end, with the last words in it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
    time::{Sleep, sleep},
};

/// How long the other end has to close it.
const LINGER: Duration = Duration::from_millis(500);

/// A connection that waits for the other end to close it, too, where the controller stops.
pub(super) struct Lingering<S> {
    stream: S,
    stopping: watch::Receiver<bool>,
    /// Until when, once all is said.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S, stopping: watch::Receiver<bool>) -> Self {
        Self { stream, stopping, until: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, stopping, until } = &mut *self;
        if until.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
            if !*stopping.borrow() {
                return Poll::Ready(Ok(()));
            }
        }
        let until = until.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut rest = [0; 1024];
        while until.as_mut().poll(cx).is_pending() {
            let mut rest = ReadBuf::new(&mut rest);
            // What else it says does not matter any more, and neither does a reset.
            if ready!(Pin::new(&mut *stream).poll_read(cx, &mut rest)).is_err()
                || rest.filled().is_empty()
            {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::{Instant, timeout},
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_controller_that_stops_waits_for_the_other_end_and_not_for_long() {
        let stopping = watch::Sender::new(false);
        let pair = || {
            let (own, other) = duplex(64);
            (Lingering::new(own, stopping.subscribe()), other)
        };
        let (mut own, _other) = pair();
        timeout(SHORT, own.shutdown()).await.expect("it does not stop").unwrap();

        stopping.send_replace(true);
        let (mut own, mut other) = pair();
        own.write_all(b"last").await.unwrap();
        assert!(timeout(SHORT, own.shutdown()).await.is_err());
        other.write_all(b"whatever").await.unwrap();
        let mut said = String::new();
        other.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "last");
        drop(other);
        own.shutdown().await.unwrap();

        let (mut own, _other) = pair();
        let began = Instant::now();
        own.shutdown().await.unwrap();
        assert!(began.elapsed() >= LINGER);
    }
}
