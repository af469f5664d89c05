//! The gRPC server: TLS, HTTP/2; certificates, one message each way, and streams where there are some.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Limited};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::{
    Credentials, Issuance, Proven, Refusal, ServerTls,
    lingering::Lingering,
    message::{CertificateRequestMessage, CertificateResponseMessage, PATH},
    streams::{self, Streams},
};
use crate::{
    grpc::{self, Code},
    peer_expiry, peer_identity,
};

/// Connections at once; more wait to be accepted. A node has one or two.
const MAX_CONNECTIONS: u32 = 16_384;
/// Requests that are worked on at once.
const MAX_REQUESTS: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 64 << 10;
const MAX_HEAD: u32 = 32 << 10;
const MAX_STREAMS: u32 = 64;
/// A connection whose other end is gone is noticed after this time.
const PING: Duration = Duration::from_secs(60);
/// How long connections have to end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What is served at one port.
#[derive(Clone)]
pub struct Services {
    /// Certificates.
    pub issuance: Arc<Issuance>,
    /// Streams, if there are any.
    pub streams: Option<Arc<dyn Streams>>,
}

/// Serves until `shutdown`, and is over once every connection is. They are accepted once there is a certificate.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Option<Arc<ServerTls>>>,
    services: Services,
    mut shutdown: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let requests = Arc::new(Semaphore::new(MAX_REQUESTS));
    loop {
        let Ok(slot) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for certificates");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(config) = tls.borrow().clone() else { continue };
        let acceptor = TlsAcceptor::from(Arc::clone(&config.grpc));
        let connection = Connection {
            services: services.clone(),
            requests: Arc::clone(&requests),
            address,
            shutdown: shutdown.clone(),
        };
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = connection.run(acceptor, stream).await {
                tracing::debug!(%address, error, "a connection for certificates has ended");
            }
        });
    }
    // Nobody keeps a place for longer than `LAST_ANSWERS` now.
    drop(listener);
    let _ = connections.acquire_many(MAX_CONNECTIONS).await;
}

struct Connection {
    services: Services,
    requests: Arc<Semaphore>,
    address: SocketAddr,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    async fn run(mut self, acceptor: TlsAcceptor, stream: TcpStream) -> Result<(), String> {
        let _ = stream.set_nodelay(true);
        let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            _ = self.shutdown.wait_for(|stop| *stop) => return Ok(()),
        };
        let stream = accepted
            .map_err(|_| "no handshake in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let certificates: Option<Arc<[_]>> = stream
            .get_ref()
            .1
            .peer_certificates()
            .map(|shown| shown.iter().map(|one| one.clone().into_owned()).collect());
        let (services, requests) = (self.services.clone(), Arc::clone(&self.requests));
        let (address, shutdown) = (self.address.ip().to_canonical(), self.shutdown.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (services, requests) = (services.clone(), Arc::clone(&requests));
            let (certificates, shutdown) = (certificates.clone(), shutdown.clone());
            async move {
                // Looked at for each request: the connection may outlive the certificate.
                let svid = certificates.as_deref().and_then(proven);
                let token = bearer(request.headers());
                let credentials = Credentials { address, svid, token };
                let answered = match services.streams.filter(|it| it.path() == request.uri().path())
                {
                    Some(streams) => {
                        let issuance = &services.issuance;
                        open(issuance, &streams, &credentials, request, shutdown).await
                    }
                    None => {
                        let answered = answer(&services.issuance, &requests, &credentials, request);
                        answered.await.map(Either::Right)
                    }
                };
                Ok::<_, Infallible>(answered)
            }
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(PING);
        let stream = Lingering::new(stream, self.shutdown.clone());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
            _ = self.shutdown.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        let ended = tokio::time::timeout(LAST_ANSWERS, connection).await;
        ended.map_err(|_| "requests are not over".to_owned())?.map_err(|error| error.to_string())
    }
}

fn proven(shown: &[CertificateDer<'static>]) -> Option<Proven> {
    let id = peer_identity(Some(shown), OffsetDateTime::now_utc()).ok()?;
    Some(Proven { id, expires: peer_expiry(shown)? })
}

/// Begins a stream, for whoever may have one.
async fn open(
    issuance: &Issuance,
    streams: &Arc<dyn Streams>,
    credentials: &Credentials,
    request: Request<Incoming>,
    shutdown: watch::Receiver<bool>,
) -> Response<Either<streams::Reply, Reply>> {
    let judged =
        tokio::time::timeout(REQUEST_TIMEOUT, issuance.agent(credentials, &**streams)).await;
    let late = || Refusal::new(Code::DeadlineExceeded, "late", "not judged in time");
    match judged.unwrap_or_else(|_| Err(late())) {
        Ok(caller) if request.method() == Method::POST => {
            streams::begin(streams, caller, request.into_body(), shutdown).map(Either::Left)
        }
        Ok(_) => refusal(&Refusal::new(Code::Unimplemented, "method", "streams are posted"))
            .map(Either::Right),
        Err(refused) => refusal(&refused).map(Either::Right),
    }
}

fn refusal(refusal: &Refusal) -> Response<Reply> {
    let mut response = Response::new(Reply::default());
    *response.headers_mut() = grpc::status(Some(refusal.code), &refusal.message);
    let content_type = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn bearer(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
        .then(|| Zeroizing::new(token.trim().to_owned()))
}

async fn answer(
    issuance: &Issuance,
    requests: &Semaphore,
    credentials: &Credentials,
    request: Request<Incoming>,
) -> Response<Reply> {
    let worked = async {
        let _place = requests.try_acquire().map_err(|_| {
            let message = "too many requests at once; ask again later".to_owned();
            let refusal = Refusal { code: Code::ResourceExhausted, reason: "busy", message };
            issuance.turn_away(credentials, refusal)
        })?;
        call(issuance, credentials, request).await
    };
    let result = tokio::time::timeout(REQUEST_TIMEOUT, worked).await.unwrap_or_else(|_| {
        let message = format!("not done within {REQUEST_TIMEOUT:?}");
        let refusal = Refusal { code: Code::DeadlineExceeded, reason: "late", message };
        Err(issuance.turn_away(credentials, refusal))
    });
    let message = match result {
        Ok(message) => message,
        Err(refused) => return refusal(&refused),
    };
    let trailers = Some(grpc::status(None, ""));
    let mut response = Response::new(Reply { message: Some(grpc::framed(&message)), trailers });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

async fn call(
    issuance: &Issuance,
    credentials: &Credentials,
    request: Request<Incoming>,
) -> Result<CertificateResponseMessage, Refusal> {
    let refused = |code, reason, message: String| {
        Err(issuance.turn_away(credentials, Refusal { code, reason, message }))
    };
    if request.method() != Method::POST || request.uri().path() != PATH {
        let message = format!("there is no method {}", request.uri().path());
        return refused(Code::Unimplemented, "method", message);
    }
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refused(Code::InvalidArgument, "message", error.to_string()),
    };
    let message = match grpc::read::<CertificateRequestMessage>(&body) {
        Ok(message) => message,
        Err(why) => return refused(Code::InvalidArgument, "message", why),
    };
    let issued = issuance.create(credentials, &message).await?;
    Ok(CertificateResponseMessage { cert_chain: issued.chain })
}

/// One message and the status, or nothing.
#[derive(Default)]
struct Reply {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.message.take() {
            Some(message) => Some(Frame::data(message)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }
}
