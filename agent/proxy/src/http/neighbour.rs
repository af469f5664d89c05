//! A connection to another pod of this node: its policy is asked once, then it is delivered or judged.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};
use undermesh_snapshot::WorkloadInfo;

use super::front::Front;
use crate::{
    authorize::{Admission, Denial, PolicyWatch, authorize, revoked},
    deliver,
    duplex::Socket,
    error::Failure,
    guard::{self, Delivery, Visit},
    plan::Target,
    pod::Pod,
    record,
    upstream::ByteStream,
};

/// Bytes on their way to a judge that this proxy holds back.
const PIPE: usize = 64 << 10;

/// A connection that the other pod's policy has not refused.
pub(super) struct Neighbour {
    /// The client's pod.
    source: Arc<WorkloadInfo>,
    visit: Visit,
    admission: Admission,
    /// From before the decision, so that no change of policy is missed.
    policies: PolicyWatch,
}

impl Neighbour {
    /// Asks on behalf of `front`'s client; nothing where the target is no pod of this node that can be reached
    /// without a wire.
    pub(super) fn ask(front: &Front, target: &Target) -> Result<Option<Self>, Failure> {
        let local = target.workload.as_ref().and_then(|workload| local_pod(&front.pod, workload));
        local.map(|pod| Self::admit(front, pod, target.address)).transpose()
    }

    fn admit(front: &Front, pod: Arc<Pod>, destination: SocketAddr) -> Result<Self, Failure> {
        deliver::check(&pod, destination)?;
        let mut policies = pod.policy.subscribe();
        let policy = policies.borrow_and_update().clone();
        let client = front.client_towards(destination);
        let workload = Arc::clone(&front.pod.workload);
        let source = Some(workload.identity.clone());
        let delivery = Delivery::AsSetUp;
        let visit = Visit { pod, source, source_addr: client, client, destination, delivery };
        let metrics = &visit.pod.shared.metrics;
        let admission = authorize(&visit.attempt(), policy.as_deref(), metrics).map_err(denied)?;
        if admission == Admission::Judge {
            guard::count_connection(&visit).map_err(denied)?;
        }
        Ok(Self { source: workload, visit, admission, policies })
    }

    /// Whether requests on it are judged one by one.
    pub(super) fn is_judged(&self) -> bool {
        self.admission == Admission::Judge
    }

    /// A stream to the judge, for as long as the policy lets this client in.
    pub(super) fn judged(self, http2: bool) -> Box<dyn ByteStream> {
        let Self { source, visit, policies, .. } = self;
        let (near, far) = tokio::io::duplex(PIPE);
        let gone = CancellationToken::new();
        let near = Near { stream: near, _gone: gone.clone().drop_guard() };
        let info = record::captured(&visit.pod, visit.client, visit.destination, Some(&source));
        let (pod, client) = (Arc::clone(&visit.pod), visit.client);
        let task = async move {
            let killed = Arc::clone(&visit.pod);
            tokio::select! {
                () = guard::serve_bytes(visit, info, far, http2, policies) => {}
                // The end of a pipe looks like that of its one half.
                () = gone.cancelled() => {}
                () = killed.kill.cancelled() => {}
            }
        };
        pod.spawn_for(client.ip(), task);
        Box::new(near)
    }

    /// Delivers bytes that nobody looks into, for as long as the policy lets this client in.
    pub(super) async fn deliver(self) -> Result<Socket, Failure> {
        if self.is_judged() {
            guard::authorize_opaque(&self.visit).map_err(denied)?;
        }
        let Self { visit, mut policies, .. } = self;
        let socket = deliver::deliver(&visit.pod, visit.client, visit.destination).await?;
        Ok(socket.until(async move {
            let (pod, destination) = (&visit.pod, visit.destination);
            let attempt = visit.attempt();
            tokio::select! {
                denial = revoked(&attempt, &mut policies, &pod.shared.metrics) => {
                    tracing::debug!(%destination, detail = %denial.detail, "a connection was revoked");
                }
                () = pod.kill.cancelled() => {}
            }
        }))
    }
}

/// The end of a pipe whose other end hears when it is let go.
struct Near {
    stream: DuplexStream,
    _gone: DropGuard,
}

impl AsyncRead for Near {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Near {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn denied(Denial { reason, detail }: Denial) -> Failure {
    Failure::Denied { reason, detail }
}

/// The pod of this node that can be reached without a wire.
pub(super) fn local_pod(pod: &Pod, workload: &Arc<WorkloadInfo>) -> Option<Arc<Pod>> {
    let direct = workload.local && workload.direct;
    direct.then(|| pod.shared.local_pod(workload)).flatten()
}
