//! The key by which requests of one kind go to one endpoint (`consistentHash`).

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    net::{IpAddr, SocketAddr},
};

use http::{HeaderValue, header::COOKIE};
use undermesh_model::traffic::HashKey;
use undermesh_snapshot::traffic::ClusterSpec;

use super::head::Head;
use crate::balance;

/// The hash of a request for this cluster; `None` where it has no key, and any endpoint will do.
pub(crate) fn of(spec: &ClusterSpec, head: &Head, client: IpAddr) -> Option<u64> {
    let hash = spec.settings.balancer.hash.as_ref()?;
    match &hash.key {
        HashKey::Header(name) => {
            let value = head.parts.headers.get(name)?;
            Some(digest(value.as_bytes()))
        }
        HashKey::Cookie { name, .. } => cookie(head, name).map(|value| digest(value.as_bytes())),
        HashKey::SourceIp => Some(digest(client.to_string().as_bytes())),
        HashKey::Query(name) => {
            let value = parameter(head.parts.uri.query()?, name)?;
            Some(digest(value.as_bytes()))
        }
    }
}

/// The hash of a connection that carries no requests.
pub(crate) fn of_connection(spec: &ClusterSpec, client: IpAddr) -> Option<u64> {
    let hash = spec.settings.balancer.hash.as_ref()?;
    matches!(hash.key, HashKey::SourceIp).then(|| digest(client.to_string().as_bytes()))
}

/// A cookie that the client has not got yet.
pub(crate) struct NewCookie {
    /// As the client will send it.
    pub(crate) pair: HeaderValue,
    /// As it is told to.
    pub(crate) set: HeaderValue,
}

/// The cookie to give to a client that has none, where the rule says how long it lives (Envoy,
/// `HashPolicy.Cookie.ttl`; 0 is a session cookie).
pub(crate) fn missing_cookie(
    spec: &ClusterSpec,
    head: &Head,
    client: SocketAddr,
) -> Option<NewCookie> {
    let hash = spec.settings.balancer.hash.as_ref()?;
    let HashKey::Cookie { name, path, ttl: Some(ttl) } = &hash.key else { return None };
    if cookie(head, name).is_some() {
        return None;
    }
    let value =
        format!("{:016x}", digest(format!("{client}{}", balance::random(usize::MAX)).as_bytes()));
    let pair = format!("{name}={value}");
    let age = if ttl.is_zero() { String::new() } else { format!("; Max-Age={}", ttl.as_secs()) };
    let path = path.as_ref().map(|path| format!("; Path={path}")).unwrap_or_default();
    Some(NewCookie {
        set: HeaderValue::try_from(format!("{pair}{age}{path}; HttpOnly")).ok()?,
        pair: HeaderValue::try_from(pair).ok()?,
    })
}

/// The value of a cookie that the client has.
pub(crate) fn cookie<'a>(head: &'a Head, name: &str) -> Option<&'a str> {
    let values = head.parts.headers.get_all(COOKIE).into_iter();
    let pairs = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then(|| value.trim_matches('"')))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// The same on every node and after every start: clients keep their endpoint when the agent is
/// replaced.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(bytes)
}
