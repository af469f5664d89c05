//! One enrolled pod: from its location to a served, intercepted network namespace, and back.

use std::{
    collections::BTreeSet,
    fmt, iter,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use undermesh_datapath::{
    AgentMark, CgroupRoot, DeliveryTable, Moment, Netns, NetnsId, OriginalDstTable,
    PodListeners as ListenerFds, PodPrograms, ReturnRoutes, pod_flags,
    sock_diag::{self, ListeningSocket},
};
use undermesh_model::{FailMode, PodLocation, SourceAddress};
use undermesh_proxy::{PodHandle, PodListeners, Proxy};
use undermesh_snapshot::{OutboundPolicy, WorkloadInfo};

use crate::{
    listeners::{self, Existence, Listeners},
    pod_cgroup,
    sockets::{Neighbours, NetnsSockets, PodOriginalDst},
    source::Source,
};

/// How long an agent goes on accepting what the programs have led to it before they ceased to.
pub(crate) const LAST_ACCEPTS: Duration = Duration::from_millis(500);

/// What every pod needs of the node.
pub(crate) struct Node {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) programs: Mutex<PodPrograms>,
    pub(crate) original_dst: OriginalDstTable,
    pub(crate) neighbours: Neighbours,
    pub(crate) mark: AgentMark,
    pub(crate) deliveries: DeliveryTable,
    pub(crate) return_routes: Mutex<ReturnRoutes>,
    pub(crate) connect_timeout: Duration,
    pub(crate) cgroups: CgroupRoot,
    /// The cgroup in which the kubelet runs its pods, where it is known.
    pub(crate) pods: Option<PathBuf>,
    /// Whether pods may dial what nobody has registered.
    pub(crate) outbound_policy: OutboundPolicy,
    /// Whether the kernel tells by itself who listens; without, it is looked up more often.
    pub(crate) reports_listeners: bool,
}

