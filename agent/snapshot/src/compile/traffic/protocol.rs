//! What a port speaks, as Istio reads it.
//!
//! Source: Istio, `pkg/config/kube/conversion.go` (`ConvertProtocol`), `pkg/config/protocol`.

use crate::traffic::AppProtocol;

/// Ports whose protocol is known not to be HTTP, and often lets the server speak first: SMTP, DNS,
/// MySQL, MongoDB.
const WELL_KNOWN: [u16; 4] = [25, 53, 3306, 27017];

/// What a port of a Service speaks: `appProtocol` says it, else the name of the port up to its
/// first hyphen.
pub(super) fn of_service(name: &str, app_protocol: Option<&str>, port: u16) -> AppProtocol {
    match app_protocol {
        Some("kubernetes.io/h2c") => AppProtocol::Http2,
        Some("kubernetes.io/ws") => AppProtocol::Http,
        Some("kubernetes.io/wss") => AppProtocol::Tls,
        Some(text) => named(text, port),
        None => named(name, port),
    }
}

/// What a port of a ServiceEntry speaks.
pub(super) fn of_entry(protocol: &str, name: &str, port: u16) -> AppProtocol {
    // Istio wants a protocol there; without one, the name is as good as a Service's.
    named(if protocol.is_empty() { name } else { protocol }, port)
}

fn named(name: &str, port: u16) -> AppProtocol {
    let name = name.to_ascii_lowercase();
    if name.starts_with("grpc-web") {
        return AppProtocol::Http;
    }
    match name.split('-').next().unwrap_or_default() {
        "http" | "http_proxy" => AppProtocol::Http,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "https" | "tls" => AppProtocol::Tls,
        "tcp" | "mongo" | "redis" | "mysql" => AppProtocol::Tcp,
        _ if WELL_KNOWN.contains(&port) => AppProtocol::Tcp,
        _ => AppProtocol::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_name_says_what_it_speaks() {
        for (name, port, protocol) in [
            ("http", 80, AppProtocol::Http),
            ("HTTP-web", 80, AppProtocol::Http),
            ("http2-web", 80, AppProtocol::Http2),
            ("grpc-cart", 80, AppProtocol::Grpc),
            ("grpc-web-cart", 80, AppProtocol::Http),
            ("https", 443, AppProtocol::Tls),
            ("tls-x", 443, AppProtocol::Tls),
            ("mongo", 1, AppProtocol::Tcp),
            ("tcp-http", 80, AppProtocol::Tcp),
            ("httpx", 80, AppProtocol::Auto),
            ("", 80, AppProtocol::Auto),
            ("", 3306, AppProtocol::Tcp),
            ("http", 3306, AppProtocol::Http),
        ] {
            assert_eq!(of_service(name, None, port), protocol, "{name:?}");
        }
    }

    #[test]
    fn the_application_protocol_beats_the_name() {
        for (app, protocol) in [
            ("kubernetes.io/h2c", AppProtocol::Http2),
            ("kubernetes.io/ws", AppProtocol::Http),
            ("kubernetes.io/wss", AppProtocol::Tls),
            ("http2", AppProtocol::Http2),
            ("example.com/own", AppProtocol::Auto),
        ] {
            assert_eq!(of_service("tcp", Some(app), 80), protocol, "{app:?}");
        }
        assert_eq!(of_entry("HTTPS", "http", 443), AppProtocol::Tls);
        assert_eq!(of_entry("", "grpc-x", 443), AppProtocol::Grpc);
    }
}
