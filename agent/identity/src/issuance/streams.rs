//! Streams beside certificates: bytes in both directions, for agents alone. What is in them, others know.
//!
//! **Invariant**: who gets a stream has shown a certificate of the mesh and a token that are of the same account, one of node
//! agents; the token is bound to a pod that there is, on the node for which the stream is.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Asker, Credentials, Issuance, Refusal};
use crate::grpc::{self, Code};

/// Pieces that wait to be taken, on either side.
const QUEUE: usize = 4;

/// Who has a stream.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its node.
    pub node: String,
    /// Namespace of its pod.
    pub namespace: String,
    /// Name of its pod.
    pub pod: String,
    /// UID of its pod.
    pub uid: String,
    /// The address at the other end.
    pub address: IpAddr,
    /// Until when its certificate is good.
    pub until: Instant,
}

/// What becomes of a stream.
pub type Serving = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// What serves streams.
pub trait Streams: Send + Sync {
    /// Its method, as HTTP/2 asks for it.
    fn path(&self) -> &'static str;

    /// Serves a stream to its end. An error of `incoming` is its end.
    fn serve(
        &self,
        caller: Caller,
        incoming: mpsc::Receiver<Result<Bytes, String>>,
        outgoing: mpsc::Sender<Bytes>,
    ) -> Serving;

    /// Somebody is refused a stream.
    fn refused(&self, asker: &Asker, refusal: &Refusal);
}

impl Issuance {
    /// Who asks for a stream, if he may have one.
    pub(super) async fn agent(
        &self,
        credentials: &Credentials,
        streams: &dyn Streams,
    ) -> Result<Caller, Refusal> {
        let mut asker = credentials.asker(None);
        let judged = self.judge_agent(credentials, &mut asker).await;
        judged.inspect_err(|refusal| streams.refused(&asker, refusal))
    }

    async fn judge_agent(
        &self,
        credentials: &Credentials,
        asker: &mut Asker,
    ) -> Result<Caller, Refusal> {
        self.within_rate(credentials)?;
        let (Some(token), Some(svid)) = (&credentials.token, &credentials.svid) else {
            let message = "a token and a certificate of the mesh have to be shown, both of them";
            return Err(Refusal::new(Code::Unauthenticated, "unauthenticated", message));
        };
        let own = self.authenticate(credentials, asker).await?;
        let denied =
            |reason, message: String| Err(Refusal::new(Code::PermissionDenied, reason, message));
        if own != svid.id {
            let message = format!("the token is of {own}, and the certificate of {}", svid.id);
            return denied("certificate_mismatch", message);
        }
        let account = (own.namespace.clone(), own.service_account.clone());
        if !self.config.node_accounts.contains(&account) {
            return denied("not_a_node_agent", format!("{own} is no node agent"));
        }
        let bound = self.bearer(token).await?.0.pod;
        let (Some(node), Some((pod, uid))) = (asker.node.clone(), bound) else {
            let message =
                format!("{own} has shown a token of no pod that there is; its node is unknown");
            return denied("no_node", message);
        };
        let left = Duration::try_from(svid.expires - OffsetDateTime::now_utc());
        let until = Instant::now() + left.unwrap_or_default();
        let (namespace, address) = (own.namespace, credentials.address);
        Ok(Caller { node, namespace, pod, uid, address, until })
    }
}

/// Begins a stream, which goes on by itself.
pub(super) fn begin(
    streams: &Arc<dyn Streams>,
    caller: Caller,
    body: Incoming,
    mut shutdown: watch::Receiver<bool>,
) -> Response<Reply> {
    let (incoming, taken) = mpsc::channel(QUEUE);
    let (outgoing, sent) = mpsc::channel(QUEUE);
    let (end, ended) = oneshot::channel();
    tokio::spawn(pump(body, incoming));
    let asker = Asker {
        address: caller.address,
        identity: None,
        pod: Some(caller.pod.clone()),
        node: Some(caller.node.clone()),
        wanted: None,
    };
    let serving = streams.serve(caller, taken, outgoing);
    let streams = Arc::clone(streams);
    tokio::spawn(async move {
        let result = tokio::select! {
            result = serving => result,
            _ = shutdown.wait_for(|stop| *stop) => {
                let message = "this controller stops; others may go on";
                Err(Refusal::new(Code::Unavailable, "stopping", message))
            }
        };
        let status = match &result {
            Ok(()) => grpc::status(None, ""),
            Err(refusal) => {
                streams.refused(&asker, refusal);
                grpc::status(Some(refusal.code), &refusal.message)
            }
        };
        let _ = end.send(status);
    });
    let mut response = Response::new(Reply { sent, ended: Some(ended) });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(grpc::ENCODING, HeaderValue::from_static(grpc::GZIP));
    response
}

/// Takes a body's bytes to who reads them; its end is their end. Text of a status that is none of success is an error.
pub(crate) async fn pump(mut body: Incoming, to: mpsc::Sender<Result<Bytes, String>>) {
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = to.closed() => return,
        };
        let piece = match frame {
            None => return,
            Some(Err(error)) => Err(error.to_string()),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Ok(bytes),
                Err(frame) => match frame.trailers_ref().and_then(grpc::read_status) {
                    Some((code, text)) if code != 0 => Err(format!("(gRPC status {code}) {text}")),
                    _ => continue,
                },
            },
        };
        let is_over = piece.is_err();
        if to.send(piece).await.is_err() || is_over {
            return;
        }
    }
}

/// Bytes as they come, and the status at their end.
pub(super) struct Reply {
    sent: mpsc::Receiver<Bytes>,
    ended: Option<oneshot::Receiver<HeaderMap>>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(bytes) = ready!(self.sent.poll_recv(context)) {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        let status = ready!(Pin::new(ended).poll(context));
        self.ended = None;
        let lost = |_| grpc::status(Some(Code::Internal), "the stream was lost");
        Poll::Ready(Some(Ok(Frame::trailers(status.unwrap_or_else(lost)))))
    }
}
