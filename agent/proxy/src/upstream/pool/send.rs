//! A request on its way: over which connection, and again over another where the first was dead.

use std::{error::Error, sync::Arc};

use http::{Request, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{Lent, Pool, Version, http2::Stream, opening::Via};
use crate::upstream::{Body, SendError, in_http1, limits::Held};

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
            let again = if replay && lent.is_reused() { copy(&request) } else { None };
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
            let Some(again) = again.filter(|_| error.is_incomplete_message()) else {
                return Err(broken(&error));
            };
            // The peer has closed the connection as it was used; others that lay idle as long are no
            // better.
            self.drop_idle();
            replay = false;
            request = again;
        }
        let detail = "every connection was closed before it could be used".into();
        Err(SendError::Reset { sent: false, refused: false, detail })
    }
}

impl Lent {
    fn is_reused(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_reused(),
            // HTTP/2 says itself what was not processed.
            Self::Http2(_) => false,
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

/// A copy of a request that may be sent twice: one that changes nothing (RFC 9110, section 9.2.2) and has no
/// body. A client may send such a request again by itself when a connection that it kept open turns out
/// to be closed (RFC 9112, section 9.3.1).
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let again = request.method().is_idempotent() && request.body().is_end_stream();
    again.then(|| {
        let mut copy = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        copy
    })
}

/// A request as HTTP/2 writes it.
fn in_http2(mut request: Request<Body>) -> Request<Body> {
    *request.version_mut() = http::Version::HTTP_2;
    request
}

/// What is known about a request that got no answer.
fn broken(error: &hyper::Error) -> SendError {
    let refused = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    SendError::Reset {
        sent: true,
        refused: refused.is_some_and(was_refused),
        detail: detail(error).into(),
    }
}

/// Whether the peer says that it has not looked at the request: it refused the stream, or left it out
/// of those that it would still serve.
fn was_refused(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (reason == Some(h2::Reason::REFUSED_STREAM)
            || error.is_go_away() && reason == Some(h2::Reason::NO_ERROR))
}

fn detail(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
