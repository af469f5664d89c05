//! What an open connection counts in, and the stream that it counts with.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Pool, Version};
use crate::upstream::{ByteStream, limits::Held, metrics::Raised};

/// A connection that is open or being opened, for as long as it lives.
pub(super) struct Slot {
    pool: Weak<Pool>,
    version: Version,
    held: Option<Held>,
    raised: Option<Raised>,
}

impl Slot {
    pub(super) fn new(pool: &Arc<Pool>, held: Held, version: Version) -> Self {
        let raised = Some(Raised::new(&pool.terms.metrics.connections));
        // Weak: what the pool keeps idle must not keep the pool.
        Self { pool: Arc::downgrade(pool), version, held: Some(held), raised }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn pool(&self) -> Weak<Pool> {
        Weak::clone(&self.pool)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Before those who wait are told.
        drop((self.held.take(), self.raised.take()));
        if let Some(pool) = self.pool.upgrade() {
            *pool.lock().open(self.version) -= 1;
            pool.serve();
        }
    }
}

/// A byte stream that counts as a connection wherever it goes: into a driver of its connection, or to
/// whoever the connection was upgraded for.
pub(super) struct Counted {
    stream: Box<dyn ByteStream>,
    _slot: Slot,
}

impl Counted {
    pub(super) fn new(stream: Box<dyn ByteStream>, slot: Slot) -> Self {
        Self { stream, _slot: slot }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
