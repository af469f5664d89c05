//! The headers that accompany a CONNECT request, as Istio's ztunnel writes and reads them.
//!
//! Pure and total: a peer chooses the bytes that are parsed here. Nothing in them is trusted for
//! more than a log line.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderValue;
use undermesh_snapshot::WorkloadInfo;

use crate::authority;

/// Longest `forwarded` value that is looked at; a longer one is ignored.
const MAX_FORWARDED: usize = 1024;
/// Longest `baggage` that is sent.
const MAX_BAGGAGE: usize = 1024;
/// Header with the destination's reason code, next to an HTTP status that refuses.
pub(crate) const REASON: &str = "x-undermesh-reason";
/// Header that tells the destination which workload is calling.
pub(crate) const BAGGAGE: &str = "baggage";

/// `forwarded: for="10.1.2.3:4711"`, with the service's host where one was dialled (RFC 7239).
pub(crate) fn forwarded(client: SocketAddr, host: Option<&str>) -> Option<HeaderValue> {
    let client = authority::format(client);
    let text = match host {
        Some(host) => format!("for=\"{client}\";host={host}"),
        None => format!("for=\"{client}\""),
    };
    HeaderValue::try_from(text).ok()
}

/// The client that a `forwarded` header names: the first `for` of its first element.
pub(crate) fn parse_forwarded(value: &[u8]) -> Option<SocketAddr> {
    let text = str::from_utf8(value).ok()?;
    let first = text.split(',').next()?;
    if text.len() > MAX_FORWARDED {
        return None;
    }
    first.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        let node = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
        let named = name.eq_ignore_ascii_case("for");
        named.then(|| node_address(node)).flatten()
    })
}

/// A node identifier; a port is optional in RFC 7239 and zero stands for none.
fn node_address(node: &str) -> Option<SocketAddr> {
    if let Some(address) = authority::parse(node) {
        return Some(address);
    }
    let ip = match node.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(node.parse().ok()?),
    };
    Some(SocketAddr::new(ip.to_canonical(), 0))
}

/// Who is calling, in the keys that Istio uses (OpenTelemetry resource names).
pub(crate) fn baggage(source: &WorkloadInfo) -> Option<HeaderValue> {
    let pairs = [
        ("k8s.cluster.name", source.cluster.as_str()),
        ("k8s.namespace.name", &source.name.namespace),
        ("k8s.deployment.name", &source.workload_name),
        ("service.name", &source.canonical_service),
        ("service.version", &source.canonical_revision),
    ];
    let mut text = String::with_capacity(160);
    for (name, value) in pairs {
        // Names of Kubernetes objects and label values never need escaping; whatever else an
        // odd source of configuration brought is left out.
        let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if value.is_empty() || !plain || text.len() + name.len() + value.len() + 2 > MAX_BAGGAGE {
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push('=');
        text.push_str(value);
    }
    HeaderValue::try_from(text).ok()
}

/// A reason code that a peer sent: lower case words joined by underscores, or nothing.
pub(crate) fn parse_reason(value: &[u8]) -> Option<&str> {
    let code = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_';
    if value.is_empty() || value.len() > 64 || !value.iter().all(code) {
        return None;
    }
    str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing;

    #[test]
    fn forwarded_looks_as_ztunnel_writes_it() {
        let text = |client: &str, host| forwarded(client.parse().unwrap(), host).unwrap();
        assert_eq!(text("127.0.0.1:80", None), r#"for="127.0.0.1:80""#);
        assert_eq!(text("[::1]:80", None), r#"for="[::1]:80""#);
        assert_eq!(
            text("127.0.0.1:80", Some("example.com")),
            r#"for="127.0.0.1:80";host=example.com"#
        );
    }

    #[test]
    fn the_first_client_is_read() {
        for (text, expected) in [
            (r#"for="10.0.0.1:80""#, Some("10.0.0.1:80")),
            ("for=10.0.0.1", Some("10.0.0.1:0")),
            (r#"by=x; For="[fd00::1]:9";host=a"#, Some("[fd00::1]:9")),
            (r#"for="[fd00::1]", for=10.0.0.1"#, Some("[fd00::1]:0")),
            (r#"for="10.0.0.1:80"#, None),
            ("for=unknown", None),
            ("for=_hidden", None),
            ("host=a", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(parse_forwarded(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn baggage_names_the_workload_and_leaves_out_what_it_cannot_carry() {
        let mut source = testing::workload("cart-0", &["10.0.0.1"]);
        source.canonical_revision = "v1,evil=1".to_owned();
        assert_eq!(
            baggage(&source).unwrap(),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=cart-0,\
             service.name=cart-0"
        );
    }

    #[test]
    fn reasons_are_plain_codes() {
        assert_eq!(parse_reason(b"connection_refused"), Some("connection_refused"));
        for bad in [&b""[..], b"Connection", b"a b", b"a\"b", &[b'a'; 65], b"\xff"] {
            assert_eq!(parse_reason(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_survived(value in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = parse_forwarded(&value);
            let _ = parse_reason(&value);
        }

        #[test]
        fn the_client_is_read_back(ip: IpAddr, port in 1u16..) {
            let client = SocketAddr::new(ip, port);
            let value = forwarded(client, Some("cart.shop")).unwrap();
            prop_assert_eq!(
                parse_forwarded(value.as_bytes()),
                Some(authority::canonical(client))
            );
        }
    }
}
