//! Step *head*: from a request as a client wrote it to one that routes can be asked about.
//!
//! Afterwards every request has an absolute target and no `Host`, whatever version it came in; headers
//! that belong to the client's connection are gone, and so is what only this proxy may claim.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, SEC_WEBSOCKET_KEY, TE,
        TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::{Authority, PathAndQuery},
};
use hyper::ext::Protocol;
use undermesh_snapshot::traffic::RequestView;

use super::{local_reply::LocalReply, random, target};
use crate::config::HeadLimits;

/// Who the client of the destination's pod is; only the destination's proxy can know.
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// Names one request in all logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Headers that the way to an endpoint adds, as a rule: the two above, a trace's, and the number of the attempt.
const ADDED: usize = 4;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A request's head, ready to be routed.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// With an absolute target.
    pub(crate) parts: Parts,
    /// gRPC, by its content type.
    pub(crate) grpc: bool,
    /// What the connection is to be upgraded to.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The client has asked for it as HTTP/2 does, with an extended CONNECT.
    pub(crate) extended: bool,
}

impl Head {
    /// Checks and rewrites. `dialled` stands in for the authority of a request that names none.
    pub(crate) fn new(mut parts: Parts, dialled: SocketAddr) -> Result<Self, LocalReply> {
        parts.uri = target::absolute(&parts, dialled)?;
        // The table has no more room than its client's headers took, and would be made anew for every other one.
        parts.headers.reserve(ADDED);
        if parts.version == Version::HTTP_2 {
            as_http1(&mut parts.headers)?;
        }
        let extended = extended_connect(&mut parts);
        let upgrade = extended.clone().or_else(|| upgrade(&parts));
        parts.headers.remove(HOST);
        parts.headers.remove(EXPECT);
        remove_hop_by_hop(&mut parts.headers);
        // Rules may be about it; whoever sends the request on asks for the upgrade anew.
        parts.headers.extend(upgrade.clone().map(|upgrade| (UPGRADE, upgrade)));
        parts.headers.remove(FORWARDED_CLIENT_CERT);
        let proto = HeaderValue::from_static("http");
        parts.headers.entry(FORWARDED_PROTO).or_insert(proto);
        if !parts.headers.contains_key(REQUEST_ID) {
            parts.headers.insert(REQUEST_ID, random::request_id());
        }
        let grpc = is_grpc(&parts.headers);
        Ok(Self { parts, grpc, upgrade, extended: extended.is_some() })
    }

    /// The same for a head that was not refused because of its size yet.
    pub(crate) fn within(
        limits: HeadLimits,
        parts: Parts,
        dialled: SocketAddr,
    ) -> Result<Self, LocalReply> {
        if parts.version == Version::HTTP_2 {
            is_small_enough(&parts, limits)?;
        }
        Self::new(parts, dialled)
    }

    /// What a rule looks at.
    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.parts.method,
            scheme: self.parts.uri.scheme_str().unwrap_or("http"),
            authority: self.parts.uri.authority().map_or("", Authority::as_str),
            path: self.parts.uri.path(),
            query: self.parts.uri.query(),
            headers: &self.parts.headers,
        }
    }
}

/// The library counts no headers, and says nothing of heads that it refuses itself, so that its limit is a wider one
/// ([`super::requests::http2_builder`]). Of HTTP/1, hyper keeps the limits.
fn is_small_enough(parts: &Parts, limits: HeadLimits) -> Result<(), LocalReply> {
    // RFC 9113, section 10.5.1.
    const OVERHEAD: usize = 32;
    // The crumbs of a cookie are one header (section 8.2.3).
    let crumbs = parts.headers.get_all(COOKIE).iter().count();
    let count = parts.headers.len() - crumbs.saturating_sub(1);
    if count > limits.headers {
        let detail = format!("{count} headers, where {} may be", limits.headers);
        return Err(LocalReply::head_too_large(detail));
    }
    let size = |name: usize, value: usize| name + value + OVERHEAD;
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| size(name.as_str().len(), value.len()));
    let uri = &parts.uri;
    let pseudo = [
        (":method", parts.method.as_str()),
        (":scheme", uri.scheme_str().unwrap_or_default()),
        (":authority", uri.authority().map_or("", Authority::as_str)),
        (":path", uri.path_and_query().map_or("", PathAndQuery::as_str)),
    ];
    let pseudo = pseudo.iter().filter(|(_, value)| !value.is_empty());
    let pseudo = pseudo.map(|(name, value)| size(name.len(), value.len()));
    let bytes: usize = pseudo.chain(headers).sum();
    if bytes > limits.bytes {
        let detail = format!("a head of {bytes} bytes, where {} may be", limits.bytes);
        return Err(LocalReply::head_too_large(detail));
    }
    Ok(())
}

