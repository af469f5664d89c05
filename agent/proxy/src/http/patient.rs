//! The body of a request that its client has announced and has to send: one that stands still, or comes too slowly,
//! is broken off. Only time counts that is spent waiting for the client: nobody is blamed for an endpoint that does not
//! read.
//!
//! Only a body with a length is looked after. One without is a stream, which may wait for as long as it likes.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::local_reply::LocalReply;
use crate::{config::ProxyConfig, upstream::BodyError};

/// How a client's body has to come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// How long the next piece may take; `None` for as long as it likes.
    idle: Option<Duration>,
    rate: Option<Rate>,
}

/// Bytes that have to come in the time that is spent waiting for them.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// At least so many in each window.
    bytes: u64,
    window: Duration,
}

/// Why a body was broken off, for whoever no longer has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late(Arc<AtomicU8>);

const STALLED: u8 = 1;
const TOO_SLOW: u8 = 2;

/// A client's body.
pub(crate) struct Patient<B = Incoming> {
    body: B,
    pace: Pace,
    /// While there is nothing to read.
    waiting: Option<Waiting>,
    /// What has come, and was waited for, since the window began.
    came: u64,
    waited: Duration,
    late: Late,
}

struct Waiting {
    since: Instant,
    /// Runs until one of the limits is reached.
    timer: Pin<Box<Sleep>>,
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

impl Pace {
    /// As it is configured.
    pub(crate) fn of(config: &ProxyConfig) -> Self {
        let window = config.body_rate_window;
        let bytes = u128::from(config.body_min_rate) * window.as_millis() / 1000;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Self {
            idle: Some(config.body_idle_timeout).filter(|idle| !idle.is_zero()),
            rate: (bytes > 0).then_some(Rate { bytes, window }),
        }
    }

    /// How much longer may be waited, of which so much has passed.
    fn left(&self, waited: Duration) -> Option<Duration> {
        let rate = self.rate.map(|rate| rate.window.saturating_sub(waited));
        self.idle.into_iter().chain(rate).min()
    }
}

impl Late {
    fn note(&self, why: u8) {
        self.0.store(why, Ordering::Release);
    }

    /// The reason code, if it was broken off.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Acquire) {
            STALLED => Some("body_stalled"),
            TOO_SLOW => Some("body_too_slow"),
            _ => None,
        }
    }

    /// What the client hears, if it was broken off.
    pub(crate) fn reply(&self) -> Option<LocalReply> {
        self.reason().map(LocalReply::late)
    }
}

impl<B: Body> Patient<B> {
    /// `late` hears of it if the body is broken off.
    pub(crate) fn new(body: B, pace: Pace, late: &Late) -> Self {
        let announced = body.size_hint().exact().is_some();
        let pace = if announced { pace } else { Pace::default() };
        let (came, waited) = (0, Duration::ZERO);
        Self { body, pace, waiting: None, came, waited, late: late.clone() }
    }

    /// Whether the client has broken what was agreed on, if not now, then when the timer wakes us.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let Some(left) = self.pace.left(self.waited) else { return false };
            let waiting = self.waiting.get_or_insert_with(|| Waiting {
                since: Instant::now(),
                timer: Box::pin(sleep(left)),
            });
            if waiting.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let now = waiting.since.elapsed();
            if self.pace.idle.is_some_and(|idle| now >= idle) {
                self.late.note(STALLED);
                return true;
            }
            self.waited += now;
            self.waiting = None;
            if self.pace.rate.is_some_and(|rate| self.came < rate.bytes) {
                self.late.note(TOO_SLOW);
                return true;
            }
            // The next window.
            (self.came, self.waited) = (0, Duration::ZERO);
        }
    }

    fn see(&mut self, bytes: usize) {
        self.came = self.came.saturating_add(bytes as u64);
        if let Some(waiting) = self.waiting.take() {
            self.waited += waiting.since.elapsed();
        }
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
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                this.see(data.map_or(0, Bytes::len));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if this.is_late(cx) => {
                Poll::Ready(Some(Err("the client takes too long for its body".into())))
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
    async fn came(slow: Slow, config: ProxyConfig) -> Result<(), Option<&'static str>> {
        let late = Late::default();
        let mut body = Patient::new(slow, Pace::of(&config), &late);
        loop {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return Err(late.reason()),
                None => return Ok(()),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_announced_body_that_stands_still_is_broken_off() {
        let second = Duration::from_secs(1);
        let (slow, fast) = (61 * second, 59 * second);
        for (every, length, limit, whole) in [
            (fast, Some(3), 60 * second, Ok(())),
            (slow, Some(3), 60 * second, Err(Some("body_stalled"))),
            (slow, None, 60 * second, Ok(())),
            (slow, Some(3), Duration::ZERO, Ok(())),
        ] {
            let config = ProxyConfig { body_idle_timeout: limit, ..ProxyConfig::default() };
            let came = came(Slow::new(3, every, length), config).await;
            assert_eq!(came, whole, "{every:?} {length:?} {limit:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_body_has_to_come_fast_enough() {
        let millis = Duration::from_millis;
        // A byte at a time.
        for (every, length, rate, whole) in [
            (millis(90), Some(1000), 10, Ok(())),
            (millis(110), Some(1000), 10, Err(Some("body_too_slow"))),
            // Longer than a window.
            (millis(6000), Some(1000), 1, Err(Some("body_too_slow"))),
            (millis(110), None, 10, Ok(())),
            (millis(110), Some(1000), 0, Ok(())),
        ] {
            let config = ProxyConfig {
                body_min_rate: rate,
                body_rate_window: Duration::from_secs(5),
                ..ProxyConfig::default()
            };
            let came = came(Slow::new(1000, every, length), config).await;
            assert_eq!(came, whole, "{every:?} {length:?} {rate}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_blamed_for_who_does_not_read() {
        let window = Duration::from_secs(5);
        let config =
            ProxyConfig { body_min_rate: 1, body_rate_window: window, ..ProxyConfig::default() };
        let late = Late::default();
        let slow = Slow::new(100, Duration::from_millis(1), Some(100));
        let mut body = Patient::new(slow, Pace::of(&config), &late);
        for _ in 0..100 {
            sleep(window * 2).await;
            poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
        }
        assert_eq!(late.reason(), None);
    }
}
