//! Live connections that no proxy carries, judged again when a policy changes: those between pods of
//! this node, and plaintext that the kernel has let in.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};
use undermesh_datapath::{
    LocalTupleTable, Netns, Publisher,
    sock_diag::{self, ConnectedSocket, INBOUND_MARK},
};
use undermesh_model::{NamespacedName, SpiffeId};
use undermesh_proxy::{Proxy, peer};
use undermesh_snapshot::{CompiledPolicy, ConnectionAttributes, Snapshot, WorkloadInfo, evaluate};
use undermesh_telemetry::{
    CloseReason, ConnectionInfo, Denial, Peer, Reporter, Security, Telemetry, Transport,
};

use crate::{enrolment::EnrolmentView, kernel_events::KernelEvents};

/// Ends what a changed policy refuses.
pub(crate) struct Rejudge {
    enrolment: Arc<EnrolmentView>,
    local_tuples: LocalTupleTable,
    events: Arc<KernelEvents>,
    proxy: Arc<Proxy>,
    telemetry: Arc<Telemetry>,
    /// The policies that the live connections of each pod have been judged by.
    judged: Mutex<BTreeMap<NamespacedName, Option<Arc<CompiledPolicy>>>>,
}

impl Rejudge {
    pub(crate) fn new(
        enrolment: Arc<EnrolmentView>,
        local_tuples: LocalTupleTable,
        events: Arc<KernelEvents>,
        proxy: Arc<Proxy>,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let judged = Mutex::default();
        Self { enrolment, local_tuples, events, proxy, telemetry, judged }
    }

    /// To be called when the maps are in force, so that what is ended cannot come back. Blocks for
    /// as long as it takes to look through the sockets of pods whose policy has changed.
    pub(crate) fn run(&self, snapshot: &Snapshot) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        let namespaces = self.enrolment.namespaces();
        for workload in &snapshot.local {
            let policy = snapshot.policies.get(&workload.name);
            // What a pod has brought along when it joined, or was judged by a former agent, stays.
            let Some(former) = judged.insert(workload.name.clone(), policy.cloned()) else {
                continue;
            };
            let namespace = namespaces.get(&workload.name);
            let (Some(policy), Some(namespace)) = (policy, namespace) else { continue };
            if former.as_ref() == Some(policy) {
                continue;
            }
            if let Err(error) = self.judge_pod(snapshot, workload, policy, namespace) {
                tracing::error!(
                    pod = %workload.name,
                    error = format!("{error:#}"),
                    "connections that its policy refuses now may go on"
                );
            }
        }
        let local: HashSet<&NamespacedName> =
            snapshot.local.iter().map(|workload| &workload.name).collect();
        judged.retain(|name, _| local.contains(name));
    }

    fn judge_pod(
        &self,
        snapshot: &Snapshot,
        workload: &WorkloadInfo,
        policy: &CompiledPolicy,
        namespace: &Path,
    ) -> Result<()> {
        let netns = Netns::open(namespace)?;
        let listening: HashSet<u16> =
            sock_diag::listeners(&netns)?.iter().map(|socket| socket.port).collect();
        for socket in sock_diag::connections(&netns)? {
            // What the agent has accepted, the proxy judges; what the pod has opened, its peer.
            let is_inbound = workload.addresses.contains(&socket.local.ip())
                && listening.contains(&socket.local.port())
                && socket.mark != INBOUND_MARK
                && !socket.remote.ip().is_loopback()
                && !self.local_tuples.contains(socket.local, socket.remote);
            if is_inbound {
                self.judge(snapshot, workload, policy, &netns, &socket)?;
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        snapshot: &Snapshot,
        workload: &WorkloadInfo,
        policy: &CompiledPolicy,
        netns: &Netns,
        socket: &ConnectedSocket,
    ) -> Result<()> {
        let source = match self.local_tuples.publisher(socket.remote, socket.local) {
            Some(Publisher::Kubelet) => return Ok(()),
            Some(Publisher::Pod(cookie)) => self.enrolment.by_cookie(cookie),
            None => None,
        };
        // The record of a connection may be lost; then it stays only if it might both as the pod that
        // has its address and as nobody.
        let owner = snapshot.workloads.get(&socket.remote.ip()).filter(|owner| owner.local);
        let candidates = match (&source, owner) {
            (Some(source), _) => vec![Some(&source.identity)],
            (None, Some(owner)) => vec![Some(&owner.identity), None],
            (None, None) => vec![None],
        };
        let mut connections = candidates.into_iter().map(|identity| attributes(identity, socket));
        let Some(refused) = connections.find(|one| !evaluate(policy, one).allowed) else {
            return Ok(());
        };
        let detail = self.proxy.count_policy(policy, &refused);
        let because = CloseReason::new("policy_denied_late", "UAEX").with_detail(detail);
        if source.is_some() {
            self.events.will_end(socket.remote, socket.local, because);
        } else {
            let info = plaintext(snapshot, workload, socket);
            self.telemetry.denied(&Denial { info, reason: because });
        }
        sock_diag::destroy(netns, socket)
            .with_context(|| format!("cannot end the connection from {}", socket.remote))
    }
}

fn attributes<'a>(
    source: Option<&'a SpiffeId>,
    socket: &ConnectedSocket,
) -> ConnectionAttributes<'a> {
    ConnectionAttributes { source, source_address: socket.remote.ip(), destination: socket.local }
}

fn plaintext(
    snapshot: &Snapshot,
    workload: &WorkloadInfo,
    socket: &ConnectedSocket,
) -> ConnectionInfo {
    ConnectionInfo {
        reporter: Reporter::Destination,
        source: Peer::unknown(),
        destination: peer(workload),
        service: None,
        security: Security::None,
        transport: Transport::Plain,
        source_addr: socket.remote,
        dialled: None,
        upstream: Some(socket.local),
        generation: snapshot.generation.0,
    }
}
