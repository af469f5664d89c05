//! Answers that the proxy gives itself: the one place that turns a decision or a failure into a
//! response.
//!
//! Statuses, bodies and response flags are those of Envoy, which applications and dashboards know. A
//! gRPC client gets a gRPC status instead, because it would not understand the other.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE},
};

use undermesh_model::ResourceRef;

use super::{
    body::{AnswerBody, UntilEnd},
    log::{self, Flag, RequestLog},
};
use crate::error::Failure;

/// An answer of our own.
#[derive(Debug)]
pub(crate) struct LocalReply {
    pub(crate) status: StatusCode,
    /// Overrides what `status` means for gRPC.
    pub(crate) grpc: Option<u16>,
    pub(crate) body: Bytes,
    pub(crate) headers: Box<HeaderMap>,
    pub(crate) flag: Option<Flag>,
    /// Stable code for logs (docs/reference/access-log.md).
    pub(crate) reason: &'static str,
    /// For logs.
    pub(crate) detail: Option<String>,
    /// The policy that says no.
    pub(crate) policy: Option<Box<ResourceRef>>,
}

impl LocalReply {
    /// A status and nothing else.
    pub(crate) fn new(status: StatusCode, reason: &'static str) -> Self {
        Self {
            status,
            grpc: None,
            body: Bytes::new(),
            headers: Box::default(),
            flag: None,
            reason,
            detail: None,
            policy: None,
        }
    }

    fn text(status: StatusCode, (flag, reason): (Flag, &'static str), body: &'static str) -> Self {
        let body = Bytes::from_static(body.as_bytes());
        Self { flag: Some(flag), body, ..Self::new(status, reason) }
    }

    /// What the client sent is no request that may be passed on.
    pub(crate) fn bad_request(detail: &'static str) -> Self {
        let detail = Some(detail.to_owned());
        Self {
            detail,
            ..Self::text(StatusCode::BAD_REQUEST, (Flag::ProtocolError, "bad_request"), "")
        }
    }

    /// Whether the client's bytes were no request.
    pub(crate) fn is_protocol_error(&self) -> bool {
        self.flag == Some(Flag::ProtocolError)
    }

    /// Policy says no.
    pub(crate) fn denied(
        reason: &'static str,
        policy: Option<&ResourceRef>,
        detail: String,
    ) -> Self {
        const BODY: &str = "RBAC: access denied";
        let reply = Self::text(StatusCode::FORBIDDEN, (Flag::Denied, reason), BODY);
        Self { detail: Some(detail), policy: policy.cloned().map(Box::new), ..reply }
    }

    /// The request's token is not valid (RFC 6750, section 3).
    pub(crate) fn unauthenticated(
        status: StatusCode,
        reason: &'static str,
        body: &'static str,
        detail: String,
    ) -> Self {
        let mut reply = Self::text(status, (Flag::Denied, reason), body);
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        reply.headers.insert(WWW_AUTHENTICATE, challenge);
        Self { detail: Some(detail), ..reply }
    }

    /// The request has more than one token (RFC 6750, section 3.1).
    pub(crate) fn several_tokens() -> Self {
        const BODY: &str = "Jwt is given more than once";
        let mut reply = Self::text(StatusCode::BAD_REQUEST, (Flag::Denied, "jwt_several"), BODY);
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_request\"");
        reply.headers.insert(WWW_AUTHENTICATE, challenge);
        let detail = "it has more than one token where a rule looks for one";
        Self { detail: Some(detail.to_owned()), ..reply }
    }

    /// No route is about the request.
    pub(crate) fn no_route() -> Self {
        Self::text(StatusCode::NOT_FOUND, (Flag::NoRoute, "no_route"), "")
    }

    /// The route leads nowhere.
    pub(crate) fn unusable(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // The status that stands for hosts that nobody has registered; no other route has it.
        let unregistered = status == StatusCode::BAD_GATEWAY;
        let reason = if unregistered { "not_registered" } else { "route_leads_nowhere" };
        Self::text(status, (Flag::NoRoute, reason), "")
    }

    /// Only registered hosts may be dialled, and this is none.
    pub(crate) fn not_registered() -> Self {
        Self::unusable(StatusCode::BAD_GATEWAY.as_u16())
    }

    /// No endpoint may be used: there is `none`, or all that there are have failed.
    pub(crate) fn no_healthy_upstream(none: bool) -> Self {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let reason = if none { "no_endpoints" } else { "no_healthy_endpoint" };
        Self::text(unavailable, (Flag::NoHealthyUpstream, reason), "no healthy upstream")
    }

    /// A limit is reached.
    pub(crate) fn overflow(limit: &'static str) -> Self {
        const BODY: &str =
            "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        let overflow = (Flag::Overflow, "overflow");
        let mut reply = Self::text(StatusCode::SERVICE_UNAVAILABLE, overflow, BODY);
        reply.headers.insert("x-envoy-overloaded", HeaderValue::from_static("true"));
        reply.detail = Some(limit.to_owned());
        reply
    }

