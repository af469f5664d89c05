//! Authorizers that are asked over gRPC.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use ::http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TE},
    uri::PathAndQuery,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use prost::Message;
use undermesh_model::{Authorizer, SpiffeId};

use super::{
    Allowed, Denied, FINAL, NoVerdict, Shown, Verdict,
    changes::{Changes, HeaderChange, How, removals},
    http::PARTIAL,
    joined,
    messages::{
        Address, AppendAction, AttributeContext, AttributeRequest, CheckRequest, CheckResponse,
        HeaderValueOption, HttpRequest, OkHttpResponse, Peer, SocketAddress, Timestamp,
    },
};
use crate::{guard::Visit, upstream::Body};

const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// The flag of compression, and the length of a message (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;
/// How a call of gRPC has ended.
const STATUS: &str = "grpc-status";
const REQUEST_ID: &str = "x-request-id";

/// Between whom a request is.
pub(super) struct Parties<'a> {
    pub(super) client: SocketAddr,
    pub(super) source: Option<&'a SpiffeId>,
    pub(super) destination: SocketAddr,
    pub(super) own: &'a SpiffeId,
}

impl<'a> Parties<'a> {
    pub(super) fn of(visit: &'a Visit) -> Self {
        Self {
            client: visit.client,
            source: visit.source.as_ref(),
            destination: visit.destination,
            own: &visit.pod.workload.identity,
        }
    }
}

/// The question.
pub(super) fn request(
    shown: &Shown<'_>,
    parties: Parties<'_>,
    rule: &Authorizer,
    authority: &str,
) -> Result<Request<Body>, NoVerdict> {
    let raw = rule.body.is_some_and(|body| body.raw);
    let message = encoded(&attributes(parties, described(shown, raw)))?;
    let mut request =
        Request::new(Full::new(message).map_err(|never| match never {}).boxed_unsync());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let uri = format!("http://{authority}{METHOD}").parse::<Uri>();
    *request.uri_mut() =
        uri.map_err(|_| NoVerdict::Unusable(format!("{authority} is no authority")))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let milliseconds = rule.timeout.as_millis().min(99_999_999);
    if let Ok(timeout) = HeaderValue::try_from(format!("{milliseconds}m")) {
        headers.insert("grpc-timeout", timeout);
    }
    Ok(request)
}

fn encoded(message: &CheckRequest) -> Result<Bytes, NoVerdict> {
    let length = message.encoded_len();
    let prefix =
        u32::try_from(length).map_err(|_| NoVerdict::Unusable("too long to ask".to_owned()))?;
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode(&mut bytes).map_err(|error| NoVerdict::Unusable(error.to_string()))?;
    Ok(bytes.freeze())
}

fn attributes(parties: Parties<'_>, http: HttpRequest) -> CheckRequest {
    let Parties { client, source, destination, own } = parties;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(now.subsec_nanos()).unwrap_or_default(),
    };
    let request = AttributeRequest { time: Some(time), http: Some(http) };
    let attributes = AttributeContext {
        source: Some(peer(client, source)),
        destination: Some(peer(destination, Some(own))),
        request: Some(request),
    };
    CheckRequest { attributes: Some(attributes) }
}

fn peer(address: SocketAddr, identity: Option<&SpiffeId>) -> Peer {
    let socket_address =
        SocketAddress { address: address.ip().to_string(), port_value: address.port().into() };
    Peer {
        address: Some(Address { socket_address: Some(socket_address) }),
        service: String::new(),
        labels: BTreeMap::new(),
        principal: identity.map(ToString::to_string).unwrap_or_default(),
    }
}

/// The request with all of its headers, those of HTTP/2 that begin with a colon among them.
pub(super) fn described(shown: &Shown<'_>, raw: bool) -> HttpRequest {
    let head = shown.head;
    let view = head.view();
    let path = head.parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let text = |name: &::http::HeaderName| {
        String::from_utf8_lossy(&joined(view.headers, name)).into_owned()
    };
    let names = view.headers.keys();
    let mut headers: BTreeMap<String, String> =
        names.map(|name| (name.as_str().to_owned(), text(name))).collect();
    // Only we may say it.
    headers.remove(PARTIAL);
    for (name, value) in [
        (":method", view.method.as_str()),
        (":path", path),
        (":authority", view.authority),
        (":scheme", view.scheme),
    ] {
        headers.insert(name.to_owned(), value.to_owned());
    }
    let (mut body, mut raw_body) = (String::new(), Bytes::new());
    if let Some((bytes, more)) = &shown.body {
        headers.insert(PARTIAL.to_owned(), more.to_string());
        if raw {
            raw_body = bytes.clone();
        } else {
            body = String::from_utf8_lossy(bytes).into_owned();
        }
    }
    let length = view.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    HttpRequest {
        id: headers.get(REQUEST_ID).cloned().unwrap_or_default(),
        method: view.method.to_string(),
        path: path.to_owned(),
        host: view.authority.to_owned(),
        scheme: view.scheme.to_owned(),
        size: length.and_then(|length| length.parse().ok()).unwrap_or(-1),
        protocol: format!("{:?}", head.parts.version),
        headers,
        body,
        raw_body,
    }
}

