//! A request's body of which the beginning is kept while an authorizer looks at it.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use ::http::StatusCode;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use undermesh_model::CheckedBody;

use super::places::Room;
use crate::{
    http::{LocalReply, Metered},
    upstream::BodyError,
};

/// A client that takes longer for what an authorizer is to see is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was read of a body, and the rest.
pub(in crate::guard) struct Kept<B = Metered> {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    rest: Option<B>,
    room: Room,
}

impl<B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin> Kept<B> {
    pub(super) fn new(body: B) -> Self {
        let rest = (!body.is_end_stream()).then_some(body);
        Self { frames: VecDeque::new(), bytes: 0, rest, room: Room::default() }
    }

    /// The part that an authorizer is shown, and whether there is more.
    pub(super) async fn show(&mut self, rule: &CheckedBody) -> Result<(Bytes, bool), LocalReply> {
        let declared = self.rest.as_ref().map_or(0, |rest| rest.size_hint().lower());
        if !rule.partial && declared > rule.max_bytes as u64 {
            return Err(too_large());
        }
        let read = tokio::time::timeout(PATIENCE, self.read(rule.max_bytes)).await;
        read.unwrap_or_else(|_| Err(late()))?;
        let more = self.bytes > rule.max_bytes;
        if more && !rule.partial {
            return Err(too_large());
        }
        Ok((self.beginning(rule.max_bytes), more))
    }

    /// Reads until there is more than so many bytes, or no more at all.
    async fn read(&mut self, most: usize) -> Result<(), LocalReply> {
        while self.bytes <= most
            && let Some(rest) = &mut self.rest
        {
            match rest.frame().await {
                None => self.rest = None,
                Some(Err(_)) => return Err(LocalReply::client_gone()),
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    if !self.room.grow(length) {
                        let detail = "too many bodies wait for authorizers already";
                        return Err(reply(StatusCode::SERVICE_UNAVAILABLE, detail));
                    }
                    self.bytes += length;
                    self.frames.push_back(frame);
                }
            }
        }
        Ok(())
    }

    fn beginning(&self, most: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.bytes.min(most));
        for data in self.frames.iter().filter_map(Frame::data_ref) {
            let room = most - bytes.len();
            bytes.extend_from_slice(&data[..room.min(data.len())]);
        }
        bytes.freeze()
    }
}

fn too_large() -> LocalReply {
    reply(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than its authorizer may be shown")
}

fn late() -> LocalReply {
    reply(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time for its authorizer")
}

fn reply(status: StatusCode, detail: &str) -> LocalReply {
    let detail = Some(detail.to_owned());
    LocalReply { detail, ..LocalReply::new(status, "body_not_shown") }
}

impl<B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin> http_body::Body for Kept<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        Pin::new(rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), http_body::Body::size_hint);
        let kept = self.bytes as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(kept));
        }
        hint
    }
}
