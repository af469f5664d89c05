//! One connection to the authority, kept while it works, and made anew when the roots change.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{AUTHORIZATION, CONTENT_TYPE, TE, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{
    ClientConfig,
    pki_types::{ServerName, TrustAnchor},
};
use tokio::{net::TcpStream, sync::Mutex};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    explain, grpc,
    issuance::message::{CertificateRequestMessage, CertificateResponseMessage, PATH},
    tls::Trust,
};

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an authority that could not be reached is not dialled again: many identities ask in turn,
/// and each would wait for the same thing.
const LEFT_ALONE: Duration = Duration::from_millis(500);
/// A connection whose other end is gone is noticed after this time.
const PING: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Client {
    host: String,
    port: u16,
    name: ServerName<'static>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: Option<(SendRequest<Full<Bytes>>, Vec<TrustAnchor<'static>>)>,
    failed: Option<(Instant, String)>,
}

impl Client {
    pub(super) fn new(host: String, port: u16, name: ServerName<'static>) -> Self {
        Self { host, port, name, state: Mutex::default() }
    }

    /// Asks for a certificate; an error says why there is none.
    pub(super) async fn call(
        &self,
        message: &CertificateRequestMessage,
        token: &str,
        cluster: &str,
        trust: &Trust,
    ) -> Result<CertificateResponseMessage, String> {
        let request = self.request(message, token, cluster)?;
        let mut sender = self.sender(trust).await?;
        let sent = sender.send_request(request).await;
        let (head, body) = sent.map_err(|error| self.says(&error))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| format!("{}: {error}", self.host))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = grpc::read_status(&trailers).or_else(|| grpc::read_status(&head.headers));
        match status {
            _ if head.status != StatusCode::OK => {
                Err(format!("{} answers with {}", self.host, head.status))
            }
            Some((0, _)) => grpc::read(&body.to_bytes())
                .map_err(|why| format!("{} answers with what cannot be read: {why}", self.host)),
            Some((code, text)) => {
                Err(format!("{} refuses (gRPC status {code}): {text}", self.host))
            }
            None => Err(format!("{} answers without a status of gRPC", self.host)),
        }
    }

    fn request(
        &self,
        message: &CertificateRequestMessage,
        token: &str,
        cluster: &str,
    ) -> Result<Request<Full<Bytes>>, String> {
        let body = Full::new(grpc::framed(message));
        request((&self.host, self.port), PATH, token, cluster, body)
    }

    /// The connection that is there, if it still works under these roots, or a new one.
    async fn sender(&self, trust: &Trust) -> Result<SendRequest<Full<Bytes>>, String> {
        let roots = trust.roots.roots.clone();
        let mut state = self.state.lock().await;
        if let Some((kept, under)) = &mut state.kept
            && *under == roots
            && kept.ready().await.is_ok()
        {
            return Ok(kept.clone());
        }
        state.kept = None;
        if let Some((at, why)) = &state.failed
            && at.elapsed() < LEFT_ALONE
        {
            return Err(why.clone());
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(trust)).await;
        let connected = connected.unwrap_or_else(|_| Err(format!("{} does not answer", self.host)));
        match connected {
            Ok(sender) => {
                state.failed = None;
                state.kept = Some((sender.clone(), roots));
                Ok(sender)
            }
            Err(why) => {
                state.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn connect(&self, trust: &Trust) -> Result<SendRequest<Full<Bytes>>, String> {
        let config = trust.named().map_err(|error| error.to_string())?;
        let secured = dial(&self.host, self.port, self.name.clone(), config).await?;
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .handshake(TokioIo::new(secured))
            .await
            .map_err(|error| self.says(&error))?;
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "the connection to the authority has ended");
            }
        });
        Ok(sender)
    }

    fn says(&self, error: &hyper::Error) -> String {
        let cause = std::error::Error::source(error);
        cause.map_or_else(
            || format!("{}: {error}", self.host),
            |cause| format!("{}: {error}: {cause}", self.host),
        )
    }
}

/// A call of gRPC.
pub(super) fn request<B>(
    (host, port): (&str, u16),
    path: &'static str,
    token: &str,
    cluster: &str,
    body: B,
) -> Result<Request<B>, String> {
    let authority = match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    };
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query(path).build();
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| "the token cannot be sent".to_owned())?;
    bearer.set_sensitive(true);
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri.map_err(|error| format!("{host}: {error}"))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let agent = concat!("undermesh/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    headers.insert(AUTHORIZATION, bearer);
    if let Ok(cluster) = HeaderValue::try_from(cluster) {
        headers.insert("clusterid", cluster);
    }
    Ok(request)
}

/// A connection in TLS.
pub(super) async fn dial(
    host: &str,
    port: u16,
    name: ServerName<'static>,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>, String> {
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("{host}:{port} cannot be reached: {error}"))?;
    let _ = stream.set_nodelay(true);
    let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    secured.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let why = inner.map_or_else(|| error.to_string(), explain);
        format!("TLS with {host}:{port} fails: {why}")
    })
}
