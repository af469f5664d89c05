//! Where a CONNECT request leads: `address:port`, IPv6 in brackets (RFC 9113, section 8.5).
//!
//! Pure and total: a peer chooses these bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The authority that names `destination`.
pub(crate) fn format(destination: SocketAddr) -> String {
    canonical(destination).to_string()
}

/// Reads an authority of an address and a port. Host names, user information, zone identifiers
/// and port zero are not destinations of this proxy.
pub(crate) fn parse(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':')?;
    let ip = match host.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(host.parse::<Ipv4Addr>().ok()?),
    };
    // `u16::from_str` allows a sign, an authority does not.
    if port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    Some(canonical(SocketAddr::new(ip, port)))
}

/// IPv4-mapped addresses as IPv4, so that one destination has one name.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_with_ports_are_read() {
        for (text, expected) in [
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[fd00::1]:65535", "[fd00::1]:65535"),
            ("[::ffff:10.1.2.3]:80", "10.1.2.3:80"),
        ] {
            assert_eq!(parse(text), Some(expected.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":",
            "10.1.2.3",
            "10.1.2.3:",
            "10.1.2.3:0",
            "10.1.2.3:+80",
            "10.1.2.3:65536",
            "10.1.2.3:000080",
            "010.1.2.3:80",
            "fd00::1:80",
            "[fd00::1]",
            "[fd00::1:80",
            "[fe80::1%eth0]:80",
            "[10.1.2.3]:80",
            "user@10.1.2.3:80",
            "cart.shop.svc.cluster.local:80",
            "10.1.2.3:80 ",
        ] {
            assert_eq!(parse(text), None, "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,64}") {
            if let Some(address) = parse(&text) {
                prop_assert_eq!(parse(&format(address)), Some(address));
            }
        }

        #[test]
        fn what_is_formatted_is_read_back(ip: IpAddr, port in 1u16..) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(parse(&format(address)), Some(canonical(address)));
        }
    }
}