/// A pod that is switched on.
pub(crate) struct EnrolledPod {
    workload: Arc<WorkloadInfo>,
    namespace: Namespace,
    /// The proxy's listeners once more, to lead the programs to them again should another agent
    /// have taken over and failed.
    listeners: Option<Listeners>,
    handle: PodHandle,
    source: Source,
    /// Its namespace has been seen to have all of its addresses.
    complete: bool,
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
        // Routes need a loopback interface that is up; all else can be prepared before.
        let loopback = match workload.source_address {
            SourceAddress::Transparent => Existence::Required,
            SourceAddress::Translated => Existence::Awaited,
        };
        let listeners = Listeners::open(&netns, &workload.addresses, loopback)?;
        let kept = listeners.try_clone()?;
        let namespace = Namespace { path, id: netns.id(), cookie: netns.cookie() };
        let source = Source::prepare(node, &netns, workload);
        match serve(node, netns, workload, listeners, &source) {
            Ok(handle) => {
                let workload = Arc::clone(workload);
                let listeners = Some(kept);
                Ok(Self { workload, namespace, listeners, handle, source, complete: false })
            }
            Err(error) => {
                source.release(node, namespace.cookie);
                Err(error)
            }
        }
    }

    /// Leads the programs to this agent's listeners again.
    pub(crate) fn assert_again(&self, node: &Node) -> Result<()> {
        let listeners = self.listeners.as_ref().context("its listeners are closed")?;
        let netns = Netns::open(&self.namespace.path)?;
        self.source.assert_again(node, &netns, &self.workload);
        switch_on(node, &netns, &self.workload, listeners)
    }

    /// Switches interception off at once. Live connections go on, unless the namespace itself has
    /// gone: they would keep it alive, and nobody is left to answer them.
    pub(crate) fn leave(mut self, node: &Node) -> Result<()> {
        let mut programs = node.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.switch_off(self.namespace.cookie, &self.workload.addresses)?;
        drop(programs);
        self.source.release(node, self.namespace.cookie);
        if self.namespace_is_there(node) {
            // A listener that closes resets what is in its queue.
            tokio::spawn(async move {
                tokio::time::sleep(LAST_ACCEPTS).await;
                self.stop_accepting();
            });
        } else {
            self.handle.abort();
        }
        Ok(())
    }

    /// Looks where the applications listen, and tells the programs.
    pub(crate) fn look_who_listens(&self, node: &Node) -> Result<()> {
        let netns = Netns::open(&self.namespace.path)?;
        // A namespace that has gone, or whose path leads elsewhere by now, is left to the next pass.
        if netns.id() == self.namespace.id {
            write_listening(node, &netns, &self.workload)
        } else {
            Ok(())
        }
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
    pub(crate) async fn drained(&self, time: Duration) -> bool {
        self.handle.drained(time).await
    }

    /// Whether the namespace that was enrolled is still the pod's. A process that led there may have ended
    /// while others go on.
    pub(crate) fn namespace_is_there(&mut self, node: &Node) -> bool {
        let leads_there = |path: &Path| NetnsId::of(path).is_ok_and(|id| id == self.namespace.id);
        if leads_there(&self.namespace.path) {
            return true;
        }
        if matches!(self.workload.location, None | Some(PodLocation::Netns(_))) {
            return false;
        }
        match locate(node, &self.workload) {
            Ok(path) if leads_there(&path) => {
                self.namespace.path = path;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn workload(&self) -> &Arc<WorkloadInfo> {
        &self.workload
    }

    /// Checks that the namespace has the addresses that it is to have, until it has.
    pub(crate) fn complete(&mut self) -> Result<()> {
        if self.complete {
            return Ok(());
        }
        let netns = Netns::open(&self.namespace.path)?;
        match listeners::absent(&netns, &self.workload.addresses)? {
            Some(address) if address.is_loopback() => {
                bail!("{address} cannot be used; is the pod's loopback interface up?")
            }
            Some(address) => {
                bail!("{address} is not, or not yet, an address of the pod's network namespace")
            }
            None => {}
        }
        self.complete = true;
        Ok(())
    }

    /// What does not work as the configuration wants it.
    pub(crate) fn problem(&self) -> Option<&String> {
        self.source.problem()
    }

    /// Where its network namespace is.
    pub(crate) fn path(&self) -> &Path {
        &self.namespace.path
    }

    pub(crate) fn netns_cookie(&self) -> u64 {
        self.namespace.cookie
    }
}

/// Switches the programs on and starts the proxy.
fn serve(
    node: &Node,
    netns: Arc<Netns>,
    workload: &Arc<WorkloadInfo>,
    listeners: Listeners,
    source: &Source,
) -> Result<PodHandle> {
    // Before the programs ask for it; what begins to listen meanwhile is found right after.
    write_listening(node, &netns, workload)?;
    switch_on(node, &netns, workload, &listeners)?;
    Ok(node.proxy.serve_pod(PodListeners {
        workload: Arc::clone(workload),
        outbound: listeners.outbound,
        inbound: listeners.inbound4.into_iter().chain(listeners.inbound6).collect(),
        original_dst: Arc::new(PodOriginalDst {
            table: node.original_dst.clone(),
            netns_cookie: netns.cookie(),
            neighbours: node.neighbours.clone(),
        }),
        sockets: Arc::new(NetnsSockets {
            netns,
            mark: node.mark.clone(),
            transparent: source.transparently(node),
        }),
    })?)
}

fn switch_on(
    node: &Node,
    netns: &Netns,
    workload: &WorkloadInfo,
    listeners: &Listeners,
) -> Result<()> {
    let fds = ListenerFds {
        inbound4: listeners.inbound4.as_ref().map(AsFd::as_fd),
        inbound6: listeners.inbound6.as_ref().map(AsFd::as_fd),
        outbound_port: listeners.outbound_port,
    };
    let flags = flags_of(workload, node.outbound_policy);
    let mut programs = node.programs.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(programs.switch_on(netns, &workload.addresses, fds, flags)?)
}

/// What the programs have to know of a pod's connections.
pub(crate) fn flags_of(workload: &WorkloadInfo, policy: OutboundPolicy) -> u32 {
    let mut flags = 0;
    if workload.outbound_failure == FailMode::Open {
        flags |= pod_flags::OUTBOUND_FAIL_OPEN;
    }
    if policy == OutboundPolicy::RegistryOnly {
        flags |= pod_flags::REGISTRY_ONLY;
    }
    flags
}

fn write_listening(node: &Node, netns: &Netns, workload: &WorkloadInfo) -> Result<()> {
    let looked = Moment::now();
    let sockets = sock_diag::listeners(netns).context("cannot list its listening sockets")?;
    let listening = listening_at(&workload.addresses, &sockets);
    let mut programs = node.programs.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(programs.set_listening(&workload.addresses, &listening, looked)?)
}

/// At which of the pod's addresses somebody listens: at all of them for a socket bound to none, at
/// those of IPv4 too unless it is for IPv6 only.
fn listening_at(addresses: &[IpAddr], sockets: &[ListeningSocket]) -> BTreeSet<SocketAddr> {
    let reaches = |socket: &ListeningSocket, address: IpAddr| {
        let bound = socket.address.to_canonical();
        match bound {
            IpAddr::V4(any) if any.is_unspecified() => address.is_ipv4(),
            IpAddr::V6(any) if any.is_unspecified() => address.is_ipv6() || !socket.v6only,
            bound => bound == address,
        }
    };
    let at = |socket: &ListeningSocket| {
        let socket = *socket;
        let reached = addresses.iter().filter(move |address| reaches(&socket, **address));
        reached.map(move |address| SocketAddr::new(*address, socket.port))
    };
    sockets.iter().flat_map(at).collect()
}

/// Finds the pod's network namespace: by name, or by the processes of its cgroup.
fn locate(node: &Node, workload: &WorkloadInfo) -> Result<PathBuf> {
    match &workload.location {
        Some(PodLocation::Netns(path)) => Ok(path.clone()),
        Some(PodLocation::Cgroup(path)) => {
            let namespaces = node.cgroups.processes(path)?.into_iter();
            let mut namespaces = namespaces.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
            // Whoever starts a pod is in its cgroup before it is in its namespace.
            let own = NetnsId::of(Path::new("/proc/self/ns/net")).ok();
            let first = namespaces.next().with_context(|| {
                format!("cgroup {} has no process yet", node.cgroups.resolve(path).display())
            })?;
            let is_elsewhere = |path: &PathBuf| NetnsId::of(path).is_ok_and(|id| Some(id) != own);
            let elsewhere = iter::once(first.clone()).chain(namespaces).find(is_elsewhere);
            Ok(elsewhere.unwrap_or(first))
        }
        Some(PodLocation::Uid(uid)) => locate_by_uid(node, uid),
        None => bail!("set the annotation undermesh.io/netns or undermesh.io/cgroup"),
    }
}

fn locate_by_uid(node: &Node, uid: &str) -> Result<PathBuf> {
    let pods = node
        .pods
        .as_ref()
        .context("the cgroup in which the kubelet runs pods is not known; set podCgroup")?;
    let Some(cgroup) = pod_cgroup::find(pods, uid) else {
        let (pods, uid) = (pods.display(), uid);
        bail!(NotRunning(format!("below {pods} there is no cgroup of a pod with uid {uid}")));
    };
    let own = NetnsId::of(Path::new("/proc/self/ns/net")).ok();
    match pod_cgroup::namespace(&cgroup, own) {
        Some(path) => Ok(path),
        None if pod_cgroup::is_populated(&cgroup) => bail!(
            "all processes of {} are in the host's network namespace; it cannot be told which is the \
             pod's",
            cgroup.display()
        ),
        None => bail!(NotRunning(format!("cgroup {} has no process yet", cgroup.display()))),
    }
}

/// A pod does not run, as pods do before they start and after they end.
#[derive(Debug)]
pub(crate) struct NotRunning(String);

impl fmt::Display for NotRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotRunning {}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(socket: (&str, bool)) -> Vec<String> {
        let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let socket = ListeningSocket {
            address: socket.0.parse().unwrap(),
            port: 80,
            v6only: socket.1,
            inode: 0,
        };
        listening_at(&addresses, &[socket]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sockets_listen_where_they_are_bound() {
        assert_eq!(at(("0.0.0.0", false)), ["10.0.0.1:80"]);
        assert_eq!(at(("::", true)), ["[fd00::1]:80"]);
        assert_eq!(at(("::", false)), ["10.0.0.1:80", "[fd00::1]:80"]);
        assert_eq!(at(("10.0.0.1", false)), ["10.0.0.1:80"]);
        assert_eq!(at(("::ffff:10.0.0.1", false)), ["10.0.0.1:80"]);
        assert_eq!(at(("fd00::1", true)), ["[fd00::1]:80"]);
        for elsewhere in ["127.0.0.1", "::1", "10.0.0.2", "fe80::1"] {
            assert_eq!(at((elsewhere, false)), [""; 0], "{elsewhere}");
        }
    }
}
