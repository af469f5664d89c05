//! A stream of an HTTP/2 tunnel as a [`Duplex`].

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::{Broken, Duplex};

/// Most that one DATA frame carries and one read of the other side's socket asks for.
const CHUNK: usize = 128 << 10;

/// Both halves of an established CONNECT stream. `G` is whatever has to live as long as the
/// stream: the permit that counts it, for streams of a pooled tunnel.
pub(crate) struct TunnelStream<G> {
    send: SendStream<Bytes>,
    recv: RecvStream,
    recv_ended: bool,
    /// Bytes that may be sent without asking again.
    granted: usize,
    /// A part of the tunnel's window is set aside for this stream.
    reserved: bool,
    ended: bool,
    _guard: G,
}

impl<G> TunnelStream<G> {
    /// Joins the halves of a stream whose request was answered with 200.
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream, guard: G) -> Self {
        Self {
            send,
            recv,
            recv_ended: false,
            granted: 0,
            reserved: false,
            ended: false,
            _guard: guard,
        }
    }

    /// What a RST_STREAM means. NO_ERROR after END_STREAM is how HTTP/2 says "answered in full,
    /// not interested in the rest" (RFC 9113, section 8.1).
    fn reset_by(&self, reason: Reason) -> Broken {
        if reason == Reason::NO_ERROR && self.recv_ended { Broken::Gone } else { Broken::Reset }
    }

    fn broken_by(&self, error: &h2::Error) -> Broken {
        match error.reason() {
            Some(reason) if error.is_reset() => self.reset_by(reason),
            _ => Broken::TunnelLost,
        }
    }

    /// The reason why a half of the stream is closed although this side did not close it.
    fn cause(&mut self, cx: &mut Context<'_>) -> Broken {
        match self.poll_broken(cx) {
            Poll::Ready(cause) => cause,
            Poll::Pending => Broken::TunnelLost,
        }
    }
}

impl<G> Duplex for TunnelStream<G> {
    /// The frames are in memory already; asking for them is as cheap as asking about them.
    fn poll_readable(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        _limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        loop {
            return Poll::Ready(match ready!(self.recv.poll_data(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) => Ok(Some(bytes)),
                Some(Err(error)) => Err(self.broken_by(&error)),
                None => {
                    self.recv_ended = true;
                    Ok(None)
                }
            });
        }
    }

    /// Reserves only now that there is something to send: capacity comes out of a window that
    /// all streams of the tunnel share, and an idle stream must not sit on a part of it.
    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.send.reserve_capacity(CHUNK);
        self.reserved = true;
        loop {
            let capacity = self.send.capacity();
            if capacity > 0 {
                self.granted = capacity.min(CHUNK);
                return Poll::Ready(Ok(self.granted));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(self.cause(cx))),
            }
        }
    }

    fn release_capacity(&mut self) {
        self.granted = 0;
        if std::mem::take(&mut self.reserved) {
            self.send.reserve_capacity(0);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        if self.granted == 0 {
            ready!(self.poll_capacity(cx))?;
        }
        let part = bytes.split_to(self.granted.min(bytes.len()));
        self.granted -= part.len();
        let sent = self.send.send_data(part, false);
        Poll::Ready(sent.map_err(|_| self.cause(cx)))
    }

    /// Opens the peer's window by as much as has reached the socket, no sooner: this is the
    /// back-pressure of the slow reader.
    fn consumed(&mut self, count: usize) {
        // Fails only after the stream has ended, when nobody needs the window.
        let _ = self.recv.flow_control().release_capacity(count);
    }

    /// Whoever drives the tunnel does it.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let sent = self.send.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(|error| self.broken_by(&error)))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        Poll::Ready(match ready!(self.send.poll_reset(cx)) {
            Ok(reason) => self.reset_by(reason),
            Err(error) => self.broken_by(&error),
        })
    }

    fn ended(&mut self) {
        self.ended = true;
    }
}

impl<G> Drop for TunnelStream<G> {
    /// CONNECT_ERROR is what RFC 9113, section 8.5, prescribes for a connection that was reset;
    /// ztunnel would take CANCEL for an orderly end.
    fn drop(&mut self) {
        if !self.ended {
            self.send.send_reset(Reason::CONNECT_ERROR);
        }
    }
}
