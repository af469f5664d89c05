//! A two-way byte stream as *forward* sees it: a TCP socket, TLS over one, a stream of a
//! tunnel, or a session of the native wire.
//!
//! The two halves close separately and either can break; both facts have to cross the proxy
//! exactly. Everything is polled from one task, so an idle connection costs one future and no
//! buffer.

mod reread;
mod socket;
mod stream;
mod tls_stream;
mod tunnel_stream;

use std::{
    io,
    task::{Context, Poll},
};

use bytes::Bytes;

pub(crate) use reread::{Reread, Unread};
pub(crate) use socket::{Socket, broken};
pub(crate) use stream::Stream;
pub(crate) use tls_stream::TlsStream;
pub(crate) use tunnel_stream::TunnelStream;

/// A stream of bytes in each direction, with back-pressure and resets.
pub(crate) trait Duplex {
    /// Ready when [`Self::poll_read`] is worth calling. Costs no memory while it is not.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// The next bytes, at most `limit` where the stream has a choice; `None` when the other side
    /// has closed its half.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>>;

    /// Ready with the number of bytes that can be taken without queueing more than the bound.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>>;

    /// Gives back what [`Self::poll_capacity`] reserved and nobody used.
    fn release_capacity(&mut self);

    /// Takes a prefix of `bytes`; ready when at least one byte was taken.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>>;

    /// Says that `count` bytes which [`Self::poll_read`] gave have left the proxy.
    fn consumed(&mut self, count: usize);

    /// Passes on what was taken. Asked for when there is nothing more to take for the moment; ready
    /// when nothing is left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// Closes the half that [`Self::poll_write`] writes to; ready when that has left.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;

    /// Ready when the stream broke, even though nobody reads from it at the moment.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;

    /// Says that the stream has ended as it should. A stream that is dropped without this is
    /// reset, so that no error path can make a break look like an orderly end.
    fn ended(&mut self);
}

/// How a stream ended other than by closing both halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The other side reset it.
    Reset,
    /// The other side has said everything and listens no more (RST_STREAM with NO_ERROR).
    Gone,
    /// The tunnel under the stream was lost.
    TunnelLost,
    /// The other side stopped answering.
    TimedOut,
    /// Anything else that the kernel says.
    Io(io::ErrorKind),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // After a FIN of its own, a peer's RST is reported as EPIPE.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut => Self::TimedOut,
            kind => Self::Io(kind),
        }
    }
}