/// Headers as HTTP/1.1 has them, as far as h2 has not seen to that. Spaces around a value would be lost on the way (RFC 9113, section
/// 8.2.1); a cookie that came in crumbs is put together (section 8.2.3).
fn as_http1(headers: &mut HeaderMap) -> Result<(), LocalReply> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let spaced = |value: &[u8]| is_space(value.first()) || is_space(value.last());
    if headers.values().any(|value| spaced(value.as_bytes())) {
        return Err(LocalReply::bad_request("spaces around a value"));
    }
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return Err(LocalReply::bad_request("more than one Content-Length"));
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let whole = HeaderValue::try_from(crumbs.join(&b"; "[..]));
        let whole = whole.map_err(|_| LocalReply::bad_request("the cookie is no value"))?;
        headers.insert(COOKIE, whole);
    }
    Ok(())
}

/// What an HTTP/1.1 request wants its connection to become. `h2c` is not offered: the request is
/// answered as if it had not asked, as RFC 9110 allows and RFC 9113 has deprecated it.
fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let nominated = tokens(&parts.headers, &CONNECTION).any(|name| name == "upgrade");
    let wanted = parts.headers.get(UPGRADE)?;
    // Wherever it is in a list, an endpoint might choose it, and what follows would be judged by nobody.
    let h2c = tokens(&parts.headers, &UPGRADE).any(|protocol| protocol.starts_with("h2c"));
    (parts.version == Version::HTTP_11 && nominated && !h2c).then(|| wanted.clone())
}

/// An extended CONNECT (RFC 8441) as HTTP/1.1 asks for the same; endpoints understand that.
fn extended_connect(parts: &mut Parts) -> Option<HeaderValue> {
    let protocol = parts.extensions.remove::<Protocol>()?;
    if parts.method != Method::CONNECT {
        return None;
    }
    parts.method = Method::GET;
    if protocol.as_str() == "websocket" {
        let key = random::websocket_key();
        parts.headers.entry(SEC_WEBSOCKET_KEY).or_insert(key);
    }
    HeaderValue::try_from(protocol.as_str()).ok()
}

/// Comma-separated words of a header, in lower case.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = String> + 'a {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let words = values.flat_map(|value| value.split(','));
    words.map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty())
}

/// Removes what is about one connection only (RFC 9110, section 7.6.1): what is known to be, and what
/// `Connection` names. Framing and target cannot be named away.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = tokens(headers, &CONNECTION).collect();
    for name in named {
        if let Ok(name) = HeaderName::try_from(name)
            && name != HOST
            && name != CONTENT_LENGTH
            && name != TE
        {
            headers.remove(name);
        }
    }
    // gRPC asks for trailers, and it is for every connection on the way to pass that on.
    let trailers = tokens(headers, &TE).any(|coding| coding == "trailers");
    for name in [CONNECTION, UPGRADE, TRANSFER_ENCODING, TE, KEEP_ALIVE, PROXY_CONNECTION] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The head of an endpoint's answer as it may be passed on: with one length that is a number, or none where
/// its coding says how long it is (RFC 9112, section 6.3).
pub(crate) fn clean_answer(headers: &mut HeaderMap) {
    let coded = headers.contains_key(TRANSFER_ENCODING);
    remove_hop_by_hop(headers);
    let Some(length) = headers.remove(CONTENT_LENGTH).filter(|_| !coded) else { return };
    // hyper has seen to it that several are all the same.
    let first = length.to_str().ok().and_then(|list| list.split(',').next());
    if let Some(length) = first.and_then(|first| first.trim().parse::<u64>().ok()) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

/// Trailers as they may be passed on: what is about a connection, framing or routing has no meaning after
/// the head, and would be read by somebody as if it had (RFC 9110, section 6.5.1).
pub(super) fn clean_trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    for name in [HOST, CONTENT_LENGTH, TE, TRAILER, EXPECT, COOKIE, FORWARDED_CLIENT_CERT] {
        trailers.remove(name);
    }
}

/// `application/grpc`, perhaps with a suffix or parameters.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests;
