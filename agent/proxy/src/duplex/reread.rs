//! A stream whose first bytes were looked at and given back.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{Broken, Duplex, Socket};

/// A stream that takes back what was read from it.
pub(crate) trait Unread: Duplex {
    /// Gives back all that was read, for somebody else to read.
    fn unread(&mut self, bytes: Bytes);
}

impl Unread for Socket {
    fn unread(&mut self, bytes: Bytes) {
        Self::unread(self, bytes);
    }
}

/// Any stream, with that ability.
pub(crate) struct Reread<D> {
    duplex: D,
    unread: Bytes,
}

impl<D> Reread<D> {
    pub(crate) fn new(duplex: D) -> Self {
        Self { duplex, unread: Bytes::new() }
    }

    /// The stream itself.
    pub(crate) fn into_inner(self) -> D {
        self.duplex
    }
}

impl<D: Duplex> Unread for Reread<D> {
    fn unread(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.unread = bytes;
        }
    }
}

impl<D: Duplex> Duplex for Reread<D> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread.is_empty() { self.duplex.poll_readable(cx) } else { Poll::Ready(()) }
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        if self.unread.is_empty() {
            return self.duplex.poll_read(cx, limit);
        }
        let count = self.unread.len().min(limit);
        Poll::Ready(Ok(Some(self.unread.split_to(count))))
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.duplex.poll_capacity(cx)
    }

    fn release_capacity(&mut self) {
        self.duplex.release_capacity();
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.duplex.poll_write(cx, bytes)
    }

    fn consumed(&mut self, count: usize) {
        self.duplex.consumed(count);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.duplex.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.duplex.poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.duplex.poll_broken(cx)
    }

    fn ended(&mut self) {
        self.duplex.ended();
    }
}
