//! A connection of the native wire: TLS, and frames in it. It carries one session at a time.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncBufRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use super::{
    decoder::{Decoded, Decoder},
    frame::{Control, FrameError, Kind, MAX_DATA, header},
    io::Io,
};

/// Most that is read at once: what four full TLS records carry.
const CHUNK: usize = 64 << 10;
/// A chunk of this size says that more will follow, and room is made for it.
const RECORD: usize = 16 << 10;
/// How long a peer may take to read the last frame on a connection.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it sends meanwhile is read and thrown away.
const LINGER_BYTES: usize = 4 << 20;

/// What a peer has sent.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Payload of DATA frames.
    Data(Bytes),
    Control(Control),
}

/// What one piece of TLS's bytes has brought.
enum Part {
    /// Perhaps some data, and the piece is used up.
    Data,
    /// As much data as was asked for, and more is there.
    Full,
    /// Perhaps some data, and then this.
    Control(Control),
}

/// How a connection broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// TCP or TLS.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer has closed it.
    #[error("the peer has closed the connection")]
    Closed,
}

impl WireError {
    /// The TLS error, where there is one.
    pub(crate) fn tls(&self) -> Option<&rustls::Error> {
        match self {
            Self::Io(error) => crate::observed::tls_error(error),
            _ => None,
        }
    }
}

/// One connection. Dropped in the middle of a session, it is reset, which resets the session.
pub(crate) struct Connection {
    /// Boxed: it is large, and tasks that hand it on have room for each of its places.
    tls: Box<TlsStream<Io>>,
    tcp: Arc<TcpStream>,
    decoder: Decoder,
    /// Came behind data that was taken first.
    ahead: Option<Result<Control, WireError>>,
    /// Room made for the next chunk; grows while chunks are full.
    room: usize,
    /// Sessions that were opened on it.
    pub(crate) sessions: u32,
    /// A session is open.
    pub(crate) in_session: bool,
}

impl Connection {
    /// Wraps a connection whose handshake is over.
    pub(crate) fn new(mut tls: TlsStream<Io>) -> Self {
        // One frame at a time is handed over, and only when the last has left.
        match &mut tls {
            TlsStream::Client(tls) => tls.get_mut().1.set_buffer_limit(None),
            TlsStream::Server(tls) => tls.get_mut().1.set_buffer_limit(None),
        }
        let tcp = Arc::clone(tls.get_ref().0.tcp());
        Self {
            tls: Box::new(tls),
            tcp,
            decoder: Decoder::default(),
            ahead: None,
            room: 0,
            sessions: 0,
            in_session: false,
        }
    }

    /// The socket.
    pub(crate) fn tcp(&self) -> &Arc<TcpStream> {
        &self.tcp
    }

    /// Ready when there is something to read. Costs no memory while there is not.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_some() || Pin::new(&mut self.tls).poll_fill_buf(cx).is_ready() {
            return Poll::Ready(());
        }
        self.room = 0;
        Poll::Pending
    }

    /// The next data, at most `limit` octets, or the next other frame.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Incoming, WireError>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(ahead.map(Incoming::Control));
        }
        let limit = limit.min(CHUNK);
        let mut data = BytesMut::new();
        let end = loop {
            if limit > 0 && data.len() >= limit {
                break None;
            }
            match self.poll_part(cx, &mut data, limit) {
                Poll::Ready(Ok(Part::Data)) => {}
                Poll::Ready(Ok(Part::Control(control))) => break Some(Ok(control)),
                Poll::Ready(Err(error)) => break Some(Err(error)),
                Poll::Pending if data.is_empty() => return Poll::Pending,
                Poll::Ready(Ok(Part::Full)) | Poll::Pending => break None,
            }
        };
        self.room = if data.len() >= RECORD { CHUNK } else { 0 };
        match end {
            Some(end) if data.is_empty() => Poll::Ready(end.map(Incoming::Control)),
            end => {
                self.ahead = end;
                Poll::Ready(Ok(Incoming::Data(data.freeze())))
            }
        }
    }

    /// Takes what TLS has in one piece.
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut BytesMut,
        limit: usize,
    ) -> Poll<Result<Part, WireError>> {
        let input = ready!(Pin::new(&mut self.tls).poll_fill_buf(cx))?;
        if input.is_empty() {
            return Poll::Ready(Err(WireError::Closed));
        }
        if data.capacity() == 0 {
            data.reserve(input.len().max(self.room).min(limit));
        }
        let offered = input.len();
        let Decoded { consumed, control } = self.decoder.decode(input, data, limit)?;
        Pin::new(&mut self.tls).consume(consumed);
        Poll::Ready(Ok(match control {
            Some(control) => Part::Control(control),
            None if consumed < offered => Part::Full,
            None => Part::Data,
        }))
    }

    /// Ready when everything that was sent has been handed to the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    /// Sends these parts together, once all before them have left.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let sent = ready!(Pin::new(&mut self.tls).poll_write_vectored(cx, parts))?;
        // TLS takes everything, having no limit; half a frame could not be mended.
        Poll::Ready(if sent == length { Ok(()) } else { Err(ErrorKind::WriteZero.into()) })
    }

    /// Sends one DATA frame with the beginning of `payload`; says how much.
    pub(crate) fn poll_send_data(
        &mut self,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<io::Result<usize>> {
        let part = payload.get(..MAX_DATA).unwrap_or(payload);
        let header = header(Kind::Data, part.len());
        ready!(self.poll_send(cx, &[IoSlice::new(&header), IoSlice::new(part)]))?;
        Poll::Ready(Ok(part.len()))
    }

    /// Sends a frame and waits until it has left.
    pub(crate) async fn send(&mut self, control: &Control) -> io::Result<()> {
        let frame = control.encode();
        let slices = [IoSlice::new(&frame)];
        std::future::poll_fn(|cx| self.poll_send(cx, &slices)).await?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// True while the peer has neither said nor ended anything since the last session.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.decoder.is_between_frames() && self.poll_readable(&mut cx).is_pending()
    }

    /// Says one last thing and closes. The peer gets the time to read it: to close with its bytes
    /// unread would reset the connection, and the reset may overtake what was said.
    pub(crate) async fn finish(mut self, last: &Control) {
        let farewell = async {
            self.send(last).await?;
            std::future::poll_fn(|cx| Pin::new(&mut self.tls).poll_shutdown(cx)).await?;
            let mut left = LINGER_BYTES;
            while left > 0 {
                self.tcp.readable().await?;
                // Here, so that it is on the stack while it is read into, and nowhere while it is waited.
                match self.tcp.try_read(&mut [0; 4096]) {
                    Ok(0) => return Ok(()),
                    Ok(count) => left = left.saturating_sub(count),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            Err(io::Error::from(ErrorKind::TimedOut))
        };
        // Who does not listen learns it from the kernel.
        let heard = tokio::time::timeout(LINGER, farewell).await;
        self.in_session = !matches!(heard, Ok(Ok(())));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.in_session {
            // Fails only for a socket that is beyond resetting.
            let _ = self.tcp.set_zero_linger();
        }
    }
}
