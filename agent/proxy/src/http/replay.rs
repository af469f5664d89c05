//! The body of a request, sent once or several times: what has been sent is kept while it may be
//! needed again, up to a bound, and copies go to mirrors as it passes.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{body::cleaned, deadline::Arrived, meter::Upload, patient::Patient};
use crate::upstream::BodyError;

/// Most that is kept of a body, so that the request can be sent again; longer ones are sent once.
pub(crate) const MAX_KEPT: usize = 64 << 10;

/// A request's body, of which there can be several senders, one after the other.
#[derive(Clone)]
pub(crate) struct Replay(Arc<Mutex<State>>);

struct State {
    source: Option<Patient>,
    /// What the source has given, as long as [`Self::keep`].
    kept: Vec<Frame<Bytes>>,
    kept_bytes: usize,
    keep: bool,
    /// Some of what was given is not kept.
    lost: bool,
    /// The source has no more.
    ended: bool,
    /// The source broke off: the client is gone.
    broken: bool,
    /// Which sender may read from the source.
    sender: u64,
    upload: Upload,
    arrived: Arrived,
    copies: Vec<Copies>,
}

/// Takes copies of what passes, and nothing at its end; `false` to be given no more.
pub(crate) type Copies = Box<dyn FnMut(Option<&Frame<Bytes>>) -> bool + Send>;

impl Replay {
    /// `keep`: it may be sent more than once.
    pub(crate) fn new(
        (source, upload): (Patient, &Upload),
        keep: bool,
        arrived: Arrived,
        copies: Vec<Copies>,
    ) -> Self {
        let ended = source.is_end_stream();
        if ended {
            arrived.now();
        }
        let state = State {
            source: (!ended).then_some(source),
            kept: Vec::new(),
            kept_bytes: 0,
            keep,
            lost: false,
            ended,
            broken: false,
            sender: 0,
            upload: upload.clone(),
            arrived,
            copies: if ended { Vec::new() } else { copies },
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The body from its beginning. Earlier ones get no more of it.
    pub(crate) fn sender(&self) -> Sender {
        let mut state = self.lock();
        state.sender += 1;
        Sender { replay: self.clone(), number: state.sender, next: 0 }
    }

    /// Whether the request can still be sent from its beginning.
    pub(crate) fn can_repeat(&self) -> bool {
        let state = self.lock();
        !state.lost && !state.broken
    }

    /// Whether the client has broken off.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// No more senders will come: nothing has to be kept for them.
    pub(crate) fn last(&self) {
        let mut state = self.lock();
        state.keep = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let frame = match Pin::new(source).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match frame {
            Some(Ok(frame)) => {
                let frame = cleaned(frame);
                self.passes(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.broken = true;
                self.end();
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn passes(&mut self, frame: &Frame<Bytes>) {
        let size = frame.data_ref().map_or(0, Bytes::len);
        self.upload.see(frame);
        self.copies.retain_mut(|copy| copy(Some(frame)));
        if self.keep && self.kept_bytes + size <= MAX_KEPT {
            self.kept_bytes += size;
            self.kept.push(again(frame));
        } else {
            self.keep = false;
            self.lost = true;
        }
        if self.source.as_ref().is_some_and(Body::is_end_stream) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.source = None;
        for mut copy in self.copies.drain(..).filter(|_| !self.broken) {
            copy(None);
        }
        self.arrived.now();
    }
}

/// The same frame once more; bytes are shared.
fn again(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (None, trailers) => Frame::trailers(trailers.cloned().unwrap_or_default()),
    }
}

/// The body, for one attempt.
pub(crate) struct Sender {
    replay: Replay,
    number: u64,
    /// How many of the kept frames were sent.
    next: usize,
}

impl Body for Sender {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let replay = self.replay.clone();
        let mut state = replay.lock();
        if state.sender != self.number {
            return Poll::Ready(Some(Err("another attempt has taken over".into())));
        }
        if let Some(frame) = state.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(again(frame))));
        }
        if state.broken {
            return Poll::Ready(Some(Err("the client has broken off".into())));
        }
        let frame = state.poll_source(cx);
        self.next = state.kept.len();
        frame
    }

    fn is_end_stream(&self) -> bool {
        let state = self.replay.lock();
        state.ended && !state.broken && self.next >= state.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.replay.lock();
        let kept = state.kept.get(self.next..).unwrap_or_default();
        let kept: u64 = kept.iter().filter_map(|f| f.data_ref()).map(|d| d.len() as u64).sum();
        let rest = state.source.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept);
        }
        hint
    }
}
