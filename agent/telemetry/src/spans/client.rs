//! One connection to a receiver of OTLP, in gRPC or in HTTP/1.1, and what its answers mean.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Version,
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, TE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{Directory, Endpoint, Protocol, otlp};

/// Longest answer that is read.
const MAX_ANSWER: usize = 64 << 10;
/// Flag and length before a message of gRPC.
const PREFIX: usize = 5;

/// Why spans were not taken.
#[derive(Debug)]
pub(super) enum SendError {
    /// Another attempt may succeed, after a while that the receiver may have named.
    Unavailable { why: String, after: Option<Duration> },
    /// No other attempt will.
    Rejected(String),
}

impl SendError {
    pub(super) fn unavailable(why: impl ToString) -> Self {
        Self::Unavailable { why: why.to_string(), after: None }
    }
}

pub(super) struct Client {
    endpoint: Endpoint,
    directory: Arc<dyn Directory>,
    kept: Option<Sender>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }
}

impl Client {
    pub(super) fn new(endpoint: Endpoint, directory: Arc<dyn Directory>) -> Self {
        Self { endpoint, directory, kept: None }
    }

    /// Sends a message, and returns how many of its spans were not taken, and why.
    pub(super) async fn send(&mut self, message: Bytes) -> Result<(u64, String), SendError> {
        let mut sender = self.sender().await?;
        let request = self.request(message)?;
        let response = match &mut sender {
            Sender::Http1(sender) => sender.send_request(request).await,
            Sender::Http2(sender) => sender.send_request(request).await,
        };
        let (parts, body) = response.map_err(SendError::unavailable)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(SendError::unavailable)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let rejected = match self.endpoint.protocol {
            Protocol::Http => judge_http(&parts, &body.to_bytes())?,
            Protocol::Grpc => judge_grpc(&parts, &trailers, &body.to_bytes())?,
        };
        self.kept = Some(sender);
        Ok(rejected)
    }

    fn request(&self, message: Bytes) -> Result<Request<Full<Bytes>>, SendError> {
        let grpc = self.endpoint.protocol == Protocol::Grpc;
        let content_type = if grpc { "application/grpc" } else { "application/x-protobuf" };
        let mut request = Request::new(Full::new(if grpc { prefixed(&message) } else { message }));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let agent = concat!("undermesh/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let uri = &self.endpoint.uri;
        if grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = uri.clone();
            return Ok(request);
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::try_from(authority);
        headers.insert(HOST, host.map_err(|error| SendError::Rejected(error.to_string()))?);
        let path = uri.path().parse();
        *request.uri_mut() = path.map_err(|_| SendError::Rejected("no path".to_owned()))?;
        Ok(request)
    }

    /// The connection that is there, if it still works, or a new one.
    async fn sender(&mut self) -> Result<Sender, SendError> {
        if let Some(mut kept) = self.kept.take()
            && kept.is_ready().await
        {
            return Ok(kept);
        }
        let stream = self.connect().await.map_err(SendError::unavailable)?;
        if !self.endpoint.tls {
            return self.open(stream).await;
        }
        let secured = self.secure(stream).await.map_err(SendError::unavailable)?;
        self.open(secured).await
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let (host, port) = (self.endpoint.host.as_str(), self.endpoint.port);
        let addresses: Vec<SocketAddr> = match self.directory.addresses(host, port) {
            Some(addresses) => addresses,
            None => {
                let found = tokio::net::lookup_host((host, port)).await;
                found.map_err(|error| format!("{host}: {error}"))?.collect()
            }
        };
        let mut last = format!("{host} has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    }

    async fn secure(
        &self,
        stream: TcpStream,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let alpn: &'static [&'static [u8]] = match self.endpoint.protocol {
            Protocol::Grpc => &[b"h2"],
            Protocol::Http => &[b"http/1.1"],
        };
        let config = self.directory.tls(alpn)?;
        let host = &self.endpoint.host;
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let secured = TlsConnector::from(config).connect(name, stream).await;
        secured.map_err(|error| format!("TLS with {host}: {error}"))
    }

    async fn open<S>(&self, stream: S) -> Result<Sender, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        match self.endpoint.protocol {
            Protocol::Http => {
                let (sender, driver) =
                    http1::handshake(io).await.map_err(SendError::unavailable)?;
                tokio::spawn(driver);
                Ok(Sender::Http1(sender))
            }
            Protocol::Grpc => {
                let builder = http2::Builder::new(TokioExecutor::new());
                let (sender, driver) =
                    builder.handshake(io).await.map_err(SendError::unavailable)?;
                tokio::spawn(driver);
                Ok(Sender::Http2(sender))
            }
        }
    }
}

/// A message as gRPC has it: not compressed, and its length.
fn prefixed(message: &Bytes) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

type Head = http::response::Parts;

/// OTLP/HTTP: these statuses ask for another attempt, all other failures are final.
fn judge_http(head: &Head, body: &[u8]) -> Result<(u64, String), SendError> {
    match head.status.as_u16() {
        200 => Ok(otlp::rejected(body).unwrap_or_default()),
        429 | 502 | 503 | 504 => Err(SendError::Unavailable {
            why: format!("it answers with {}", head.status),
            after: retry_after(&head.headers),
        }),
        _ => Err(SendError::Rejected(format!("it answers with {}", head.status))),
    }
}

/// OTLP/gRPC: the statuses that may pass, as its specification lists them.
fn judge_grpc(head: &Head, trailers: &HeaderMap, body: &[u8]) -> Result<(u64, String), SendError> {
    if head.status != StatusCode::OK {
        return judge_http(head, body);
    }
    let field =
        |name: &str| trailers.get(name).or(head.headers.get(name)).and_then(|it| it.to_str().ok());
    let status = field("grpc-status").and_then(|status| status.parse::<u16>().ok());
    let why = || {
        let message = field("grpc-message").unwrap_or_default();
        format!("it answers with the gRPC status {} {message}", status.unwrap_or(2))
    };
    match status {
        Some(0) => Ok(body.get(PREFIX..).and_then(otlp::rejected).unwrap_or_default()),
        None | Some(1 | 4 | 10 | 11 | 14 | 15) => Err(SendError::unavailable(why())),
        Some(_) => Err(SendError::Rejected(why())),
    }
}

/// `Retry-After` in seconds; a date is too rare to be read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}
