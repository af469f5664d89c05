//! A request's body that may not be longer than so much.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::ext_authz::Kept;
use crate::{http::Happened, upstream::BodyError};

/// Breaks off when too much has come.
pub(super) struct Limited {
    body: Kept,
    left: u64,
    /// Too much has come.
    exceeded: Happened,
}

impl Limited {
    pub(super) fn new(body: Kept, most: u64, exceeded: &Happened) -> Self {
        Self { body, left: most, exceeded: exceeded.clone() }
    }
}

impl Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(left) = self.left.checked_sub(length) else {
            self.exceeded.note();
            return Poll::Ready(Some(Err("the body is too long".into())));
        };
        self.left = left;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
