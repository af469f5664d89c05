//! What a peer's CONNECT says: where to, for whom, and how both are written.

mod stream;

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header::FORWARDED};
use undermesh_proxy::fuzzing::{
    connect_client, connect_destination, format_authority, parse_authority, parse_forwarded,
    parse_reason,
};

use crate::source::{Pieces, Source, spell};

/// Pieces of authorities and of `forwarded`.
pub(super) const DICTIONARY: &[&[u8]] = &[
    b"10.0.0.1",
    b"[fd00::1]",
    b"[::ffff:10.0.0.1]",
    b":",
    b"80",
    b"65536",
    b"0",
    b"+80",
    b"@",
    b"%",
    b"[",
    b"]",
    b".",
    b"for=",
    b"For=",
    b"\"",
    b";",
    b",",
    b"=",
    b" ",
    b"by=x",
    b"host=cart",
    b"unknown",
    b"1",
    b"fe80::1%eth0",
    b"policy_denied",
    b"cart.shop:80",
    b"00080",
    b"\t",
    b"\xff",
    b"255.255.255.255",
    b"::1",
    b"_",
];

pub(super) fn run(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mode = source.byte();
    let pieces = Pieces::new(source.byte());
    let text = if mode & 1 == 0 { source.rest().to_vec() } else { source.spelled(DICTIONARY) };
    if let Ok(text) = str::from_utf8(&text) {
        authorities_mean_one_address(text);
    }
    clients_are_where_their_tunnel_comes_from(&text);
    if let Some(reason) = parse_reason(&text) {
        assert!(!reason.is_empty() && reason.len() <= 64, "{reason:?}");
        assert!(
            reason.bytes().all(|byte| b"abcdefghijklmnopqrstuvwxyz0123456789_".contains(&byte))
        );
    }
    stream::is_read_as_written(&text, pieces, mode >> 1);
}

fn authorities_mean_one_address(text: &str) {
    let parsed = parse_authority(text);
    let standard: Option<SocketAddr> = text.parse().ok();
    if let Some(address) = parsed {
        let standard = standard.map(|one| SocketAddr::new(one.ip().to_canonical(), one.port()));
        assert_eq!(Some(address), standard, "{text:?}");
        assert_ne!(address.port(), 0);
        assert_eq!(parse_authority(&format_authority(address)), Some(address));
    } else if let Some(address) = standard.filter(|address| address.port() != 0) {
        let shortest = address.to_string();
        assert!(text != shortest || shortest.contains('%'), "{text:?} was refused");
    }
    let Ok(uri) = Uri::try_from(text) else { return };
    let authority = uri.authority().map(|authority| authority.as_str().to_owned());
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    assert_eq!(connect_destination(&request), None, "GET is no CONNECT");
    *request.method_mut() = Method::CONNECT;
    let led = connect_destination(&request);
    assert_eq!(led, authority.as_deref().and_then(parse_authority), "{text:?}");
}

fn clients_are_where_their_tunnel_comes_from(value: &[u8]) {
    let named = parse_forwarded(value);
    assert!(named.is_none() || value.len() <= 1024, "a value of {} bytes", value.len());
    let Ok(header) = HeaderValue::from_bytes(value) else { return };
    let headers: HeaderMap = [(FORWARDED, header)].into_iter().collect();
    for peer in ["10.0.0.1:4711", "[fd00::1]:4711"] {
        let peer: SocketAddr = peer.parse().expect("an address");
        let client = connect_client(&headers, peer);
        assert_eq!(client.ip(), peer.ip(), "{client} is not where the tunnel comes from");
        assert_ne!(client.port(), 0);
        assert!(client == peer || Some(client) == named, "{client} was named by nobody");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let texts: [&[u8]; 13] = [
        b"10.1.2.3:80",
        b"[fd00::1]:65535",
        b"[::ffff:10.1.2.3]:80",
        b"10.1.2.3:+80",
        b"[fe80::1%eth0]:80",
        b"user@10.1.2.3:80",
        b"cart.shop:80",
        b"for=\"10.0.0.1:80\"",
        b"by=x; For=\"[fd00::1]:9\";host=a",
        b"for=\"[fd00::1]\", for=10.0.0.1",
        b"for=unknown",
        b"policy_denied",
        b"for=10.0.0.1",
    ];
    let mut seeds = Vec::new();
    for (number, text) in (0_u8..).zip(texts) {
        seeds.push([&[number << 1, number][..], text].concat());
        seeds.push([&[number << 1 | 1, number][..], &spell(text, DICTIONARY)].concat());
    }
    seeds
}
