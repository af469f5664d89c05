//! A way to a port of a pod: through the API server and the pod's kubelet (`pods/portforward`, over a WebSocket), into
//! the pod's own network. It gets to what listens at loopback there, and nobody else can.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Error, api::Portforwarder, client::UpgradeConnectionError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::{ANSWER, ApiError, ApiServer, is_name};
use crate::kube_client::chain;

/// Longest that a kubelet's words get. The cause comes last, behind names and paths of the runtime's.
const MAX_WORDS: usize = 1024;

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

type Said = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// One connection to a port of a pod; it ends with this.
pub struct Forwarded {
    stream: Box<dyn Both>,
    /// What the kubelet says of a port that cannot be reached; absent once it has said all.
    said: Option<Said>,
    forwarder: Portforwarder,
}

impl fmt::Debug for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forwarded")
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

impl ApiServer {
    /// Connects to a port at loopback of a pod. Whether anything listens there shows when it is read from.
    ///
    /// # Errors
    /// Where the server cannot be asked, or refuses.
    pub async fn forward(
        &self,
        (namespace, pod): (&str, &str),
        port: u16,
    ) -> Result<Forwarded, ApiError> {
        if !is_name(namespace) || !is_name(pod) {
            return Err(ApiError::Lost(format!("{namespace}/{pod} is no pod's name")));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let opened = timeout(ANSWER, pods.portforward(pod, &[port])).await;
        let opened = opened.map_err(|_| ApiError::Lost(format!("no answer within {ANSWER:?}")))?;
        let mut forwarder = opened.map_err(|error| refused(&error, namespace, pod))?;
        let (Some(stream), Some(said)) = (forwarder.take_stream(port), forwarder.take_error(port))
        else {
            return Err(ApiError::Lost("there is no stream for the port".to_owned()));
        };
        Ok(Forwarded { stream: Box::new(stream), said: Some(Box::pin(said)), forwarder })
    }
}

fn refused(error: &Error, namespace: &str, pod: &str) -> ApiError {
    let Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(code)) = error else {
        return ApiError::Lost(chain(error));
    };
    let message = match code.as_u16() {
        401 => "the API server does not know who asks".to_owned(),
        // Which of the two is looked at depends on the server's version.
        403 => format!(
            "no right to reach into pods: it takes a Role in namespace {namespace} with apiGroups [\"\"], resources \
             [pods/portforward], verbs [get, create]"
        ),
        404 => format!("there is no pod {namespace}/{pod}"),
        _ => format!("the API server does not lead to pod {namespace}/{pod}: {code}"),
    };
    ApiError::Refused { code: code.as_u16(), message }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let ended = matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if !ended && read.is_ready() {
            return read;
        }
        // Nothing has come: the kubelet may have said why.
        if let Some(said) = &mut self.said
            && let Poll::Ready(words) = said.as_mut().poll(cx)
        {
            self.said = None;
            if let Some(words) = words {
                let words = words.chars().filter(|c| !c.is_control()).take(MAX_WORDS);
                return Poll::Ready(Err(io::Error::other(words.collect::<String>())));
            }
        }
        if ended { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// The protocol has no end of one direction alone: to end ours would cut off what is still to come.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }
}
