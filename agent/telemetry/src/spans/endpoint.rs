//! Where spans are sent to, as configuration writes it.

use http::Uri;
use thiserror::Error;

/// What the receiver speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with Protobuf.
    Http,
}

impl Protocol {
    /// The port that OpenTelemetry has given it.
    const fn port(self) -> u16 {
        match self {
            Self::Grpc => 4317,
            Self::Http => 4318,
        }
    }
}

/// Why a text is no endpoint.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EndpointError {
    /// It does not parse, or lacks something.
    #[error("{0:?} is not of the form http://HOST:PORT or https://HOST:PORT")]
    Form(String),
    /// A path where there can be none.
    #[error("{0:?} has a path; a receiver of OTLP/gRPC has none")]
    Path(String),
}

/// A receiver of OTLP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// In TLS.
    pub(super) tls: bool,
    /// Its name or address, without brackets.
    pub(super) host: String,
    /// Its port.
    pub(super) port: u16,
    /// Where requests go: an absolute URI.
    pub(super) uri: Uri,
}

impl Endpoint {
    /// Reads `http://HOST[:PORT]`, or the same with `https`. With [`Protocol::Http`] a path may follow; without
    /// one it is `/v1/traces`.
    ///
    /// # Errors
    /// Where the text is something else.
    pub fn parse(text: &str, protocol: Protocol) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Form(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(malformed()),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(protocol.port());
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(malformed());
        }
        let path = match (protocol, uri.path()) {
            (Protocol::Grpc, "" | "/") => super::otlp::METHOD,
            (Protocol::Grpc, _) => return Err(EndpointError::Path(text.to_owned())),
            (Protocol::Http, "" | "/") => "/v1/traces",
            (Protocol::Http, path) => path,
        };
        let scheme = if tls { "https" } else { "http" };
        let uri = format!("{scheme}://{}:{port}{path}", authority.host());
        let uri = uri.parse().map_err(|_| malformed())?;
        Ok(Self { protocol, tls, host, port, uri })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_the_port_and_the_path_of_their_protocol() {
        let uri = |text, protocol| Endpoint::parse(text, protocol).map(|it| it.uri.to_string());
        let method = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
        for (text, protocol, expected) in [
            ("http://otel", Protocol::Grpc, format!("http://otel:4317/{method}")),
            ("https://[fd00::1]:1", Protocol::Grpc, format!("https://[fd00::1]:1/{method}")),
            ("http://otel/", Protocol::Http, "http://otel:4318/v1/traces".to_owned()),
            ("http://otel:9/in/spans", Protocol::Http, "http://otel:9/in/spans".to_owned()),
        ] {
            assert_eq!(uri(text, protocol).unwrap(), expected);
        }
        let host = Endpoint::parse("http://[fd00::1]", Protocol::Http).unwrap().host;
        assert_eq!(host, "fd00::1");
        for bad in
            ["otel:4317", "ftp://otel", "http://", "http://a@b:1", "http://otel?x=1", "/x", ""]
        {
            assert!(uri(bad, Protocol::Http).is_err(), "{bad}");
        }
        assert!(matches!(uri("http://otel/x", Protocol::Grpc), Err(EndpointError::Path(_))));
    }
}
