//! A request on its way: over which connection, and again over another where the first was dead.

use std::{error::Error, sync::Arc};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{Lent, Pool, Version, http1::Taken, http2::Stream, opening::Via};
use crate::upstream::{
    Body, SendError, in_http1, in_http2,
    limits::Held,
    repeat::{self, in_http2_of, was_closing, was_left_out},
};

/// How often a connection may turn out to be dead before anything was written to it.
const ROUNDS: usize = 8;

/// What a request counts in until its answer was read.
pub(in crate::upstream) struct Sending {
    _request: Held,
    _serving: Serving,
}

/// What carries a request until its answer was read.
pub(super) enum Serving {
    Http1(#[expect(dead_code, reason = "is given back when it is dropped")] Taken),
    Http2(#[expect(dead_code, reason = "counts while it lives")] Stream),
}

/// How a request fared on one connection.
pub(super) enum Sent {
    Answer(Response<Incoming>, Serving),
    /// Nothing was written: it can be sent again as it is.
    Returned(Request<Body>),
    /// Some of it may have been read.
    Broken(hyper::Error),
}

impl Pool {
    /// Sends a request over an open or a new connection. `again` makes it anew, without a body, if it may be sent twice
    /// and the peer turns out to have closed the connection.
    pub(in crate::upstream) async fn send(
        self: &Arc<Self>,
        version: Version,
        via: Via<'_>,
        request: Request<Body>,
        again: impl FnOnce() -> Request<Body>,
    ) -> Result<(Response<Incoming>, Sending), SendError> {
        let mut request = version.write(request);
        let mut again = Some(again);
        for _ in 0..ROUNDS {
            let lent = self.acquire(version, via).await?;
            let limit = &self.terms.limits.requests;
            let Some(held) = limit.take() else {
                self.terms.metrics.overflow(limit.name);
                return Err(SendError::Overflow(limit.name));
            };
            let may_repeat = lent.is_reused() && repeat::is_allowed(&request);
            let error = match lent.send(request).await {
                Sent::Answer(answer, serving) => {
                    return Ok((answer, Sending { _request: held, _serving: serving }));
                }
                Sent::Returned(returned) => {
                    request = returned;
                    continue;
                }
                Sent::Broken(error) => error,
            };
            let again = again.take().filter(|_| may_repeat && was_closing(&error));
            let Some(again) = again else { return Err(broken(&error)) };
            // Others that lay idle as long are no better.
            self.drop_idle();
            request = version.write(again());
        }
        let detail = "every connection was closed before it could be used".into();
        Err(SendError::Reset { sent: false, refused: false, detail })
    }
}

impl Version {
    /// A request as this version writes it.
    fn write(self, request: Request<Body>) -> Request<Body> {
        match self {
            Self::Http1 => in_http1(request),
            Self::Http2 => in_http2(request),
        }
    }
}

impl Lent {
    /// Whether it was kept open after another request: the peer may be closing it.
    fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_reused(),
            Self::Http2(stream) => stream.is_reused(),
        }
    }

    async fn send(self, request: Request<Body>) -> Sent {
        match self {
            Self::Http1(connection) => connection.send(request).await,
            Self::Http2(stream) => stream.send(request).await,
        }
    }
}

impl From<TrySendError<Request<Body>>> for Sent {
    fn from(mut error: TrySendError<Request<Body>>) -> Self {
        match error.take_message() {
            Some(request) => Self::Returned(request),
            None => Self::Broken(error.into_error()),
        }
    }
}

/// What is known about a request that got no answer.
fn broken(error: &hyper::Error) -> SendError {
    let is_refusal = |error: &h2::Error| {
        was_left_out(error)
            || error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
    };
    SendError::Reset {
        sent: true,
        refused: in_http2_of(error).is_some_and(is_refusal),
        detail: detail(error).into(),
    }
}

fn detail(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
