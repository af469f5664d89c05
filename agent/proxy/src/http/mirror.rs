//! Copies of requests for others to look at. Nobody waits for their answers, and a slow one loses its
//! copy rather than slow the request down.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Request, uri::Authority};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use undermesh_snapshot::traffic::{ClusterSpec, CompiledRoute, Target};

use super::{
    dial::{Asks, Dialer},
    edits,
    front::Front,
    head::Head,
    random,
    replay::Copies,
};
use crate::upstream::{Body, BodyError, LocalError, Outcome, Pick};

/// Copies that may be under way on a node.
const MAX_COPIES: usize = 1024;
/// Parts of a body that a copy may lag behind.
const MAX_LAG: usize = 64;
/// A copy that takes longer is given up.
const MAX_TIME: std::time::Duration = std::time::Duration::from_secs(60);

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// Starts the copies that a route wants, and says where the body is to be copied to.
pub(crate) fn start(
    front: &Front,
    host: &str,
    route: Option<&CompiledRoute>,
    head: &Head,
    body: &Incoming,
) -> Vec<Copies> {
    let mut copies = Vec::new();
    for (target, share) in route.map(|route| route.mirrors.as_slice()).unwrap_or_default() {
        let Target::Cluster(spec) = target else { continue };
        if head.upgrade.is_some() || !random::chance(*share) {
            continue;
        }
        let Some(place) = Place::take() else { continue };
        let (content, copy) = channel(body.is_end_stream());
        copies.extend(copy);
        let request = request(head, content);
        let front = front.clone();
        let (spec, host) = (Arc::clone(spec), host.to_owned());
        let pod = Arc::clone(&front.pod);
        let task = async move {
            let sent = tokio::time::timeout(MAX_TIME, send(&front, &host, &spec, request));
            tokio::select! {
                _ = sent => {}
                () = front.pod.kill.cancelled() => {}
            }
            drop(place);
        };
        pod.spawn(task);
    }
    copies
}

/// One of the copies that may be under way.
struct Place;

impl Place {
    fn take() -> Option<Self> {
        let taken = UNDER_WAY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < MAX_COPIES).then_some(count + 1)
        });
        taken.ok().map(|_| Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body, and who fills it. The end comes through the channel as well: a request that breaks off must
/// not look complete.
fn channel(empty: bool) -> (Body, Option<Copies>) {
    if empty {
        let body = http_body_util::Empty::new().map_err(|never| match never {});
        return (body.boxed_unsync(), None);
    }
    let (sender, receiver) = mpsc::channel::<Option<Frame<Bytes>>>(MAX_LAG);
    let copy: Copies = Box::new(move |frame| {
        let again = frame.map(|frame| match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Frame::data(data.clone()),
            (None, trailers) => Frame::trailers(trailers.cloned().unwrap_or_default()),
        });
        sender.try_send(again).is_ok()
    });
    (Copied { receiver, ended: false }.boxed_unsync(), Some(copy))
}

struct Copied {
    receiver: mpsc::Receiver<Option<Frame<Bytes>>>,
    ended: bool,
}

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return std::task::Poll::Ready(None);
        }
        self.receiver.poll_recv(cx).map(|received| match received {
            Some(Some(frame)) => Some(Ok(frame)),
            Some(None) => {
                self.ended = true;
                None
            }
            None => Some(Err("the copy broke off".into())),
        })
    }
}

/// The request, with an authority that says what it is, as Envoy has it.
fn request(head: &Head, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = head.parts.method.clone();
    *request.version_mut() = head.parts.version;
    *request.headers_mut() = head.parts.headers.clone();
    let mut uri = head.parts.uri.clone();
    if let Some(shadow) = uri.authority().and_then(shadow) {
        edits::set_authority(&mut uri, &shadow);
    }
    *request.uri_mut() = uri;
    request
}

/// `cart:80` becomes `cart-shadow:80`.
fn shadow(authority: &Authority) -> Option<HeaderValue> {
    let host = authority.host();
    // An address has no suffix to take.
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return None;
    }
    let port = authority.port().map(|port| format!(":{port}")).unwrap_or_default();
    HeaderValue::try_from(format!("{host}-shadow{port}")).ok()
}

async fn send(front: &Front, host: &str, spec: &Arc<ClusterSpec>, request: Request<Body>) {
    let asked = request.uri().host().unwrap_or_default();
    let Some(cluster) = front.pod.upstreams.for_name(spec, asked).await else { return };
    let (client, dialled) = (front.client.ip(), front.dialled);
    let pick = Pick { hash: None, client, dialled, tried: &[], leave_tiers_of: &[] };
    let Ok(lease) = cluster.admit(&pick) else { return };
    let name = request.uri().host().unwrap_or_default().to_owned();
    let asks = Asks { host: &name, version: request.version(), upgrade: false };
    let dialer = Dialer { front, host, spec, tcp: lease.tcp(), request: asks };
    let outcome = match lease.send(&dialer, request).await {
        Ok(response) => {
            let status = response.status();
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            Outcome::Status(status)
        }
        Err(_) => Outcome::LocalError(LocalError::Reset),
    };
    lease.finish(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_that_it_is_one() {
        let shadow = |text: &str| shadow(&text.parse().unwrap());
        assert_eq!(shadow("cart:80").unwrap(), "cart-shadow:80");
        assert_eq!(shadow("cart.shop").unwrap(), "cart.shop-shadow");
        assert_eq!(shadow("10.0.0.1:80"), None);
        assert_eq!(shadow("[fd00::1]:80"), None);
    }
}
