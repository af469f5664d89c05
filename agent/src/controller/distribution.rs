//! Configuration for agents: streams that the gRPC server has admitted, and what is noted of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use undermesh_control::{DISTRIBUTION_PATH, Delivery, EndKind, Hub, Observer, Peer, StreamEnd};
use undermesh_identity::{
    Code,
    issuance::{Asker, Caller, Refusal, Serving, Streams},
};
use undermesh_telemetry::{Audit, AuditEvent};

use super::{metrics::Metrics, observed::who};

/// What agents have taken is audited together for this long, but for first states and refusals.
const TOGETHER: Duration = Duration::from_secs(60);
/// How often it is looked after that.
const LOOK: Duration = Duration::from_secs(10);

/// Serves streams.
pub(super) struct Distribution {
    hub: Hub,
    distributed: Arc<Distributed>,
}

impl Distribution {
    pub(super) fn new(hub: Hub, distributed: Arc<Distributed>) -> Self {
        Self { hub, distributed }
    }
}

impl Streams for Distribution {
    fn path(&self) -> &'static str {
        DISTRIBUTION_PATH
    }

    fn serve(
        &self,
        caller: Caller,
        incoming: mpsc::Receiver<Result<Bytes, String>>,
        outgoing: mpsc::Sender<Bytes>,
    ) -> Serving {
        let hub = self.hub.clone();
        let Caller { node, namespace, pod, uid, address, until } = caller;
        let peer = Peer { node, namespace, pod, uid, address, until };
        Box::pin(async move { hub.serve(peer, incoming, outgoing).await.map_err(refusal) })
    }

    fn refused(&self, asker: &Asker, refusal: &Refusal) {
        self.distributed.refused(asker, refusal);
    }
}

fn refusal(end: StreamEnd) -> Refusal {
    let code = match end.kind {
        EndKind::Invalid => Code::InvalidArgument,
        EndKind::Denied => Code::PermissionDenied,
        EndKind::Exhausted => Code::ResourceExhausted,
        EndKind::Unavailable => Code::Unavailable,
    };
    Refusal::new(code, end.reason, end.message)
}

/// Notes what is distributed: metrics, and lines of the audit log.
pub(super) struct Distributed {
    audit: Audit,
    metrics: Metrics,
    /// What is not audited yet, by node and pod.
    pending: Mutex<HashMap<(String, String), Pending>>,
}

/// States that an agent has put in force.
struct Pending {
    since: Instant,
    address: String,
    version: String,
    states: u64,
    objects: u64,
    removed: u64,
    bytes: u64,
}

impl Distributed {
    pub(super) fn new(audit: Audit, metrics: Metrics) -> Self {
        Self { audit, metrics, pending: Mutex::default() }
    }

    /// Audits what has waited for long enough, until it is dropped.
    pub(super) async fn tell_in_time(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.tell(|pending| pending.since.elapsed() >= TOGETHER);
        }
    }

    fn refused(&self, asker: &Asker, refusal: &Refusal) {
        self.metrics.stream_refused(refusal.reason);
        let (address, reason, node) = (asker.address, refusal.reason, asker.node.as_deref());
        tracing::info!(%address, node, reason, message = refusal.message, "stream refused or ended");
        if matches!(refusal.code, Code::Unavailable) {
            return;
        }
        self.audit.record(&AuditEvent::DistributionRefused {
            reason: reason.to_owned(),
            message: refusal.message.clone(),
            asker: who(asker),
        });
    }

    fn tell(&self, is_due: impl Fn(&Pending) -> bool) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.retain(|(node, pod), one| {
            let due = is_due(one);
            if due {
                self.record((node, pod), "changes", one, None);
            }
            !due
        });
    }

    fn record(
        &self,
        (node, pod): (&str, &str),
        what: &'static str,
        pending: &Pending,
        message: Option<String>,
    ) {
        self.audit.record(&AuditEvent::ConfigurationDistributed {
            node: node.to_owned(),
            pod: pod.to_owned(),
            address: pending.address.clone(),
            what,
            version: pending.version.clone(),
            states: pending.states,
            objects: pending.objects,
            removed: pending.removed,
            bytes: pending.bytes,
            message,
        });
    }
}

impl Observer for Distributed {
    fn delivered(&self, peer: &Peer, delivery: &Delivery) {
        let result = if delivery.rejected.is_some() { "rejected" } else { "accepted" };
        self.metrics.delivered(result, delivery.bytes);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.node.clone(), peer.pod.clone());
        let mut one = pending.remove(&key).unwrap_or_else(|| Pending::new(peer));
        one.version.clone_from(&delivery.version);
        one.states += 1;
        one.objects += delivery.resources as u64;
        one.removed += delivery.removed as u64;
        one.bytes += delivery.bytes;
        let what = match &delivery.rejected {
            Some(_) => "rejected",
            None if delivery.first => "first",
            None => {
                pending.insert(key, one);
                return;
            }
        };
        drop(pending);
        if let Some(message) = &delivery.rejected {
            let node = &peer.node;
            tracing::warn!(%node, message, "an agent cannot put in force what it was sent");
        }
        self.record((&key.0, &key.1), what, &one, delivery.rejected.clone());
    }

    fn streams(&self, count: usize) {
        self.metrics.streams(count);
    }

    fn catalogue(&self, objects: usize) {
        self.metrics.objects(objects);
    }
}

impl Pending {
    fn new(peer: &Peer) -> Self {
        Self {
            since: Instant::now(),
            address: peer.address.to_string(),
            version: String::new(),
            states: 0,
            objects: 0,
            removed: 0,
            bytes: 0,
        }
    }
}
