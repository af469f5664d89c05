//! Questions to authorizers and their answers, for `tests/fuzz`.

use std::{net::SocketAddr, time::Duration};

use ::http::{HeaderMap, StatusCode, request::Parts};
use bytes::Bytes;
use http_body_util::BodyExt;
use undermesh_model::{Authorizer, AuthorizerProtocol, CheckedBody, HttpAuthorizer, SpiffeId};

use super::{NoVerdict, Shown, Verdict, body::Kept, changes, grpc, http};
use crate::{
    http::{Head, LocalReply},
    upstream::BodyError,
};

/// What an answer comes to.
#[derive(Debug)]
pub enum Outcome {
    /// The request as it passes, and the application's answer as it is passed on.
    Passes(Box<(Parts, HeaderMap)>),
    /// What the client is answered with.
    Refused(Refusal),
    /// There was no answer; `failOpen` would let the request pass.
    Failed,
    /// The answer cannot be used.
    Unusable,
}

/// An answer to a client.
#[derive(Debug)]
pub struct Refusal {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its content.
    pub body: Bytes,
}

/// A request as an authorizer is asked about it; `None` for one that is refused before.
pub fn head(parts: Parts, dialled: SocketAddr) -> Option<Parts> {
    Head::new(parts, dialled).ok().map(|head| head.parts)
}

/// What an answer over gRPC does with a request, and with these headers of its answer.
pub fn grpc_answer(
    (status, headers, trailers): (StatusCode, &HeaderMap, &HeaderMap),
    content: &[u8],
    request: (Parts, HeaderMap),
) -> Outcome {
    outcome(grpc::verdict(status, headers, trailers, content), request)
}

/// The same for an answer over HTTP.
pub fn http_answer(
    rule: &HttpAuthorizer,
    (status, headers): (StatusCode, &HeaderMap),
    content: Bytes,
    request: (Parts, HeaderMap),
) -> Outcome {
    outcome(http::verdict(rule, status, headers, content), request)
}

fn outcome(
    verdict: Result<Verdict, NoVerdict>,
    (parts, mut answer): (Parts, HeaderMap),
) -> Outcome {
    match verdict {
        Err(NoVerdict::Unreachable(_)) => Outcome::Failed,
        Err(NoVerdict::Unusable(_)) => Outcome::Unusable,
        Ok(Verdict::Denied(denied)) => {
            let own = LocalReply::new(StatusCode::FORBIDDEN, "provider_denied");
            let reply = denied.reply(own, false);
            let LocalReply { status, headers, body, .. } = reply;
            Outcome::Refused(Refusal { status: status.as_u16(), headers: *headers, body })
        }
        Ok(Verdict::Allowed(allowed)) => {
            let mut head = Head { parts, grpc: false, upgrade: None, extended: false };
            if changes::apply(&allowed, &mut head).is_err() {
                return Outcome::Unusable;
            }
            allowed.answer.iter().for_each(|change| change.apply(&mut answer));
            Outcome::Passes(Box::new((head.parts, answer)))
        }
    }
}

/// A question over gRPC: what is sent, the message and its prefix.
pub fn grpc_question(
    parts: Parts,
    body: Option<(Bytes, bool)>,
    raw: bool,
    (client, destination): (SocketAddr, SocketAddr),
    (source, own): (Option<&SpiffeId>, &SpiffeId),
) -> Option<Bytes> {
    let head = Head { parts, grpc: false, upgrade: None, extended: false };
    let rule = Authorizer {
        name: String::new(),
        namespace: None,
        host: "a".to_owned(),
        port: 1,
        timeout: Duration::from_secs(1),
        fail_open: false,
        status_on_error: 403,
        body: body.as_ref().map(|_| CheckedBody { max_bytes: 0, partial: true, raw }),
        protocol: AuthorizerProtocol::Grpc,
    };
    let parties = grpc::Parties { client, source, destination, own };
    let request = grpc::request(&Shown { head: &head, body }, parties, &rule, "a:1").ok()?;
    whole(request.into_body())
}

/// A question over HTTP: what is sent.
pub fn http_question(
    parts: Parts,
    body: Option<(Bytes, bool)>,
    rule: &HttpAuthorizer,
) -> Option<(Parts, Bytes)> {
    let head = Head { parts, grpc: false, upgrade: None, extended: false };
    let request = http::request(&Shown { head: &head, body }, rule).ok()?;
    let (parts, body) = request.into_parts();
    Some((parts, whole(body)?))
}

/// Everything of a body that is there.
fn whole(body: crate::upstream::Body) -> Option<Bytes> {
    let mut collected = std::pin::pin!(body.collect());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match collected.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(Ok(collected)) => Some(collected.to_bytes()),
        _ => None,
    }
}

/// What an authorizer is shown of a body, and the whole body afterwards; the status where it is refused. It has to
/// run where there is a clock.
pub async fn shown_body<B>(
    body: B,
    rule: &CheckedBody,
) -> Result<((Bytes, bool), Result<Bytes, BodyError>), u16>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let mut kept = Kept::new(body);
    let shown = kept.show(rule).await.map_err(|reply| reply.status.as_u16())?;
    Ok((shown, kept.collect().await.map(http_body_util::Collected::to_bytes)))
}
