//! A TCP connection as a [`Duplex`].

use std::{
    future::Future,
    io::{self, ErrorKind},
    mem::MaybeUninit,
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

use super::{Broken, Duplex};
use crate::pod::Pass;

/// Most that is read at once from a connection that starts to speak, and again once it says little.
const FIRST_BUFFER: usize = 8 << 10;
/// Largest buffer; reached by connections that keep filling theirs.
const LARGEST_BUFFER: usize = 128 << 10;
/// A buffer with less room than this is replaced instead of filled up.
const LEAST_ROOM: usize = 2 << 10;

/// A socket whose two directions are polled from one task. Closes with RST unless it has ended.
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    /// Kept while bytes arrive, so that small reads share one allocation; empty while idle.
    buffer: BytesMut,
    /// Size of the next allocation.
    next_buffer: usize,
    /// Waits for an error while nothing else would notice one; made on first use.
    alarm: Option<Pin<Box<dyn Future<Output = Broken> + Send>>>,
    ended: bool,
    /// Read, and given back: the next read gets it again.
    unread: Bytes,
    /// Kept for as long as the connection lasts.
    _pass: Option<Pass>,
    /// When this is over, the connection counts as broken.
    until: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// It is over.
    cut: bool,
}

impl Socket {
    /// Wraps a connected socket.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream: Arc::new(stream),
            buffer: BytesMut::new(),
            next_buffer: FIRST_BUFFER,
            alarm: None,
            ended: false,
            unread: Bytes::new(),
            _pass: None,
            until: None,
            cut: false,
        }
    }

    /// Sets how a peer that is gone is noticed.
    pub(crate) fn set_keepalive(&self, keepalive: &TcpKeepalive) -> io::Result<()> {
        SockRef::from(&*self.stream).set_tcp_keepalive(keepalive)
    }

    /// Breaks the connection when `event` happens.
    pub(crate) fn until(self, event: impl Future<Output = ()> + Send + 'static) -> Self {
        let mut socket = self;
        socket.until = Some(Box::pin(event));
        socket
    }

    /// Whether what it was to last for is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Result<(), Broken> {
        if let Some(event) = &mut self.until
            && event.as_mut().poll(cx).is_ready()
        {
            self.until = None;
            self.cut = true;
        }
        if self.cut { Err(Broken::Reset) } else { Ok(()) }
    }

    /// Keeps what lets the connection pass until it is closed.
    pub(crate) fn with_pass(self, pass: Pass) -> Self {
        // `Socket` has a destructor, so its fields cannot be moved out of it.
        let mut socket = self;
        socket._pass = Some(pass);
        socket
    }

    /// Gives back all that was read, for somebody else to read.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.unread = bytes;
        }
    }

    /// Waits for the connection to break while others read from it and write to it.
    pub(crate) fn broken(&self) -> impl Future<Output = Broken> + use<> {
        broken(Arc::clone(&self.stream))
    }

    /// Reads what is there. Little is kept in as much memory as it needs; for who fills the room again
    /// and again, the allocation grows, and is dropped when the socket is dry.
    fn try_read(&mut self, limit: usize) -> io::Result<Bytes> {
        if self.next_buffer <= FIRST_BUFFER {
            let mut room = [const { MaybeUninit::uninit() }; FIRST_BUFFER];
            let mut room = ReadBuf::uninit(&mut room[..limit.min(FIRST_BUFFER)]);
            let count = self.stream.try_read_buf(&mut room)?;
            if count == FIRST_BUFFER {
                self.next_buffer *= 2;
            }
            return Ok(Bytes::copy_from_slice(room.filled()));
        }
        if self.buffer.capacity() < LEAST_ROOM {
            self.buffer = BytesMut::with_capacity(self.next_buffer);
        }
        let room = self.buffer.capacity();
        let count = self.stream.try_read_buf(&mut (&mut self.buffer).limit(limit))?;
        if count == room && room >= self.next_buffer {
            self.next_buffer = (self.next_buffer * 2).min(LARGEST_BUFFER);
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// Gives the memory back, and step by step the size that the next will have: whoever sends much
    /// pauses often, and not for long.
    fn forget_buffer(&mut self) {
        if self.next_buffer > FIRST_BUFFER {
            self.buffer = BytesMut::new();
            self.next_buffer = (self.next_buffer / 2).max(FIRST_BUFFER);
        }
    }
}

impl Duplex for Socket {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.unread.is_empty() || self.poll_over(cx).is_err() {
            return Poll::Ready(());
        }
        match self.stream.poll_read_ready(cx) {
            Poll::Pending => {
                self.forget_buffer();
                Poll::Pending
            }
            // An error shows again in the read.
            Poll::Ready(_) => Poll::Ready(()),
        }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        self.poll_over(cx)?;
        if !self.unread.is_empty() {
            let count = self.unread.len().min(limit);
            return Poll::Ready(Ok(Some(self.unread.split_to(count))));
        }
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.try_read(limit) {
                Ok(bytes) if bytes.is_empty() => return Poll::Ready(Ok(None)),
                Ok(bytes) => return Poll::Ready(Ok(Some(bytes))),
                Err(error) if retry(&error) => self.forget_buffer(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.poll_over(cx)?;
        ready!(self.stream.poll_write_ready(cx))?;
        Poll::Ready(Ok(LARGEST_BUFFER))
    }

    fn release_capacity(&mut self) {}

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write(bytes) {
                Ok(count) => {
                    bytes.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if retry(&error) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn consumed(&mut self, _count: usize) {}

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(match SockRef::from(&*self.stream).shutdown(Shutdown::Write) {
            // The connection is gone; whoever reads from it learns how it ended.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
            result => result.map_err(Broken::from),
        })
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        let stream = &self.stream;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(broken(Arc::clone(stream))));
        let cause = ready!(alarm.as_mut().poll(cx));
        self.alarm = None;
        Poll::Ready(cause)
    }

    fn ended(&mut self) {
        self.ended = true;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.ended {
            // Fails only for a socket that is beyond resetting.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Waits until the kernel reports an error on the socket (EPOLLERR), which it does for a RST even
/// after the FIN was read and while nobody reads or writes.
pub(crate) async fn broken(stream: Arc<TcpStream>) -> Broken {
    loop {
        if let Err(error) = stream.ready(Interest::ERROR).await {
            return error.into();
        }
        match stream.take_error() {
            Ok(Some(error)) | Err(error) => return error.into(),
            // A note in the error queue: forget the readiness and wait for the next.
            Ok(None) => {
                let _ = stream.try_io(Interest::ERROR, || {
                    Err::<(), _>(io::Error::from(ErrorKind::WouldBlock))
                });
            }
        }
    }
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    async fn socket() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap());
        let (far, accepted) = tokio::join!(far, listener.accept());
        (Socket::new(accepted.unwrap().0), far.unwrap())
    }

    async fn read(socket: &mut Socket, limit: usize) -> Option<Bytes> {
        poll_fn(|cx| {
            ready!(socket.poll_readable(cx));
            socket.poll_read(cx, limit)
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn an_idle_socket_holds_no_buffer() {
        let (mut socket, mut far) = socket().await;
        far.write_all(b"hello").await.unwrap();
        assert_eq!(read(&mut socket, 1024).await.unwrap(), "hello");
        assert_eq!(socket.buffer.capacity(), 0);
        let much = 16 * LARGEST_BUFFER;
        let writer = tokio::spawn(async move { (far.write_all(&vec![0; much]).await, far) });
        let mut count = 0;
        while count < much {
            count += read(&mut socket, usize::MAX).await.unwrap().len();
        }
        let (written, _far) = writer.await.unwrap();
        written.unwrap();
        // Whoever forwards finds out by the read that there is nothing more, and asks no further.
        let idle = poll_fn(|cx| Poll::Ready(socket.poll_read(cx, 1024).is_pending()));
        assert!(idle.await);
        assert_eq!(socket.buffer.capacity(), 0);
    }

    #[tokio::test]
    async fn no_more_is_read_than_the_other_side_takes() {
        let (mut socket, mut far) = socket().await;
        far.write_all(b"hello").await.unwrap();
        assert_eq!(read(&mut socket, 2).await.unwrap(), "he");
        assert_eq!(read(&mut socket, 2).await.unwrap(), "ll");
        assert_eq!(read(&mut socket, 2).await.unwrap(), "o");
    }

    #[tokio::test]
    async fn buffers_grow_with_use() {
        let (mut socket, mut far) = socket().await;
        let writer = tokio::spawn(async move { far.write_all(&vec![0; 8 << 20]).await });
        let mut largest = 0;
        while let Some(bytes) = read(&mut socket, usize::MAX).await {
            largest = largest.max(bytes.len());
        }
        writer.await.unwrap().unwrap();
        assert!(largest > FIRST_BUFFER && largest <= LARGEST_BUFFER, "{largest}");
    }
}
