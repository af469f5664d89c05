//! The body of an answer, and everything that has to last until its end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    deadline::Deadline,
    head::clean_trailers,
    log::{ANSWERED, Flag, RequestLog, SERVER_RESET, TIMEOUT},
    replay::Replay,
};
use crate::upstream::{BodyError, Lease, LocalError, Outcome};

/// The body of an answer on its way to the client.
#[derive(Debug)]
pub(crate) struct AnswerBody {
    content: Content,
    until_end: Option<Box<UntilEnd>>,
}

#[derive(Debug)]
enum Content {
    /// Made here; `None` once it was given away.
    Local(Option<Bytes>),
    /// The endpoint's.
    Upstream(Incoming),
}

/// What an answer holds on to.
pub(crate) struct UntilEnd {
    /// What is known about the request.
    pub(crate) log: RequestLog,
    /// The endpoint's attempt, until it is known how it went.
    pub(crate) lease: Option<Lease>,
    /// When the answer has to be complete.
    pub(crate) deadline: Option<Deadline>,
    /// The request's body, which may still be on its way.
    #[expect(dead_code, reason = "is there while it lives")]
    pub(crate) replay: Option<Replay>,
}

impl std::fmt::Debug for UntilEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UntilEnd").finish_non_exhaustive()
    }
}

impl UntilEnd {
    /// Of an answer that nothing has to outlast but what is known about the request.
    pub(crate) fn of(log: RequestLog) -> Self {
        Self { log, lease: None, deadline: None, replay: None }
    }

    /// The answer is complete, or never will be.
    pub(crate) fn end(mut self, failure: Option<Flag>) {
        let late = failure.and(self.log.late.reason());
        let outcome = match (failure, self.log.grpc_status, self.log.status) {
            (Some(Flag::Timeout), ..) => Outcome::LocalError(LocalError::Timeout),
            (Some(_), ..) => Outcome::LocalError(LocalError::Reset),
            (None, Some(status), _) if self.log.grpc => Outcome::Grpc(status),
            (None, _, status) => Outcome::Status(status.unwrap_or(StatusCode::OK)),
        };
        match failure {
            None => self.log.because(ANSWERED, None),
            Some(Flag::Timeout) => self.log.because(TIMEOUT, failure),
            Some(flag) => self.log.broken(SERVER_RESET, flag),
        }
        // What a client has brought about says nothing of the endpoint.
        if let Some(lease) = self.lease.take().filter(|_| late.is_none()) {
            lease.finish(outcome);
        }
    }
}

impl AnswerBody {
    /// A body that is known as a whole.
    pub(crate) fn local(bytes: Bytes) -> Self {
        Self { content: Content::Local(Some(bytes)), until_end: None }
    }

    /// A body that the endpoint sends.
    pub(crate) fn upstream(body: Incoming) -> Self {
        Self { content: Content::Upstream(body), until_end: None }
    }

    /// Nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.content, Content::Local(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    /// Leaves out what was made here: an answer to HEAD has none, and over HTTP/2 nobody else sees to that.
    pub(crate) fn omit(&mut self) {
        if let Content::Local(bytes) = &mut self.content {
            *bytes = None;
        }
    }

    /// Keeps this until the end.
    pub(crate) fn hold(&mut self, until_end: UntilEnd) {
        self.until_end = Some(Box::new(until_end));
    }

    fn ended(&mut self, failure: Option<Flag>) {
        if let Some(until_end) = self.until_end.take() {
            until_end.end(failure);
        }
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(until_end) = &mut self.until_end else { return };
        until_end.log.download.see(frame);
        if let Some(trailers) = frame.trailers_ref() {
            until_end.log.grpc_status = grpc_status(trailers).or(until_end.log.grpc_status);
        }
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Local(bytes) => {
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Content::Upstream(body) => {
                let frame = Pin::new(body).poll_frame(cx);
                frame.map(|frame| frame.map(|frame| frame.map(cleaned).map_err(Into::into)))
            }
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let deadline = self.until_end.as_mut().and_then(|until_end| until_end.deadline.as_mut());
        deadline.is_some_and(|deadline| Pin::new(deadline).poll(cx).is_ready())
    }
}

/// A piece of a body as it may be passed on.
pub(crate) fn cleaned(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        clean_trailers(trailers);
    }
    frame
}

/// `grpc-status` of headers or trailers.
pub(crate) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.trim().parse().ok()
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = self.poll_content(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => self.note(frame),
            Poll::Ready(Some(Err(_))) => self.ended(Some(Flag::ConnectionTermination)),
            Poll::Ready(None) => self.ended(None),
            // The endpoint must not take longer than it may for all of its answer.
            Poll::Pending if self.is_late(cx) => {
                self.ended(Some(Flag::Timeout));
                return Poll::Ready(Some(Err("the answer took too long".into())));
            }
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Local(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Content::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Local(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Upstream(body) => body.size_hint(),
        }
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if self.until_end.is_none() {
            return;
        }
        if self.is_end_stream() {
            // Nobody asks a body for its end that says it has ended.
            self.ended(None);
        } else {
            // The log knows who has given up. The lease goes unfinished: it was not the endpoint.
            self.until_end = None;
        }
    }
}
