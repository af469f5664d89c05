//! TLS towards a server outside the mesh, as a [`Duplex`].
//!
//! A server that leaves without `close_notify` has broken the stream: whoever cuts a connection on
//! its way must not be able to make half an answer look like a whole one.

use std::{
    future::Future,
    io::ErrorKind,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio_rustls::{TlsConnector, client};

use super::{Broken, Duplex, Socket, Stream};

/// Most that a record of TLS carries, and that is read at a time.
const RECORD: usize = 16 << 10;

/// A connection whose handshake is over. One that is dropped before it has ended is reset.
pub(crate) struct TlsStream {
    stream: client::TlsStream<Stream<Socket>>,
    /// Says that the stream was done with in order, although its writing half is open.
    ended: Arc<AtomicBool>,
    /// Waits for the socket to break while nobody reads.
    alarm: Pin<Box<dyn Future<Output = Broken> + Send>>,
}

impl TlsStream {
    /// Shakes hands as a client. Errors of TLS are inside those of I/O.
    pub(crate) async fn connect(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        socket: Socket,
    ) -> std::io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let may_end = Arc::clone(&ended);
        let alarm = Box::pin(socket.broken());
        let socket = Stream::new(socket).unfinished_where(move || may_end.load(Ordering::Relaxed));
        let stream = TlsConnector::from(config).connect(name, socket).await?;
        Ok(Self { stream, ended, alarm })
    }

    /// As tokio's traits have it, for what speaks HTTP over it.
    pub(crate) fn into_io(self) -> client::TlsStream<Stream<Socket>> {
        self.stream
    }
}

impl Duplex for TlsStream {
    /// Whether a record is complete is only known by reading it; what is read for nothing is given
    /// back at once.
    fn poll_readable(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        let mut buffer = BytesMut::with_capacity(limit.min(RECORD));
        let count = ready!(pin!(self.stream.read_buf(&mut buffer)).poll(cx))?;
        Poll::Ready(Ok((count > 0).then(|| buffer.freeze())))
    }

    fn poll_capacity(&mut self, _cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        Poll::Ready(Ok(RECORD))
    }

    fn release_capacity(&mut self) {}

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        match ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))? {
            0 => Poll::Ready(Err(Broken::Io(ErrorKind::WriteZero))),
            count => {
                bytes.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }

    fn consumed(&mut self, _count: usize) {}

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(Into::into)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(Into::into)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.alarm.as_mut().poll(cx)
    }

    fn ended(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
