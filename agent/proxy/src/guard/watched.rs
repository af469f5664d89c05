//! A client's stream that somebody watches while nobody reads from it: hyper does not look at one that it neither
//! reads nor writes, and a request that waits for an authorizer would go on waiting for a client that has gone.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;

use crate::duplex::{Broken, Duplex};

/// The stream, for whoever reads and writes.
pub(super) struct Watched<D>(Arc<Mutex<D>>);

/// The stream, for whoever waits for its end. Both have to be polled by the same task.
pub(super) struct Watch<D>(Weak<Mutex<D>>);

impl<D> Watched<D> {
    pub(super) fn new(stream: D) -> (Self, Watch<D>) {
        let stream = Arc::new(Mutex::new(stream));
        let watch = Watch(Arc::downgrade(&stream));
        (Self(stream), watch)
    }

    /// The stream itself, unless it is being looked at.
    pub(super) fn into_inner(self) -> Option<D> {
        let stream = Arc::into_inner(self.0)?;
        Some(stream.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock(&self) -> MutexGuard<'_, D> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Duplex> Watch<D> {
    /// Returns when the stream is broken; never where it has ended in order.
    pub(super) async fn broken(&self) {
        poll_fn(|cx| match self.0.upgrade() {
            Some(stream) => {
                let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
                stream.poll_broken(cx).map(drop)
            }
            None => Poll::Pending,
        })
        .await;
    }
}

impl<D: Duplex> Duplex for Watched<D> {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.lock().poll_readable(cx)
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        limit: usize,
    ) -> Poll<Result<Option<Bytes>, Broken>> {
        self.lock().poll_read(cx, limit)
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        self.lock().poll_capacity(cx)
    }

    fn release_capacity(&mut self) {
        self.lock().release_capacity();
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.lock().poll_write(cx, bytes)
    }

    fn consumed(&mut self, count: usize) {
        self.lock().consumed(count);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.lock().poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.lock().poll_finish(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.lock().poll_broken(cx)
    }

    fn ended(&mut self) {
        self.lock().ended();
    }
}
