//! Connections that have become something else: WebSocket and others after `101`, and tunnels after a
//! successful CONNECT.

use std::sync::Arc;

use http::{
    Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, UPGRADE},
};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{body::UntilEnd, front::Front};

/// An endpoint's `101` as HTTP/2 says it (RFC 8441, section 5).
pub(crate) fn as_http2<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, CONTENT_LENGTH] {
        response.headers_mut().remove(name);
    }
}

/// Copies bytes between both ends until they are done, in a task of its own.
pub(crate) fn join(
    front: &Arc<Front>,
    client: OnUpgrade,
    upstream: OnUpgrade,
    until_end: UntilEnd,
) {
    let pod = Arc::clone(&front.pod);
    let task = async move {
        tokio::select! {
            () = copy(client, upstream, until_end) => {}
            () = pod.kill.cancelled() => {}
        }
    };
    let pod = &front.pod;
    pod.spawn(task);
}

async fn copy(client: OnUpgrade, upstream: OnUpgrade, mut until_end: UntilEnd) {
    let (client, upstream) = tokio::join!(client, upstream);
    let (Ok(client), Ok(upstream)) = (client, upstream) else { return };
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    match tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
        Ok((received, sent)) => {
            until_end.log.upload.add(received);
            until_end.log.download.add(sent);
            until_end.end(None);
        }
        Err(error) => {
            tracing::debug!(%error, "an upgraded connection broke");
            until_end.end(None);
        }
    }
}
