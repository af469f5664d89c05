//! A TCP connection under TLS that can also be watched from outside.
//!
//! TLS reads four kibibytes at a time. Where they were all there, more is likely to be, and is read
//! ahead: so a full record costs a quarter of a system call, and not five.

use std::{
    io::{self, ErrorKind},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Most that is read ahead: four full records and their frames.
const AHEAD: usize = 4 * (16 << 10) + 1024;

/// A shared [`TcpStream`]; TLS reads and writes it, an alarm waits for its errors.
#[derive(Debug)]
pub(crate) struct Io {
    tcp: Arc<TcpStream>,
    /// Read, and not yet asked for by TLS; without memory while nothing is.
    ahead: BytesMut,
    /// The last read has filled all the room that it had.
    more: bool,
}

impl Io {
    /// Wraps a connected socket.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp: Arc::new(tcp), ahead: BytesMut::new(), more: false }
    }

    /// The socket.
    pub(crate) fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    /// Reads once. A read that leaves room has emptied the socket: that it is not ready any more need
    /// not be found out by another. (Urgent data would be an exception; under TLS there is none.)
    fn poll_read_once(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            let mut part = None;
            // Readiness as it was before the read is what is forgotten; what has come since is not.
            let result = self.tcp.try_io(Interest::READABLE, || match read(&self.tcp)? {
                count if 0 < count && count < room => {
                    part = Some(count);
                    Err(ErrorKind::WouldBlock.into())
                }
                count => Ok(count),
            });
            match (part, result) {
                (Some(count), _) => return Poll::Ready(Ok(count)),
                (None, Err(error)) if retry(&error) => {}
                (None, result) => return Poll::Ready(result),
            }
        }
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ahead = BytesMut::with_capacity(AHEAD);
        let room = ahead.capacity();
        let count = ready!(self.poll_read_once(cx, room, |tcp| tcp.try_read_buf(&mut ahead)))?;
        self.more = count == room;
        self.ahead = ahead;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.more && self.ahead.is_empty() {
            let read = self.poll_read_ahead(cx);
            if read.is_pending() {
                self.more = false;
            }
            ready!(read)?;
            if self.ahead.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead[..count]);
            self.ahead.advance(count);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let room = buffer.remaining();
        let count = ready!(self.poll_read_once(cx, room, |tcp| tcp.try_read_buf(buffer)))?;
        self.more = count == room;
        Poll::Ready(Ok(()))
    }
}

impl Io {
    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match write(&self.tcp) {
                Err(error) if retry(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.tcp).shutdown(Shutdown::Write))
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
