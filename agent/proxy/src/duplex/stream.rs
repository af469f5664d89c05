//! A [`Duplex`] as tokio's traits have it, for what speaks HTTP over it.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Broken, Duplex};

/// Most that is taken for one write.
const CHUNK: usize = 64 << 10;

/// What becomes of the stream when nobody needs it any more. The flag says whether the other side has
/// ended its half.
type Over<D> = Box<dyn FnOnce(D, bool) + Send>;

/// Reads from and writes to a [`Duplex`]. One that is dropped before its writing half was shut down
/// is reset.
pub(crate) struct Stream<D: Duplex> {
    /// Gone only while the stream is dropped.
    duplex: Option<D>,
    /// Read, and not yet taken.
    left: Bytes,
    read_ended: bool,
    write_ended: bool,
    over: Option<Over<D>>,
    /// Whether it may be dropped without having been shut down.
    unfinished: Option<Box<dyn Fn() -> bool + Send>>,
}

impl<D: Duplex> Stream<D> {
    pub(crate) fn new(duplex: D) -> Self {
        Self {
            duplex: Some(duplex),
            left: Bytes::new(),
            read_ended: false,
            write_ended: false,
            over: None,
            unfinished: None,
        }
    }

    /// Takes a drop for an orderly end where this says so; the writing half may then still be open.
    pub(crate) fn unfinished_where(mut self, allowed: impl Fn() -> bool + Send + 'static) -> Self {
        self.unfinished = Some(Box::new(allowed));
        self
    }

    /// Hands the stream over when it is done with in order.
    pub(crate) fn when_over(mut self, over: impl FnOnce(D, bool) + Send + 'static) -> Self {
        self.over = Some(Box::new(over));
        self
    }

    fn duplex(&mut self) -> io::Result<&mut D> {
        self.duplex.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn poll_write_bytes(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let duplex = self.duplex()?;
        let room = ready!(duplex.poll_capacity(cx)).map_err(io::Error::from)?.min(CHUNK);
        let mut bytes = gather(parts, room);
        let before = bytes.len();
        if before > 0 {
            ready!(duplex.poll_write(cx, &mut bytes)).map_err(io::Error::from)?;
        }
        Poll::Ready(Ok(before - bytes.len()))
    }
}

/// Up to `room` bytes of these.
fn gather(parts: &[IoSlice<'_>], room: usize) -> Bytes {
    let wanted: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = BytesMut::with_capacity(wanted.min(room));
    for part in parts {
        let count = part.len().min(room - bytes.len());
        bytes.extend_from_slice(&part[..count]);
    }
    bytes.freeze()
}

impl<D: Duplex + Unpin> AsyncRead for Stream<D> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.left.is_empty() {
            let room = buffer.remaining();
            let duplex = self.duplex()?;
            ready!(duplex.poll_readable(cx));
            match ready!(duplex.poll_read(cx, room)).map_err(io::Error::from)? {
                Some(bytes) => self.left = bytes,
                None => {
                    self.read_ended = true;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let count = self.left.len().min(buffer.remaining());
        let taken = self.left.split_to(count);
        buffer.put_slice(&taken);
        self.duplex()?.consumed(count);
        Poll::Ready(Ok(()))
    }
}

impl<D: Duplex + Unpin> AsyncWrite for Stream<D> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_bytes(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_bytes(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let duplex = self.duplex()?;
        duplex.release_capacity();
        duplex.poll_flush(cx).map_err(Into::into)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_ended {
            let duplex = self.duplex()?;
            ready!(duplex.poll_flush(cx)).map_err(io::Error::from)?;
            ready!(duplex.poll_finish(cx)).map_err(io::Error::from)?;
            self.write_ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<D: Duplex> Drop for Stream<D> {
    fn drop(&mut self) {
        let orderly = self.write_ended || self.unfinished.as_ref().is_some_and(|allowed| allowed());
        let Some(mut duplex) = self.duplex.take().filter(|_| orderly) else { return };
        duplex.ended();
        if let Some(over) = self.over.take() {
            over(duplex, self.read_ended);
        }
    }
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Reset | Broken::Gone => ErrorKind::ConnectionReset.into(),
            Broken::TunnelLost => ErrorKind::ConnectionAborted.into(),
            Broken::TimedOut => ErrorKind::TimedOut.into(),
            Broken::Io(kind) => kind.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::duplex::Socket;

    async fn pair() -> (Stream<Socket>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap());
        let (far, accepted) = tokio::join!(far, listener.accept());
        (Stream::new(Socket::new(accepted.unwrap().0)), far.unwrap())
    }

    #[tokio::test]
    async fn bytes_cross_both_ways_and_the_end_is_an_end() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"ask").await.unwrap();
        let mut buffer = [0; 2];
        near.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"as");
        near.read_exact(&mut buffer[..1]).await.unwrap();
        near.write_all(b"answer").await.unwrap();
        near.shutdown().await.unwrap();
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    }

    #[tokio::test]
    async fn a_stream_that_was_not_shut_down_is_reset() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"half an ans").await.unwrap();
        let mut buffer = [0; 11];
        far.read_exact(&mut buffer).await.unwrap();
        drop(near);
        let error = far.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
