//! Whom a request asks and for what, from a target in any of its four forms (RFC 9112, section 3.2) or
//! from the pseudo-headers of HTTP/2 (RFC 9113, section 8.3.1).

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderValue, Method, Uri, Version,
    header::HOST,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use hyper::ext::Protocol;

use super::local_reply::LocalReply;

/// The absolute target of a request. `dialled` stands in for the authority of an HTTP/1.0 request that
/// has none.
pub(super) fn absolute(parts: &Parts, dialled: SocketAddr) -> Result<Uri, LocalReply> {
    let authority = authority(parts, dialled)?;
    let mut uri = http::uri::Parts::default();
    // CONNECT has an authority and nothing else, unless it is an extended one (RFC 8441).
    if parts.method == Method::CONNECT && parts.extensions.get::<Protocol>().is_none() {
        if parts.uri.path_and_query().is_some() || !has_port(&authority) {
            return Err(LocalReply::bad_request("CONNECT to what is no host and port"));
        }
    } else {
        uri.scheme = Some(Scheme::HTTP);
        uri.path_and_query = Some(path(parts)?);
    }
    uri.authority = Some(authority);
    Uri::from_parts(uri).map_err(|_| LocalReply::bad_request("the target is no URI"))
}

/// The path and query, which only `OPTIONS *` does not begin with a slash.
fn path(parts: &Parts) -> Result<PathAndQuery, LocalReply> {
    let no_path = || LocalReply::bad_request("the target is no path");
    let path = parts.uri.path_and_query().ok_or_else(no_path)?;
    match path.as_str() {
        "*" if parts.method == Method::OPTIONS => Ok(path.clone()),
        text if text.starts_with('/') => Ok(path.clone()),
        // An absolute target may have a query and no path.
        text if text.starts_with('?') => format!("/{text}").try_into().map_err(|_| no_path()),
        _ => Err(no_path()),
    }
}

/// The authority that the request is about. That of an absolute target goes before `Host` (RFC 9112,
/// section 3.2.2); two hosts are an attempt to mean one thing here and another there.
fn authority(parts: &Parts, dialled: SocketAddr) -> Result<Authority, LocalReply> {
    let host = host(&parts.headers)?;
    if host.is_none() && parts.version == Version::HTTP_11 {
        return Err(LocalReply::bad_request("no Host"));
    }
    if let Some(authority) = parts.uri.authority() {
        let other = host.as_ref().is_some_and(|host| !is_same(host, authority));
        // HTTP/1.1 tells a proxy to ignore it; for HTTP/2 there is no reason to have another one.
        if other && parts.version == Version::HTTP_2 {
            return Err(LocalReply::bad_request("Host and :authority differ"));
        }
        return plain(authority.clone());
    }
    match host {
        Some(host) => Ok(host),
        None if parts.version < Version::HTTP_11 => {
            Authority::try_from(dialled.to_string()).map_err(|_| LocalReply::bad_request("no Host"))
        }
        None => Err(LocalReply::bad_request("no authority")),
    }
}

/// `Host`, which has to be right even where it is ignored.
fn host(headers: &HeaderMap) -> Result<Option<Authority>, LocalReply> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(LocalReply::bad_request("more than one Host"));
    }
    let Some(host) = host else { return Ok(None) };
    let authority = Authority::try_from(host);
    plain(authority.map_err(|_| LocalReply::bad_request("Host is no authority"))?).map(Some)
}

/// User information has no place in a request (RFC 9110, section 4.2.4), and a port is a number.
fn plain(authority: Authority) -> Result<Authority, LocalReply> {
    if authority.as_str().contains('@') {
        return Err(LocalReply::bad_request("user information in the authority"));
    }
    let after_host = authority.as_str().strip_prefix(authority.host());
    if !after_host.is_some_and(|rest| rest.is_empty() || rest.starts_with(':')) {
        return Err(LocalReply::bad_request("the authority is no host and port"));
    }
    if port(&authority).is_some_and(|port| !port.is_empty() && number(port).is_none()) {
        return Err(LocalReply::bad_request("the port is no number"));
    }
    Ok(authority)
}

fn has_port(authority: &Authority) -> bool {
    port(authority).and_then(number).is_some_and(|port| port != 0)
}

/// Whether both name the same server; 80 is what no port means.
fn is_same(one: &Authority, other: &Authority) -> bool {
    let port = |authority| port(authority).and_then(number).unwrap_or(80);
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

/// What follows the host and a colon.
fn port(authority: &Authority) -> Option<&str> {
    authority.as_str().strip_prefix(authority.host())?.strip_prefix(':')
}

fn number(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if digits { port.parse().ok() } else { None }
}
