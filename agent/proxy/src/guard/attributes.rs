//! What policies, providers and limits are asked about: one request, in all the ways in which it may be read.

use std::net::IpAddr;

use ::http::HeaderMap;
use undermesh_snapshot::RequestAttributes;

use super::{path::Readings, token::Claims};
use crate::http::Head;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The request as it is now, and what its token says; for as long as the question takes.
pub(super) fn described<T>(
    client: IpAddr,
    readings: &Readings,
    head: &Head,
    claims: Option<&Claims>,
    ask: impl FnOnce(&RequestAttributes<'_>) -> T,
) -> T {
    let view = head.view();
    ask(&RequestAttributes {
        method: view.method.as_str(),
        hosts: &hosts(view.authority),
        paths: &readings.all,
        headers: view.headers,
        claims,
        remote: remote(view.headers).unwrap_or(client),
    })
}

/// An authority as servers compare it: with its port, without it, and without the dot that may end a name.
fn hosts(authority: &str) -> Vec<String> {
    let full = authority.to_ascii_lowercase();
    let bare = match full.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => &full,
    };
    let plain = bare.strip_suffix('.').unwrap_or(bare);
    let mut hosts = vec![full.clone()];
    for host in [bare, plain] {
        if hosts.iter().all(|known| known != host) {
            hosts.push(host.to_owned());
        }
    }
    hosts
}

/// Where a request comes from originally, as Istio's sidecars have it: the last address that was added to
/// `x-forwarded-for`.
fn remote(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    let last = last.rsplit(',').next()?.trim();
    last.parse().ok().map(|address: IpAddr| address.to_canonical())
}
