//! Destinations of requests: which endpoint, within which limits, over which connection.
//!
//! `http/` decides what becomes of a request and asks here for an endpoint; it knows nothing of
//! balancing, ejection or pools. What is here knows nothing of routes.
//!
//! `registry` finds a pod's cluster, `cluster` admits (`limits`, `balance`), `lease` sends (`pool`) and reports
//! to `outlier`. Endpoints that are names come from `dns`. Limits and connections are the pod's own; `node` is what its pods share.

mod balance;
mod cluster;
mod dns;
pub(crate) mod hash;
mod lease;
mod limits;
mod member;
mod metrics;
mod node;
mod outlier;
mod pool;
mod prospect;
mod registry;
pub(crate) mod repeat;
mod status;
#[cfg(test)]
mod testing;

use std::{future::Future, net::IpAddr, net::SocketAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, Version, header::HOST};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::io::{AsyncRead, AsyncWrite};
use undermesh_model::traffic::UpgradePolicy;
use undermesh_snapshot::traffic::{AppProtocol, ClusterEndpoint, ClusterSpec};

use crate::{error::Failure, short};
pub(crate) use cluster::{Cluster, RetryPermit};
pub use dns::NameStatus;
pub(crate) use dns::{DnsMetrics, Names};
pub(crate) use lease::{ConnectionLease, Lease};
pub(crate) use metrics::UpstreamMetrics;
pub(crate) use node::Node;
pub(crate) use prospect::{Prospect, prospects};
pub(crate) use registry::Upstreams;
pub use status::{EjectionStatus, EndpointStatus, LimitStatus, UpstreamStatus};

/// What a body that is sent on may fail with.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request on its way to an endpoint.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// What the choice of an endpoint may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick<'a> {
    /// Hash of the consistent-hash key, where the request has one.
    pub(crate) hash: Option<u64>,
    /// The client's address.
    pub(crate) client: IpAddr,
    /// What the client dialled.
    pub(crate) dialled: SocketAddr,
    /// Endpoints that this request has been tried at, to be avoided while there are others.
    pub(crate) tried: &'a [SocketAddr],
    /// Endpoints whose tiers are left out while there are others.
    pub(crate) leave_tiers_of: &'a [SocketAddr],
}

/// Why an attempt is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The cluster has no endpoint.
    NoEndpoints,
    /// None of them may be used.
    NoHealthy,
    /// This limit is reached.
    Overflow(&'static str),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The endpoint answered.
    Status(StatusCode),
    /// It answered a gRPC request with this status.
    Grpc(u16),
    /// It did not answer.
    LocalError(LocalError),
}

/// Why an endpoint did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalError {
    /// No connection.
    ConnectFailure,
    /// The connection or the stream broke.
    Reset,
    /// It took too long.
    Timeout,
}

/// Why a request that was sent got no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No connection could be made: nothing was sent.
    Connect(Failure),
    /// This limit is reached: nothing was sent.
    Overflow(&'static str),
    /// The connection or the stream broke before an answer.
    Reset {
        /// Some of the request may have been read.
        sent: bool,
        /// The endpoint said that it had not looked at it (REFUSED_STREAM).
        refused: bool,
        /// What happened.
        detail: Arc<str>,
    },
}

/// A connected two-way byte stream.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// The byte stream that is being made.
pub(crate) type Dialling<'a> =
    Pin<Box<dyn Future<Output = Result<Box<dyn ByteStream>, Failure>> + Send + 'a>>;

/// Makes connections to endpoints.
pub(crate) trait Dial: Send + Sync {
    /// Connects to an endpoint, by whatever wire it is reached.
    fn dial<'a>(&'a self, endpoint: &'a ClusterEndpoint) -> Dialling<'a>;
}

/// A request as HTTP/1.1 writes it. `http/` gives every request an absolute target and no `Host`, as
/// HTTP/2 writes it; here the authority moves to `Host`, and the target becomes the path.
pub(crate) fn in_http1(mut request: Request<Body>) -> Request<Body> {
    let authority = request.uri().authority();
    if let Some(value) = authority.and_then(|it| short::value(it.as_str().as_bytes())) {
        request.headers_mut().insert(HOST, value);
    }
    if request.method() != Method::CONNECT {
        // An empty one is written as what is there by default.
        let path = request.uri().path_and_query().filter(|path| path.as_str() != "/");
        *request.uri_mut() = path.cloned().map(Uri::from).unwrap_or_default();
    }
    *request.version_mut() = Version::HTTP_11;
    request
}

/// A request as HTTP/2 writes it.
pub(crate) fn in_http2(mut request: Request<Body>) -> Request<Body> {
    *request.version_mut() = Version::HTTP_2;
    request
}

/// Whether a request of a client that speaks `client` is sent over HTTP/2; `upgrade` if it asks for an upgrade.
/// Whoever agrees on a protocol with the endpoint (ALPN) has to ask this too.
pub(crate) fn speaks_http2(spec: &ClusterSpec, client: Version, upgrade: bool) -> bool {
    let http = &spec.settings.pool.http;
    // HTTP/2 has no `Upgrade`; what speaks HTTP/2 and WebSocket speaks HTTP/1.1 as well.
    if upgrade {
        return false;
    }
    let as_client = client == Version::HTTP_2;
    if http.use_client_protocol {
        return as_client;
    }
    match (http.upgrade, spec.protocol) {
        (Some(UpgradePolicy::Upgrade), _) | (_, AppProtocol::Http2 | AppProtocol::Grpc) => true,
        (_, AppProtocol::Auto) => as_client,
        (_, AppProtocol::Http | AppProtocol::Tls | AppProtocol::Tcp) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::request, *};

    #[test]
    fn http1_is_asked_for_a_path_and_told_the_authority() {
        for (uri, path) in [
            ("http://cart", "/"),
            ("http://cart/", "/"),
            ("http://cart?a=1", "/?a=1"),
            ("http://cart/a%20b;c?d", "/a%20b;c?d"),
            ("http://cart//evil:80/", "//evil:80/"),
        ] {
            let mut request = request(Method::GET, "/");
            *request.uri_mut() = uri.parse().unwrap();
            let request = in_http1(request);
            assert_eq!((request.uri().to_string(), request.uri().authority()), (path.into(), None));
            assert_eq!(request.headers()[HOST], "cart");
        }
        let mut tunnel = request(Method::CONNECT, "/");
        *tunnel.uri_mut() = "cart:80".parse().unwrap();
        let tunnel = in_http1(tunnel);
        assert_eq!(
            (tunnel.uri().to_string(), &tunnel.headers()[HOST]),
            ("cart:80".into(), &"cart:80".parse().unwrap())
        );
    }
}
