//! The CONNECT request of a stream, written by the source and read by the destination.

use std::net::SocketAddr;

use http::{HeaderMap, Method, Request, Uri, Version, header::FORWARDED};
use undermesh_snapshot::WorkloadInfo;

use crate::{authority, error::Failure, headers};

/// Asks for a connection to `destination` on behalf of `client`, an application in `source` that
/// dialled the service `host`, if it dialled one.
pub(crate) fn build(
    destination: SocketAddr,
    client: SocketAddr,
    host: Option<&str>,
    source: &WorkloadInfo,
) -> Result<Request<()>, Failure> {
    let uri = Uri::try_from(authority::format(destination));
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri.map_err(|_| Failure::BadRequest {
        detail: "the destination cannot be written as an authority",
    })?;
    let headers = request.headers_mut();
    if let Some(value) = headers::forwarded(client, host) {
        headers.insert(FORWARDED, value);
    }
    if let Some(value) = headers::baggage(source) {
        headers.insert(headers::BAGGAGE, value);
    }
    Ok(request)
}

/// Reads where a request wants to go.
pub(crate) fn destination<B>(request: &Request<B>) -> Result<SocketAddr, Failure> {
    if request.method() != Method::CONNECT {
        return Err(Failure::BadRequest { detail: "the method is not CONNECT" });
    }
    request
        .uri()
        .authority()
        .and_then(|authority| authority::parse(authority.as_str()))
        .ok_or(Failure::BadRequest { detail: "the authority is not an address and a port" })
}

/// The client as the source's proxy names it. Believed only as far as the source can prove: `peer`
/// is the address that its tunnel comes from, which is the client's own pod.
pub(crate) fn client(headers: &HeaderMap, peer: SocketAddr) -> SocketAddr {
    headers
        .get(FORWARDED)
        .and_then(|value| headers::parse_forwarded(value.as_bytes()))
        .filter(|client| client.ip() == peer.ip() && client.port() != 0)
        .unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let source = testing::workload("shop-0", &["10.0.0.1"]);
        for to in ["10.0.1.1:8080", "[fd00::1]:8080"] {
            let from = address("10.0.0.1:4711");
            let request = build(address(to), from, Some("cart.shop"), &source).unwrap();
            assert_eq!(request.uri().to_string(), to);
            assert_eq!(request.uri().scheme(), None);
            assert_eq!(destination(&request).unwrap(), address(to));
            assert_eq!(client(request.headers(), address("10.0.0.1:9")), from);
        }
    }

    #[test]
    fn other_methods_and_authorities_are_bad_requests() {
        let get = Request::get("http://10.0.0.1:80/").body(()).unwrap();
        assert_eq!(destination(&get).unwrap_err().reason(), "bad_request");
        for authority in ["cart.shop:80", "10.0.0.1", "10.0.0.1:0", "a@10.0.0.1:80"] {
            let request = Request::connect(authority).body(());
            if let Ok(request) = request {
                let failure = destination(&request).unwrap_err();
                assert_eq!(failure.reason(), "bad_request", "{authority}");
            }
        }
    }

    #[test]
    fn a_client_elsewhere_than_the_tunnel_is_not_believed() {
        let source = testing::workload("shop-0", &["10.0.0.1"]);
        let lie = address("10.9.9.9:4711");
        let request = build(address("10.0.1.1:80"), lie, None, &source).unwrap();
        let peer = address("10.0.0.1:9");
        assert_eq!(client(request.headers(), peer), peer);
        assert_eq!(client(&HeaderMap::new(), peer), peer);
    }
}
