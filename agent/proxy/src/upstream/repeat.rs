//! A request that may be sent once more, because the connection that was kept open for it was being closed.
//!
//! Whoever keeps connections loses a race now and then: the peer closes one at the moment in which it is used
//! again. What the peer has not looked at, or what changes nothing when it is done twice, need not fail for that.

use std::{
    error::Error,
    io::{self, ErrorKind},
};

use http::{Request, Version};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};

use super::Body;

/// Whether a request may be sent twice. In HTTP/1.1 only what changes nothing may (RFC 9110, section 9.2.2; RFC 9112,
/// section 9.3.1); HTTP/2 says what was not processed. What has a body may not: it is on its way.
pub(crate) fn is_allowed(request: &Request<Body>) -> bool {
    let is_harmless = request.version() == Version::HTTP_2 || request.method().is_idempotent();
    is_harmless && request.body().is_end_stream()
}

/// The body of what is sent twice.
pub(crate) fn no_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A copy of a request, without a body.
pub(crate) fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(no_body());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Whether the peer was closing the connection as it was used. Its kernel answers what comes after that with a
/// reset, which may overtake the end.
pub(crate) fn was_closing(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || was_reset(error)
        || in_http2_of(error).is_some_and(was_left_out)
}

fn was_reset(error: &hyper::Error) -> bool {
    let error: Option<&io::Error> = error.source().and_then(|source| source.downcast_ref());
    let kind = error.map(io::Error::kind);
    matches!(kind, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// What HTTP/2 has to say about an error.
pub(super) fn in_http2_of(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Whether the peer has said goodbye without this stream: it was none of those that it would still serve.
pub(super) fn was_left_out(error: &h2::Error) -> bool {
    error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
}
