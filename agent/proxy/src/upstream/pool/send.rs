//! A request on its way: over which connection, and again over another where the first was dead.

use std::{error::Error, sync::Arc};

use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{Lent, Pool, Version, http2::Stream, opening::Via};
use crate::upstream::{Body, SendError, in_http1, in_http2, limits::Held};

/// How often a connection may turn out to be dead before anything was written to it.
const ROUNDS: usize = 8;

/// What a request counts in until its answer was read.
pub(in crate::upstream) struct Sending {
    _request: Held,
    _stream: Option<Stream>,
}

/// How a request fared on one connection.
pub(super) enum Sent {
    Answer(Response<Incoming>, Option<Stream>),
    /// Nothing was written: it can be sent again as it is.
    Returned(Request<Body>),
    /// Some of it may have been read.
    Broken(hyper::Error),
}

impl Pool {
    /// Sends a request over an open or a new connection.
    pub(in crate::upstream) async fn send(
        self: &Arc<Self>,
        version: Version,
        via: Via<'_>,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, Sending), SendError> {
        let mut request = match version {
            Version::Http1 => in_http1(request),
            Version::Http2 => in_http2(request),
        };
        let mut replay = true;
        for _ in 0..ROUNDS {
            let lent = self.acquire(version, via).await?;
            let limit = &self.terms.limits.requests;
            let Some(held) = limit.take() else {
                self.terms.metrics.overflow(limit.name);
                return Err(SendError::Overflow(limit.name));
            };
            let again = if replay { lent.copy(&request) } else { None };
            let error = match lent.send(request).await {
                Sent::Answer(answer, stream) => {
                    return Ok((answer, Sending { _request: held, _stream: stream }));
                }
                Sent::Returned(returned) => {
                    request = returned;
                    continue;
                }
                Sent::Broken(error) => error,
            };
            let Some(again) = again.filter(|_| was_closing(&error)) else {
                return Err(broken(&error));
            };
            // Others that lay idle as long are no better.
            self.drop_idle();
            replay = false;
            request = again;
        }
        let detail = "every connection was closed before it could be used".into();
        Err(SendError::Reset { sent: false, refused: false, detail })
    }
}

impl Lent {
    /// A copy of the request, if it may be sent twice should the peer turn out to have closed this
    /// connection, which was kept open. Over HTTP/1.1, only what changes nothing may (RFC 9110, section
    /// 9.2.2; RFC 9112, section 9.3.1); HTTP/2 says what was not processed.
    fn copy(&self, request: &Request<Body>) -> Option<Request<Body>> {
        let may_repeat = match self {
            Self::Http1(connection) => connection.is_reused() && request.method().is_idempotent(),
            Self::Http2(stream) => stream.is_reused(),
        };
        (may_repeat && request.body().is_end_stream()).then(|| copy(request))
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

/// A copy of a request without a body.
fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Whether the peer was closing the connection as it was used.
fn was_closing(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || in_http2_of(error).is_some_and(was_left_out)
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

fn in_http2_of(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Whether the peer has said goodbye without this stream: it was none of those that it would still serve.
fn was_left_out(error: &h2::Error) -> bool {
    error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}

fn detail(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
