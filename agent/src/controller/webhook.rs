//! The validating admission webhook: what an agent could not use is refused when it is written, in the words
//! that the agent would log. Every replica answers.
//!
//! It judges an object by itself: what it lacks of others (a host that does not exist yet, a missing provider)
//! is no reason to refuse, since objects of one change come in any order.

mod judge;
mod registration;
mod review;

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use undermesh_identity::{TlsAcceptor, issuance::ServerTls};
use undermesh_telemetry::{Audit, AuditEvent, AuditObject};

use super::metrics::Metrics;
pub(super) use judge::Judge;
pub(super) use registration::Registration;
use review::Review;

/// The page that the API server posts reviews to.
pub(super) const PATH: &str = "/validate";
/// Connections at once; more wait to be accepted.
const MAX_CONNECTIONS: u32 = 256;
/// Objects that are judged at once: each is a computation.
const MAX_JUDGED: usize = 4;
/// Largest review: an object and its predecessor, each of which etcd takes up to 1.5 MB of.
const MAX_REVIEW: usize = 8 << 20;
/// Longest that one review may take; the API server waits a little longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest that one connection is served.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);

/// The server's parts.
pub(super) struct Webhook {
    pub(super) judge: Judge,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
}

impl Webhook {
    /// Serves until `stop`, and is over once the reviews are that have come by then.
    pub(super) async fn serve(
        self,
        listener: TcpListener,
        tls: watch::Receiver<Option<Arc<ServerTls>>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let webhook = Arc::new(self);
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
        let judged = Arc::new(Semaphore::new(MAX_JUDGED));
        loop {
            let Ok(slot) = Arc::clone(&connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for admission");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(config) = tls.borrow().clone() else { continue };
            let (webhook, judged) = (Arc::clone(&webhook), Arc::clone(&judged));
            let stop = stop.clone();
            tokio::spawn(async move {
                let _slot = slot;
                let acceptor = TlsAcceptor::from(Arc::clone(&config.https));
                let served = webhook.connection(acceptor, stream, judged, stop);
                let ended = tokio::time::timeout(CONNECTION_TIMEOUT, served).await;
                if let Ok(Err(error)) = ended {
                    complain(address, &error);
                }
            });
        }
        drop(listener);
        let _ = connections.acquire_many(MAX_CONNECTIONS).await;
    }

    async fn connection(
        self: Arc<Self>,
        acceptor: TlsAcceptor,
        stream: TcpStream,
        judged: Arc<Semaphore>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), String> {
        let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
        let accepted = tokio::select! {
            accepted = accepting => accepted,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let stream = accepted
            .map_err(|_| "no handshake in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let service = service_fn(move |request: Request<Incoming>| {
            let (webhook, judged) = (Arc::clone(&self), Arc::clone(&judged));
            async move { Ok::<_, Infallible>(webhook.answer(request, &judged).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
            _ = stop.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await.map_err(|error| error.to_string())
    }

    /// What is no review is refused by a status; a review always has an answer, in time.
    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        judged: &Semaphore,
    ) -> Response<Full<Bytes>> {
        if request.method() != Method::POST || request.uri().path() != PATH {
            return text(StatusCode::NOT_FOUND, "reviews are posted to /validate\n");
        }
        let body = Limited::new(request.into_body(), MAX_REVIEW).collect();
        let body = match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the review is too large\n"),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the review has not come\n"),
        };
        let review = match Review::read(&body) {
            Ok(review) => review,
            Err(why) => return text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        };
        let webhook = Arc::clone(self);
        let judging = async {
            let _place = judged.acquire().await;
            webhook.review(&review).await
        };
        let verdict = match tokio::time::timeout(PATIENCE, judging).await {
            Ok(verdict) => verdict,
            Err(_) => {
                // As when nobody answers: the agents judge it anyway.
                self.metrics.admission("late");
                review::Verdict::allowed(vec!["it was not looked at in time".to_owned()])
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(review.answer(&verdict))));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }

    async fn review(&self, review: &Review) -> review::Verdict {
        let Some(object) = review.judged() else {
            self.metrics.admission("ignored");
            return review::Verdict::allowed(Vec::new());
        };
        let verdict = self.judge.judge(object).await;
        if verdict.allowed {
            let result = if verdict.warnings.is_empty() { "allowed" } else { "warned" };
            self.metrics.admission(result);
            return verdict;
        }
        self.metrics.admission("refused");
        tracing::info!(object = %review.name(), user = review.user(), why = ?verdict.refusals, "refused");
        let (kind, namespace, name) = review.object();
        self.audit.record(&AuditEvent::ObjectRefused {
            object: AuditObject { kind, namespace, name },
            operation: review.operation().to_owned(),
            user: review.user().to_owned(),
            findings: verdict.refusals.clone(),
        });
        verdict
    }
}

fn complain(address: SocketAddr, error: &str) {
    tracing::debug!(%address, error, "a connection for admission has ended");
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text.to_owned())));
    *response.status_mut() = status;
    response
}
