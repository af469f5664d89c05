//! Keys of consistent hashing. Every agent of a mesh has to hash alike, or the nodes of a cluster would
//! send one key to different endpoints: none of this may change.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, header};
use undermesh_model::traffic::HashKey;
use undermesh_snapshot::traffic::RequestView;

use crate::balance::random;

/// Hash of a few bytes: FNV-1a, with MurmurHash3's finaliser to spread short keys over all bits.
pub(crate) fn bytes(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.iter().fold(start, step))
}

/// Spreads a number over all bits; no two numbers give the same.
pub(super) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// The key of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    /// Its hash; `None` where the request lacks what is hashed, and any endpoint will do.
    pub(crate) hash: Option<u64>,
    /// A cookie for the answer, so that the client comes back to the same endpoint.
    pub(crate) set_cookie: Option<HeaderValue>,
}

/// The key of a request, as its rule finds it.
pub(crate) fn key(rule: &HashKey, request: &RequestView<'_>, client: IpAddr) -> Key {
    let hash = match rule {
        HashKey::Header(name) => header_hash(request.headers, name),
        HashKey::Query(name) => {
            query_value(request.query, name).map(|value| bytes(value.as_bytes()))
        }
        HashKey::SourceIp => Some(address(client)),
        HashKey::Cookie { name, path, ttl } => {
            return match cookie(request.headers, name) {
                Some(value) => Key { hash: Some(bytes(value.as_bytes())), set_cookie: None },
                None => ttl.map(|ttl| new_cookie(name, path.as_deref(), ttl)).unwrap_or_default(),
            };
        }
    };
    Key { hash, set_cookie: None }
}

/// An address as it is hashed: the same for both ways to write an IPv4 address.
pub(crate) fn address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => bytes(&v4.octets()),
        IpAddr::V6(v6) => bytes(&v6.octets()),
    }
}

/// All values of a header, in whatever order they come.
fn header_hash(headers: &HeaderMap, name: &str) -> Option<u64> {
    let mut values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    values.sort_unstable();
    (!values.is_empty()).then(|| bytes(&values.concat()))
}

/// The first parameter of this name.
fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let parameters = query?.split('&');
    let pairs = parameters.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    values.next().map(|value| value.trim_matches('"')).filter(|value| !value.is_empty())
}

/// A cookie that leads to an endpoint by chance.
fn new_cookie(name: &str, path: Option<&str>, ttl: std::time::Duration) -> Key {
    // `random` gives the better half of its bits below a bound.
    let value = format!("{:08x}{:08x}", random(1 << 32), random(1 << 32));
    let mut line = format!("{name}=\"{value}\"");
    if !ttl.is_zero() {
        line.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        line.push_str(&format!("; Path={path}"));
    }
    line.push_str("; HttpOnly");
    // A name or path that is no header value is a rule's mistake; the client then gets no cookie.
    Key { hash: Some(bytes(value.as_bytes())), set_cookie: HeaderValue::try_from(line).ok() }
}

#[cfg(test)]
mod tests;
