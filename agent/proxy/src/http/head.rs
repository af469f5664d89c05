//! Step *head*: from a request as a client wrote it to one that routes can be asked about.
//!
//! Afterwards every request has an absolute target and no `Host`, whatever version it came in; headers
//! that belong to the client's connection are gone, and so is what only this proxy may claim.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, SEC_WEBSOCKET_KEY, TE,
        TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::ext::Protocol;
use undermesh_snapshot::traffic::RequestView;

use super::{local_reply::LocalReply, random};

/// Who the client of the destination's pod is; only the destination's proxy can know.
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// Names one request in all logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
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
    /// Checks and rewrites. `dialled` stands in for the authority of an HTTP/1.0 request that has none.
    pub(crate) fn new(mut parts: Parts, dialled: SocketAddr) -> Result<Self, LocalReply> {
        let authority = authority(&parts, dialled)?;
        parts.uri = absolute(&parts, authority)?;
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

/// The authority that the request is about. That of an absolute target goes before `Host` (RFC 9112,
/// section 3.2.2); two hosts are an attempt to mean one thing here and another there.
fn authority(parts: &Parts, dialled: SocketAddr) -> Result<Authority, LocalReply> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(LocalReply::bad_request("more than one Host"));
    }
    if host.is_none() && parts.version == Version::HTTP_11 {
        return Err(LocalReply::bad_request("no Host"));
    }
    if let Some(authority) = parts.uri.authority() {
        return plain(authority.clone());
    }
    match host {
        Some(host) => {
            let authority = Authority::try_from(host.as_bytes());
            plain(authority.map_err(|_| LocalReply::bad_request("Host is no authority"))?)
        }
        None if parts.version < Version::HTTP_11 => {
            Authority::try_from(dialled.to_string()).map_err(|_| LocalReply::bad_request("no Host"))
        }
        None => Err(LocalReply::bad_request("no authority")),
    }
}

/// User information has no place in a request (RFC 9110, section 4.2.4).
fn plain(authority: Authority) -> Result<Authority, LocalReply> {
    if authority.as_str().contains('@') {
        return Err(LocalReply::bad_request("user information in the authority"));
    }
    Ok(authority)
}

fn absolute(parts: &Parts, authority: Authority) -> Result<Uri, LocalReply> {
    // CONNECT has an authority and nothing else, unless it is an extended one (RFC 8441).
    let path = parts.uri.path_and_query().cloned();
    let connect = parts.method == Method::CONNECT;
    let mut uri = http::uri::Parts::default();
    uri.authority = Some(authority);
    if !connect || path.is_some() {
        uri.scheme = Some(Scheme::HTTP);
        uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    Uri::from_parts(uri).map_err(|_| LocalReply::bad_request("the target is no URI"))
}

/// What an HTTP/1.1 request wants its connection to become. `h2c` is not offered: the request is
/// answered as if it had not asked, as RFC 9110 allows and RFC 9113 has deprecated it.
fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let nominated = tokens(&parts.headers, &CONNECTION).any(|name| name == "upgrade");
    let wanted = parts.headers.get(UPGRADE)?;
    let h2c = wanted.as_bytes().to_ascii_lowercase().starts_with(b"h2c");
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

/// `application/grpc`, perhaps with a suffix or parameters.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests;