/// The answer. Every failure of the call is the authorizer's; a message that cannot be read is none.
pub(super) fn verdict(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: &HeaderMap,
    content: &[u8],
) -> Result<Verdict, NoVerdict> {
    if status != StatusCode::OK {
        return Err(NoVerdict::Unreachable(format!("it answers with {}", status.as_u16())));
    }
    let statuses = trailers.get_all(STATUS).iter().chain(headers.get_all(STATUS));
    let mut statuses = statuses.map(HeaderValue::as_bytes).peekable();
    if statuses.peek().is_none() {
        return Err(NoVerdict::Unreachable("it answers without a status of gRPC".to_owned()));
    }
    // Every word of it: a message is believed only where nothing speaks against it.
    match statuses.find(|status| *status != b"0") {
        None => read(content),
        Some(status) => {
            let status = String::from_utf8_lossy(status);
            Err(NoVerdict::Unreachable(format!("it answers with the status {status} of gRPC")))
        }
    }
}

/// Reads the one message of an answer.
pub(super) fn read(mut content: &[u8]) -> Result<Verdict, NoVerdict> {
    let unusable = |why: &str| NoVerdict::Unusable(format!("its answer {why}"));
    if content.len() < PREFIX {
        return Err(unusable("has no message"));
    }
    if content.get_u8() != 0 {
        return Err(unusable("is compressed"));
    }
    if content.get_u32() as usize != content.len() {
        return Err(unusable("is not one message"));
    }
    let answer = CheckResponse::decode(content);
    let answer = answer.map_err(|error| unusable(&format!("cannot be read: {error}")))?;
    if answer.status.is_none_or(|status| status.code == 0) {
        if answer.denied_response.is_some() {
            return Err(unusable("lets pass and refuses"));
        }
        return allowed(answer.ok_response.unwrap_or_default()).map(Verdict::Allowed);
    }
    let denied = answer.denied_response.unwrap_or_default();
    let code = denied.status.map_or(0, |status| status.code);
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    // What is no final status is none.
    let status = status.filter(|status| FINAL.contains(&status.as_u16()));
    Ok(Verdict::Denied(Denied {
        status: status.unwrap_or(StatusCode::FORBIDDEN),
        headers: changes(&denied.headers, unless_said(How::Set))?,
        body: denied.body,
    }))
}

fn allowed(answer: OkHttpResponse) -> Result<Allowed, NoVerdict> {
    let set = answer.query_parameters_to_set.into_iter();
    Ok(Allowed {
        remove: removals(answer.headers_to_remove.iter().map(String::as_str))?,
        request: changes(&answer.headers, unless_said(How::Set))?,
        query_remove: answer.query_parameters_to_remove,
        query_set: set.map(|parameter| (parameter.key, parameter.value)).collect(),
        answer: changes(&answer.response_headers_to_add, by_action)?,
    })
}

fn changes(
    options: &[HeaderValueOption],
    how: impl Fn(&HeaderValueOption) -> How,
) -> Result<Vec<HeaderChange>, NoVerdict> {
    let mut changes = Changes::new();
    for option in options {
        let Some(header) = &option.header else { continue };
        let value = if header.value.is_empty() { &header.raw_value } else { &header.value };
        changes.add(&header.key, value, how(option))?;
    }
    Ok(changes.list())
}

/// Headers of requests and refusals: `append`, where it is said.
fn unless_said(how: How) -> impl Fn(&HeaderValueOption) -> How {
    move |option| match &option.append {
        Some(append) if append.value => How::Append,
        _ => how,
    }
}

/// Headers of answers: `append`, else `append_action`.
fn by_action(option: &HeaderValueOption) -> How {
    match (&option.append, AppendAction::try_from(option.append_action)) {
        (Some(append), _) => {
            if append.value {
                How::Append
            } else {
                How::Set
            }
        }
        (None, Ok(AppendAction::AppendIfExistsOrAdd)) => How::Append,
        (None, Ok(AppendAction::AddIfAbsent)) => How::IfAbsent,
        (None, Ok(AppendAction::OverwriteIfExists)) => How::IfPresent,
        (None, Ok(AppendAction::OverwriteIfExistsOrAdd) | Err(_)) => How::Set,
    }
}
