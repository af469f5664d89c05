//! The body of a request that its client has announced and has to send: one that stands still is broken off.
//!
//! Only a body with a length is looked after. One without is a stream, which may wait for as long as it likes.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use crate::upstream::BodyError;

/// A client's body.
pub(crate) struct Patient<B = Incoming> {
    body: B,
    /// How long the next piece may take; `None` for as long as it likes.
    limit: Option<Duration>,
    /// Runs while there is nothing to read.
    waiting: Option<Pin<Box<Sleep>>>,
    stalled: Happened,
}

/// Whether something has happened to a body, for whoever no longer has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Happened(Arc<AtomicBool>);

impl Happened {
    pub(crate) fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_true(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<B: Body> Patient<B> {
    /// `limit`: the longest time between two pieces; zero for any.
    pub(crate) fn new(body: B, limit: Duration) -> Self {
        let announced = body.size_hint().exact().is_some();
        let limit = (announced && !limit.is_zero()).then_some(limit);
        Self { body, limit, waiting: None, stalled: Happened::default() }
    }

    /// Whether the client has let it stand still.
    pub(crate) fn stalled(&self) -> Happened {
        self.stalled.clone()
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(limit) = self.limit else { return false };
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        waiting.as_mut().poll(cx).is_ready()
    }
}

impl<B> Body for Patient<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = None;
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if this.is_late(cx) => {
                this.stalled.note();
                Poll::Ready(Some(Err("the body stands still".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Gives a piece each time that it may, and says how long it is.
    struct Slow {
        pieces: u32,
        every: Duration,
        length: Option<u64>,
        next: Pin<Box<Sleep>>,
    }

    impl Slow {
        fn new(pieces: u32, every: Duration, length: Option<u64>) -> Self {
            Self { pieces, every, length, next: Box::pin(sleep(every)) }
        }
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            if self.pieces == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.next.as_mut().poll(cx));
            self.pieces -= 1;
            self.next = Box::pin(sleep(self.every));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }

        fn size_hint(&self) -> SizeHint {
            self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
        }
    }

    /// Whether all of it came.
    async fn came(slow: Slow, limit: Duration) -> bool {
        let mut body = Patient::new(slow, limit);
        let stalled = body.stalled();
        loop {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => {
                    assert!(stalled.is_true());
                    return false;
                }
                None => return true,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_announced_body_that_stands_still_is_broken_off() {
        let second = Duration::from_secs(1);
        let (slow, fast) = (61 * second, 59 * second);
        for (every, length, limit, whole) in [
            (fast, Some(3), 60 * second, true),
            (slow, Some(3), 60 * second, false),
            (slow, None, 60 * second, true),
            (slow, Some(3), Duration::ZERO, true),
        ] {
            let came = came(Slow::new(3, every, length), limit).await;
            assert_eq!(came, whole, "{every:?} {length:?} {limit:?}");
        }
    }
}
