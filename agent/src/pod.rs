//! One enrolled pod: from its location to a served, intercepted network namespace, and back.

use std::{
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use undermesh_datapath::{
    AgentMark, CgroupRoot, Netns, NetnsId, OriginalDstTable, PodListeners as ListenerFds,
    PodPrograms,
};
use undermesh_model::{FailMode, PodLocation};
use undermesh_proxy::{PodHandle, PodListeners, Proxy};
use undermesh_snapshot::WorkloadInfo;

use crate::{
    listeners::Listeners,
    sockets::{NetnsSockets, PodOriginalDst},
};

/// Flag of a pod's map entry that follows from the node's fail mode.
const FAIL_OPEN: u32 = 1;

/// What every pod needs of the node.
pub(crate) struct Node {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) programs: Mutex<PodPrograms>,
    pub(crate) original_dst: OriginalDstTable,
    pub(crate) mark: AgentMark,
    pub(crate) cgroups: CgroupRoot,
}

/// A pod that is switched on.
pub(crate) struct EnrolledPod {
    workload: Arc<WorkloadInfo>,
    namespace: Namespace,
    /// The proxy's listeners once more, to lead the programs to them again should another agent
    /// have taken over and failed.
    listeners: Option<Listeners>,
    handle: PodHandle,
}

/// What stays known of a namespace: holding it open would keep it alive beyond its pod.
struct Namespace {
    path: PathBuf,
    id: NetnsId,
    cookie: u64,
}

impl EnrolledPod {
    /// Opens the listeners, lets the programs lead traffic there, and starts the proxy.
    pub(crate) fn enrol(node: &Node, workload: &Arc<WorkloadInfo>) -> Result<Self> {
        let path = locate(node, workload)?;
        let netns = Arc::new(Netns::open(&path)?);
        if netns.is_own() {
            bail!(
                "{} is the agent's own network namespace; hostNetwork pods cannot be enrolled",
                path.display()
            );
        }
        let listeners = Listeners::open(&netns, &workload.addresses)?;
        let kept = listeners.try_clone()?;
        switch_on(node, &netns, workload, &listeners)?;
        let namespace = Namespace { path, id: netns.id(), cookie: netns.cookie() };
        let handle = node.proxy.serve_pod(PodListeners {
            workload: Arc::clone(workload),
            outbound: listeners.outbound,
            hbone: listeners.hbone4.into_iter().chain(listeners.hbone6).collect(),
            original_dst: Arc::new(PodOriginalDst {
                table: node.original_dst.clone(),
                netns_cookie: namespace.cookie,
            }),
            sockets: Arc::new(NetnsSockets { netns, mark: node.mark.clone() }),
        })?;
        Ok(Self { workload: Arc::clone(workload), namespace, listeners: Some(kept), handle })
    }

    /// Leads the programs to this agent's listeners again.
    pub(crate) fn assert_again(&self, node: &Node) -> Result<()> {
        let listeners = self.listeners.as_ref().context("its listeners are closed")?;
        let netns = Netns::open(&self.namespace.path)?;
        switch_on(node, &netns, &self.workload, listeners)
    }

    /// Switches interception off at once. Live connections go on, unless the namespace itself has
    /// gone: they would keep it alive, and nobody is left to answer them.
    pub(crate) fn leave(mut self, node: &Node) -> Result<()> {
        let mut programs = node.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.switch_off(self.namespace.cookie, &self.workload.addresses)?;
        drop(programs);
        if self.namespace_is_there() {
            self.stop_accepting();
        } else {
            self.handle.abort();
        }
        Ok(())
    }

    /// Leads nothing more to the listeners.
    pub(crate) fn refuse_new(&self, node: &Node) -> Result<()> {
        let mut programs = node.programs.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(programs.refuse_new(self.namespace.cookie, &self.workload.addresses)?)
    }

    /// Closes the listeners but leaves the programs in place: what a terminating agent does, so
    /// that nothing falls back to plaintext until its successor is there.
    pub(crate) fn stop_accepting(&mut self) {
        self.listeners = None;
        self.handle.stop_accepting();
    }

    /// Waits until the last connection has ended; false where some are left after `time`.
    pub(crate) async fn drained(&self, time: std::time::Duration) -> bool {
        self.handle.drained(time).await
    }

    /// Whether the path still leads to the namespace that was enrolled.
    pub(crate) fn namespace_is_there(&self) -> bool {
        NetnsId::of(&self.namespace.path).is_ok_and(|id| id == self.namespace.id)
    }

    pub(crate) fn workload(&self) -> &Arc<WorkloadInfo> {
        &self.workload
    }

    pub(crate) fn netns_cookie(&self) -> u64 {
        self.namespace.cookie
    }
}

fn switch_on(
    node: &Node,
    netns: &Netns,
    workload: &WorkloadInfo,
    listeners: &Listeners,
) -> Result<()> {
    let fds = ListenerFds {
        hbone4: listeners.hbone4.as_ref().map(AsFd::as_fd),
        hbone6: listeners.hbone6.as_ref().map(AsFd::as_fd),
        outbound_port: listeners.outbound_port,
    };
    let flags = if workload.outbound_failure == FailMode::Open { FAIL_OPEN } else { 0 };
    let mut programs = node.programs.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(programs.switch_on(netns, &workload.addresses, fds, flags)?)
}

/// Finds the pod's network namespace: by name, or by the processes of its cgroup.
fn locate(node: &Node, workload: &WorkloadInfo) -> Result<PathBuf> {
    match &workload.location {
        Some(PodLocation::Netns(path)) => Ok(path.clone()),
        Some(PodLocation::Cgroup(path)) => {
            let processes = node.cgroups.processes(path)?;
            let pid = processes.first().with_context(|| {
                format!("cgroup {} has no process yet", node.cgroups.resolve(path).display())
            })?;
            Ok(PathBuf::from(format!("/proc/{pid}/ns/net")))
        }
        None => bail!("set the annotation undermesh.io/netns or undermesh.io/cgroup"),
    }
}
