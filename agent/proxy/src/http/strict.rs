//! What a client of HTTP sends, before hyper reads it: passed on as far as [`Framing`] has nothing
//! against it, and as long as a head that has begun is completed in time.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    blocks::Blocks,
    framing::{Framing, Step},
};
use crate::config::HeadLimits;

/// What hyper gets instead of a head that is refused: something that it answers with 400, too.
const NONSENSE: &[u8] = b"\0\r\n\r\n";
/// Bytes that are read at once where they have to be looked at.
const READ: usize = 8 << 10;

/// What the endpoint made of a request that wanted to be the last of its connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch(Arc<Decision>);

#[derive(Debug, Default)]
struct Decision {
    /// The newest one that nobody has heard of.
    now: AtomicU8,
    /// One of them was that the connection stays what it is.
    stayed: AtomicBool,
}

const SWITCHED: u8 = 1;
const STAYED: u8 = 2;

impl Switch {
    /// It has been answered: the connection has become something else, or has not.
    pub(crate) fn decide(&self, switched: bool) {
        if !switched {
            self.0.stayed.store(true, Ordering::Relaxed);
        }
        self.0.now.store(if switched { SWITCHED } else { STAYED }, Ordering::Release);
    }

    /// Whether an upgrade was asked for in vain. hyper then takes the end of the connection for the
    /// upgrade's, and drops it without shutting it down.
    pub(crate) fn has_stayed(&self) -> bool {
        self.0.stayed.load(Ordering::Relaxed)
    }

    fn take(&self) -> Option<bool> {
        match self.0.now.swap(0, Ordering::AcqRel) {
            SWITCHED => Some(true),
            STAYED => Some(false),
            _ => None,
        }
    }
}

/// A client's stream that is read strictly.
pub(crate) struct Strict<S> {
    stream: S,
    /// Follows HTTP/2 instead.
    blocks: Option<Blocks>,
    /// How long a head may take from its first byte to its last, if that is limited.
    limit: Option<Duration>,
    late: Option<Pin<Box<Sleep>>>,
    framing: Framing,
    switch: Switch,
    /// Read, and not yet looked at to the end.
    held: BytesMut,
    /// How many of them may pass.
    good: usize,
    ended: bool,
    refused: bool,
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// Reads HTTP/1.
    pub(crate) fn new(stream: S, switch: Switch, limits: HeadLimits) -> Self {
        Self {
            stream,
            blocks: None,
            limit: None,
            late: None,
            framing: Framing::new(limits),
            switch,
            held: BytesMut::new(),
            good: 0,
            ended: false,
            refused: false,
        }
    }

    /// Reads HTTP/2, which h2 is strict about: only the time is looked after here.
    pub(crate) fn http2(stream: S, limit: Duration) -> Self {
        let blocks = Some(Blocks::default());
        let unused = HeadLimits::default();
        Self { blocks, ..Self::new(stream, Switch::default(), unused).within(limit) }
    }

    /// Takes no longer for a head than this.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Fails once the client has owed the rest of a head for too long.
    fn poll_late(&mut self, cx: &mut Context<'_>, owing: bool) -> Poll<io::Result<()>> {
        let Some(limit) = self.limit.filter(|_| owing) else {
            self.late = None;
            return Poll::Pending;
        };
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head takes too long")))
    }

    fn poll_http2(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some(blocks) = &mut self.blocks else { return read };
        if blocks.passed(&buffer.filled()[before..]) {
            self.late = None;
        }
        if blocks.is_wrong() {
            let error = io::Error::new(io::ErrorKind::InvalidData, "no settings come first");
            return Poll::Ready(Err(error));
        }
        let owing = blocks.is_owing();
        if read.is_pending() { self.poll_late(cx, owing) } else { read }
    }

