//! The parsers of a peer's bytes as `tests/fuzz` drives them, and steps of the path as `benches` measure
//! them: behind a feature, because nobody else may. Nothing here decides anything.

use std::net::SocketAddr;

use ::http::{HeaderMap, Request};

use crate::{authority, headers, request};
pub use crate::{
    guard::fuzzing as guard, http::fuzzing as http, native::echo, native::fuzzing as native,
    trace::fuzzing as trace,
};

/// Where a CONNECT request leads.
pub fn connect_destination(request: &Request<()>) -> Option<SocketAddr> {
    request::destination(request).ok()
}

/// The client of a CONNECT request that came over a tunnel from `peer`.
pub fn connect_client(headers: &HeaderMap, peer: SocketAddr) -> SocketAddr {
    request::client(headers, peer)
}

/// An authority of an address and a port.
pub fn parse_authority(text: &str) -> Option<SocketAddr> {
    authority::parse(text)
}

/// The authority of an address and a port.
pub fn format_authority(address: SocketAddr) -> String {
    authority::format(address)
}

/// The client that a `forwarded` header names.
pub fn parse_forwarded(value: &[u8]) -> Option<SocketAddr> {
    headers::parse_forwarded(value)
}

/// A peer's reason code.
pub fn parse_reason(value: &[u8]) -> Option<&str> {
    headers::parse_reason(value)
}
