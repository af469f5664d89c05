//! What the agent hands in for one enrolled pod, and the pod's state while it is served.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use undermesh_snapshot::{CompiledPolicy, Snapshot, WorkloadInfo};

use crate::{
    fair::Share, guard, native, overload::Priority, pool::Pool, proxy::Shared, upstream::Upstreams,
};

/// What the kernel's programs know about the connections of one pod; the agent asks BPF maps.
pub trait OriginalDst: Send + Sync {
    /// The address that the application dialled, for an accepted connection from `peer`.
    fn original_dst(&self, peer: SocketAddr) -> Option<SocketAddr>;

    /// The pod of this node that has opened a connection from `peer` to `destination` in this pod, as it
    /// was published before its SYN left.
    fn neighbour(&self, peer: SocketAddr, destination: SocketAddr) -> Option<Arc<WorkloadInfo>>;
}

/// Makes sockets inside one pod's network namespace.
pub trait PodSockets: Send + Sync {
    /// A fresh non-blocking TCP socket of the family of `remote`, with IP_BIND_ADDRESS_NO_PORT set:
    /// the proxy may bind it to an address, and must not use up a port for every connection that
    /// it delivers. Takes microseconds; it is called on the data path.
    ///
    /// `client` is given for a connection that is delivered to the pod's application: whom the
    /// application should see as its peer.
    fn stream(&self, remote: IpAddr, client: Option<SocketAddr>) -> io::Result<socket2::Socket>;

    /// A socket for a connection to the application at `to`, bound to the address of `client`, and
    /// to its port unless that is 0; ready to be connected. `None` where the pod's application
    /// sees its clients' addresses only through [`Self::stream`].
    fn transparent(&self, client: SocketAddr, to: SocketAddr) -> Option<io::Result<Transparent>>;

    /// Where the application that is known by this address listens: there. Only a test, which has no
    /// program in the kernel to tell a client's connection from a delivery, puts it elsewhere.
    fn application(&self, known_by: SocketAddr) -> SocketAddr {
        known_by
    }
}

/// A socket that is bound to an address of somebody else's.
pub struct Transparent {
    /// The socket.
    pub socket: socket2::Socket,
    /// What lets the connection pass; to be kept until it is over.
    pub pass: Pass,
}

/// Something that is taken back when it is dropped.
pub type Pass = Box<dyn Send + Sync>;

/// An enrolled pod of this node: its listeners, opened inside its network namespace.
pub struct PodListeners {
    /// Who it is.
    pub workload: Arc<WorkloadInfo>,
    /// Listeners that the kernel sends the pod's outgoing connections to.
    pub outbound: Vec<TcpListener>,
    /// Listeners for what arrives from outside the pod: tunnels of peers (port 15008), and
    /// connections to the application that the kernel leaves to the agent to judge.
    pub inbound: Vec<TcpListener>,
    /// Looks up where outgoing connections were meant to go.
    pub original_dst: Arc<dyn OriginalDst>,
    /// Makes sockets for connections that leave from the pod or go to its application.
    pub sockets: Arc<dyn PodSockets>,
}

/// A pod while it is served; shared by its accept loops and connections.
pub(crate) struct Pod {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workload: Arc<WorkloadInfo>,
    pub(crate) original_dst: Arc<dyn OriginalDst>,
    pub(crate) sockets: Arc<dyn PodSockets>,
    /// Ports of the proxy's own listeners; nobody is let through to them.
    pub(crate) own_ports: Vec<u16>,
    /// How much it matters under overload.
    pub(crate) priority: Priority,
    /// Its part of the threads' time.
    pub(crate) share: Share,
    /// Tunnels to other pods. They leave from this pod's address under its identity, so no other
    /// pod can share them.
    pub(crate) pool: Pool,
    /// Native connections to other pods.
    pub(crate) native: native::Pool,
    /// Native connections that peers have open.
    pub(crate) callers: native::Callers,
    /// Which service its judged connections are for.
    pub(crate) services: guard::Services,
    /// Destinations of requests, with the limits of this pod.
    pub(crate) upstreams: Upstreams,
    /// Who may reach it; kept up to date by [`crate::Proxy::policies_changed`].
    pub(crate) policy: watch::Sender<Option<Arc<CompiledPolicy>>>,
    /// No new connections.
    pub(crate) stop: CancellationToken,
    /// No connections at all.
    pub(crate) kill: CancellationToken,
    /// Accept loops and connections.
    pub(crate) tasks: TaskTracker,
    /// Connections through the outbound listeners.
    pub(crate) outbound_open: AtomicUsize,
    /// Tunnels that peers have open.
    pub(crate) tunnels_open: AtomicUsize,
    /// Connections delivered to the application.
    pub(crate) inbound_open: AtomicUsize,
}

impl Pod {
    /// Takes the policy of a snapshot over; connections hear of it only if it has changed.
    pub(crate) fn take_policy(&self, snapshot: &Snapshot) {
        let new = snapshot.policies.get(&self.workload.name);
        self.policy.send_if_modified(|policy| {
            let changed = policy.as_ref() != new;
            if changed {
                *policy = new.cloned();
            }
            changed
        });
    }
}

impl Pod {
    /// Runs something of this pod, which waits where others want their share of the threads.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(self.share.here().spend(task), &self.shared.runtime);
    }

    /// The same, as something that this peer asks for.
    pub(crate) fn spawn_for(&self, peer: IpAddr, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(self.share.of(peer).spend(task), &self.shared.runtime);
    }

    /// Closes connections that carry nothing.
    pub(crate) fn trim(&self) {
        self.native.trim();
        self.pool.trim();
        self.upstreams.trim();
    }
}

/// Keeps a counter up while it lives.
pub(crate) struct Open<'a>(&'a AtomicUsize);

impl<'a> Open<'a> {
    pub(crate) fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends a served pod. Dropping the handle stops accepting and leaves open connections alone.
pub struct PodHandle {
    pub(crate) pod: Arc<Pod>,
}

impl PodHandle {
    /// Closes the listeners. Open connections live on; peers are told to open no more streams.
    pub fn stop_accepting(&self) {
        self.pod.stop.cancel();
        self.pod.tasks.close();
    }

    /// Waits until the last connection has ended, no longer than `deadline`. Returns false where
    /// connections are left. Needs [`Self::stop_accepting`] first, or there is no end to wait for.
    pub async fn drained(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.pod.tasks.wait()).await.is_ok()
    }

    /// Closes the listeners and resets what is still open.
    pub fn abort(&self) {
        self.stop_accepting();
        self.pod.kill.cancel();
    }
}

impl Drop for PodHandle {
    fn drop(&mut self) {
        self.stop_accepting();
    }
}