    /// The node's proxy is overloaded.
    pub(crate) fn overloaded() -> Self {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        let mut reply =
            Self::text(unavailable, (Flag::Overloaded, "overloaded"), "envoy overloaded");
        reply.headers.insert("x-envoy-overloaded", HeaderValue::from_static("true"));
        reply
    }

    /// The client takes too long for its body.
    pub(crate) fn late(reason: &'static str) -> Self {
        let status = StatusCode::REQUEST_TIMEOUT;
        Self::text(status, (Flag::StreamIdle, reason), "stream timeout")
    }

    /// The head is larger than may be, or has too many headers.
    pub(crate) fn head_too_large(detail: String) -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let reply = Self::text(status, (Flag::ProtocolError, log::HEAD_TOO_LARGE), "");
        Self { detail: Some(detail), ..reply }
    }

    /// The endpoint could not be connected to.
    pub(crate) fn connect_failure(failure: &Failure) -> Self {
        Self::not_connected(failure.reason(), failure.to_string())
    }

    /// The same, where there is no more to say than this.
    pub(crate) fn not_connected(reason: &'static str, detail: String) -> Self {
        const BODY: &str = "upstream connect error or disconnect/reset before headers. reset reason: \
                            remote connection failure";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let reply = Self::text(status, (Flag::ConnectionFailure, reason), BODY);
        Self { detail: Some(detail), ..reply }
    }

    /// The endpoint broke the connection before it answered.
    pub(crate) fn reset(detail: String) -> Self {
        const BODY: &str = "upstream connect error or disconnect/reset before headers. reset reason: \
                            connection termination";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let reply = Self::text(status, (Flag::ConnectionTermination, log::SERVER_RESET), BODY);
        Self { detail: Some(detail), ..reply }
    }

    /// The endpoint did not answer in time.
    pub(crate) fn timeout() -> Self {
        let timeout = (Flag::Timeout, log::TIMEOUT);
        Self::text(StatusCode::GATEWAY_TIMEOUT, timeout, "upstream request timeout")
    }

    /// The client's own body broke off; nobody is left to read the answer.
    pub(crate) fn client_gone() -> Self {
        Self::text(StatusCode::BAD_REQUEST, (Flag::ClientGone, log::CLIENT_RESET), "")
    }

    /// The response, and the end of what is to be known about the request.
    pub(crate) fn answer(self, mut log: RequestLog) -> Response<AnswerBody> {
        log.because(self.reason, self.flag);
        log.detail.clone_from(&self.detail);
        log.policy = self.policy.as_deref().cloned();
        let mut response = self.into_response(log.grpc);
        log.answered_here(response.status(), response.headers());
        response.body_mut().hold(UntilEnd::of(log));
        response
    }

    /// The response, for a client that speaks gRPC or not.
    pub(crate) fn into_response(self, grpc: bool) -> Response<AnswerBody> {
        if grpc {
            return self.into_grpc();
        }
        let length = HeaderValue::from(self.body.len());
        let mut response = Response::new(AnswerBody::local(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_LENGTH, length);
        if !response.body().is_empty() {
            let text = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(CONTENT_TYPE, text);
        }
        response.headers_mut().extend(*self.headers);
        response
    }

    /// A response of headers alone, in which gRPC looks for its status (gRPC over HTTP/2,
    /// "Trailers-Only").
    fn into_grpc(self) -> Response<AnswerBody> {
        let status = self.grpc.unwrap_or_else(|| grpc_status(self.status));
        let message = percent_encoded(&self.body);
        let mut response = Response::new(AnswerBody::local(Bytes::new()));
        let headers = response.headers_mut();
        headers.extend(*self.headers);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(status));
        if !message.is_empty()
            && let Ok(message) = HeaderValue::try_from(message)
        {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// The gRPC status that an HTTP status stands for (gRPC, `http-grpc-status-mapping.md`).
pub(crate) fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// A `grpc-message`: printable ASCII without `%` stands for itself.
fn percent_encoded(text: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text {
        if (0x20..0x7f).contains(byte) && *byte != b'%' {
            encoded.push(char::from(*byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_client_is_answered_in_grpc() {
        let response = LocalReply::no_healthy_upstream(true).into_response(true);
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(header("grpc-status"), "14");
        assert_eq!(header("grpc-message"), "no healthy upstream");
        assert_eq!(header("content-type"), "application/grpc");
        assert!(response.body().is_empty());
    }

    #[test]
    fn an_overflow_says_that_a_retry_would_not_help() {
        let response = LocalReply::overflow("http2_max_requests").into_response(false);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["x-envoy-overloaded"], "true");
        assert_eq!(response.headers()["content-type"], "text/plain");
    }

    #[test]
    fn messages_are_encoded_for_headers() {
        assert_eq!(percent_encoded("100% für\n".as_bytes()), "100%25 f%C3%BCr%0A");
    }
}
