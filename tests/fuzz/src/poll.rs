//! Runs a future without a runtime, and a stream that is a list of bytes: nothing ever waits for
//! anything outside, so a future that nobody wakes has stopped for ever.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::source::Pieces;

/// Polls that suffice for every input.
const ENOUGH: usize = 1 << 20;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The future's end; `None` where it has stopped for ever.
pub(crate) fn run<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut cx = Context::from_waker(&waker);
    for _ in 0..ENOUGH {
        flag.0.store(false, Ordering::Relaxed);
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return Some(output),
            Poll::Pending if flag.0.load(Ordering::Relaxed) => {}
            Poll::Pending => return None,
        }
    }
    panic!("it goes on for ever");
}

/// What a peer has sent; what it is sent is thrown away.
pub(crate) struct Wire {
    bytes: Vec<u8>,
    at: usize,
    /// It has closed its half then.
    ends: bool,
    pieces: Pieces,
}

impl Wire {
    pub(crate) fn new(bytes: &[u8], pieces: Pieces) -> Self {
        Self { bytes: bytes.to_vec(), at: 0, ends: true, pieces }
    }

    /// The same of a peer that may have more to say, and never does.
    pub(crate) fn endless(bytes: &[u8], pieces: Pieces) -> Self {
        Self { ends: false, ..Self::new(bytes, pieces) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.bytes[this.at..];
        if left.is_empty() && !this.ends {
            return Poll::Pending;
        }
        let count = this.pieces.length().min(left.len()).min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        this.at += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