    /// Passes what may pass; `false` where there is nothing yet.
    fn pass(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<bool> {
        while self.good == 0 && !self.refused {
            if self.framing.is_undecided()
                && let Some(switched) = self.switch.take()
            {
                self.framing.decide(switched);
            }
            if self.held.is_empty() {
                break;
            }
            if let Some(unseen) = self.framing.unseen() {
                self.good = self.held.len().min(usize::try_from(unseen).unwrap_or(usize::MAX));
                self.framing.passed(self.good as u64);
                break;
            }
            match self.framing.look(&self.held) {
                Step::Pass(count) => {
                    self.good = count;
                    self.late = None;
                }
                Step::More => break,
                Step::Refuse(why) => self.refuse(why)?,
            }
        }
        let count = self.good.min(buffer.remaining());
        buffer.put_slice(&self.held[..count]);
        self.held.advance(count);
        self.good -= count;
        Ok(count > 0)
    }

    /// A head is answered; in the middle of a request it is too late for that.
    fn refuse(&mut self, why: &'static str) -> io::Result<()> {
        tracing::debug!(why, "a request was refused");
        self.refused = true;
        if !self.framing.is_between_requests() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        self.held = BytesMut::from(NONSENSE);
        self.good = self.held.len();
        Ok(())
    }

    /// Reads what need not be looked at, straight to where it goes.
    fn poll_unseen(
        &mut self,
        cx: &mut Context<'_>,
        unseen: u64,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = usize::try_from(unseen).unwrap_or(usize::MAX).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        self.framing.passed(count as u64);
        Poll::Ready(Ok(()))
    }

    /// Reads what has to be looked at.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.held.len();
        let mut room = [const { MaybeUninit::uninit() }; READ];
        let mut room = ReadBuf::uninit(&mut room);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut room);
        self.held.extend_from_slice(room.filled());
        if self.held.is_empty() {
            // Idle connections hold no buffer.
            self.held = BytesMut::new();
        }
        if read.is_pending() {
            return self.poll_late(cx, self.framing.is_between_requests() && before > 0);
        }
        ready!(read)?;
        self.ended = room.filled().is_empty();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.blocks.is_some() {
            return this.poll_http2(cx, buffer);
        }
        let mut passed = false;
        loop {
            if buffer.remaining() > 0 && this.pass(buffer)? {
                passed = true;
                continue;
            }
            if passed || buffer.remaining() == 0 || this.refused {
                return Poll::Ready(Ok(()));
            }
            // What has come may be requests that nobody has looked at.
            if this.ended && this.framing.is_undecided() && !this.held.is_empty() {
                return Poll::Pending;
            }
            if this.ended {
                // What is left is no whole head or chunk; hyper says what that means.
                this.good = this.held.len();
                if this.good == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            if let Some(unseen) = this.framing.unseen() {
                return this.poll_unseen(cx, unseen, buffer);
            }
            // Whoever decides wakes the connection by answering.
            if this.framing.is_undecided() && this.held.len() > this.framing.max_head() {
                return Poll::Pending;
            }
            ready!(this.poll_fill(cx))?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// What is there to read, in pieces of two bytes; and whether there may be more.
    fn read(strict: &mut Strict<impl AsyncRead + Unpin>) -> (Vec<u8>, bool) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = Vec::new();
        loop {
            let mut room = [0; 2];
            let mut buffer = ReadBuf::new(&mut room);
            match Pin::new(&mut *strict).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    read.extend_from_slice(buffer.filled());
                }
                polled => return (read, polled.is_pending()),
            }
        }
    }

    #[test]
    fn after_a_refusal_nothing_is_looked_at() {
        let text = AsyncReadExt::chain(
            &b"GET / HTTP/1.1\r\nHost: a"[..],
            &b"\n\nGET / HTTP/1.1\r\n\r\n"[..],
        );
        let mut strict = Strict::new(text, Switch::default(), HeadLimits::default());
        assert_eq!(read(&mut strict), (NONSENSE.to_vec(), false));
        assert_eq!(read(&mut strict), (Vec::new(), false));
    }

    #[test]
    fn what_has_no_end_passes_as_it_is() {
        let beginning = &b"GET / HTTP/1.1\r\nHost: a\r\nX"[..];
        let chunk = &b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x"[..];
        for text in [beginning, chunk, b"\r"] {
            let mut strict = Strict::new(text, Switch::default(), HeadLimits::default());
            assert_eq!(read(&mut strict), (text.to_vec(), false));
            assert_eq!(read(&mut strict), (Vec::new(), false));
        }
    }

    #[test]
    fn what_follows_a_wish_to_switch_waits_for_the_answer_to_it() {
        let wish = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
        let rest = b"GET / HTTP/1.1\nHost: b\n\n";
        for (switched, passed) in [(false, NONSENSE), (true, &rest[..])] {
            // The client has said all that it has to say.
            let text = AsyncReadExt::chain(&wish[..], &rest[..]);
            let switch = Switch::default();
            let mut strict = Strict::new(text, switch.clone(), HeadLimits::default());
            assert_eq!(read(&mut strict), (wish.to_vec(), true));
            switch.decide(switched);
            assert_eq!(read(&mut strict), (passed.to_vec(), false));
        }
    }
}
