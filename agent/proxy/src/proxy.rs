//! The proxy of a node: what its pods share.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicUsize},
};

use arc_swap::ArcSwap;
use tokio::{net::TcpListener, runtime::Handle, sync::watch};
use undermesh_identity::{IdentityStore, OutsideTls};
use undermesh_snapshot::{CompiledPolicy, ConnectionAttributes, Snapshot, WorkloadInfo};
use undermesh_telemetry::Telemetry;

use crate::{
    AuthorizerStatus, Follower, KeyStatus, PodHandle, PodListeners, PodStatus, ProxyConfig,
    ProxyStatus, accept, authorize,
    explain::Present,
    fair::{FairMetrics, Time},
    follow::{Followers, Wanted},
    guard,
    limits::{LimitMetrics, Limits},
    metrics::Metrics,
    native,
    overload::{Overload, OverloadMetrics, Pressure, Priority, Step},
    pod::Pod,
    pool::Pool,
    status,
    tunnel::Dialer,
    upstream::{self, DnsMetrics, Names, UpstreamMetrics, Upstreams},
};

/// The node's proxy. One instance serves all enrolled pods of the node.
pub struct Proxy {
    shared: Arc<Shared>,
}

/// What every connection needs to reach.
pub(crate) struct Shared {
    pub(crate) config: ProxyConfig,
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) identities: Arc<IdentityStore>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) metrics: Metrics,
    /// What the pods share about destinations.
    pub(crate) upstreams: Arc<upstream::Node>,
    pub(crate) runtime: Handle,
    /// What tokens of requests are verified with.
    pub(crate) keys: guard::Keys,
    /// What authorizers have answered.
    pub(crate) authorizers: guard::Authorizers,
    /// How much is served.
    pub(crate) limits: Limits,
    /// What is given up.
    pub(crate) overload: Overload,
    /// What pods share.
    pub(crate) time: Arc<Time>,
    /// TLS towards hosts outside the mesh.
    pub(crate) outside: OutsideTls,
    /// Pods that are served, in the order in which they came.
    pods: Mutex<Vec<Weak<Pod>>>,
    /// Who follows connections.
    pub(crate) followers: Followers,
    /// Counts snapshots up, for connections whose treatment may end with one.
    pub(crate) changes: watch::Sender<u64>,
}

impl Shared {
    /// The pod of this node that this workload is, while it takes connections.
    pub(crate) fn local_pod(&self, workload: &WorkloadInfo) -> Option<Arc<Pod>> {
        let pods = self.lock();
        let mut served = pods.iter().rev().filter_map(Weak::upgrade);
        served.find(|pod| {
            let known = &pod.workload;
            let same = known.name == workload.name && known.identity == workload.identity;
            same && !pod.stop.is_cancelled()
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    /// A proxy without pods. All its tasks run on `runtime`, whoever calls.
    pub fn new(
        config: ProxyConfig,
        snapshot: Arc<ArcSwap<Snapshot>>,
        identities: Arc<IdentityStore>,
        telemetry: Arc<Telemetry>,
        runtime: Handle,
    ) -> Arc<Self> {
        let mut metrics = Metrics::default();
        telemetry.with_registry(|registry| metrics = Metrics::register(registry));
        let mut upstream_metrics = UpstreamMetrics::default();
        telemetry.with_registry(|registry| upstream_metrics = UpstreamMetrics::register(registry));
        let mut dns_metrics = DnsMetrics::default();
        telemetry.with_registry(|registry| dns_metrics = DnsMetrics::register(registry));
        let mut limit_metrics = LimitMetrics::default();
        telemetry.with_registry(|registry| limit_metrics = LimitMetrics::register(registry));
        let mut fair_metrics = FairMetrics::default();
        telemetry.with_registry(|registry| fair_metrics = FairMetrics::register(registry));
        let threads = runtime.metrics().num_workers();
        let time = Time::new(threads, config.fairness, fair_metrics);
        let mut overload_metrics = OverloadMetrics::default();
        telemetry.with_registry(|registry| overload_metrics = OverloadMetrics::register(registry));
        let names = Names::new(&config.dns_servers, dns_metrics, &runtime);
        let upstreams = upstream::Node::new(upstream_metrics, names, &runtime);
        let overload = Overload::new(overload_metrics, &runtime);
        let (pods, changes) = (Mutex::default(), watch::Sender::new(0));
        let shared = Shared {
            config,
            snapshot,
            identities,
            telemetry,
            metrics,
            upstreams,
            runtime,
            keys: guard::Keys::default(),
            authorizers: guard::Authorizers::default(),
            limits: Limits::new(limit_metrics),
            overload,
            time,
            outside: OutsideTls::default(),
            pods,
            followers: Followers::default(),
            changes,
        };
        Arc::new(Self { shared: Arc::new(shared) })
    }

    /// Serves a pod until the handle says otherwise.
    ///
    /// # Errors
    /// A listener cannot be made non-blocking or registered with the runtime.
    pub fn serve_pod(self: &Arc<Self>, listeners: PodListeners) -> io::Result<PodHandle> {
        let _runtime = self.shared.runtime.enter();
        let adopt = |listener: std::net::TcpListener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        let outbound = adopt_all(listeners.outbound, adopt)?;
        let inbound = adopt_all(listeners.inbound, adopt)?;
        let mut own_ports = vec![self.shared.config.hbone_port];
        for listener in outbound.iter().chain(&inbound) {
            own_ports.push(listener.local_addr()?.port());
        }
        let sockets = Arc::clone(&listeners.sockets);
        let dialer = Dialer::new(&self.shared, &listeners.workload.identity, sockets);
        let addresses = &listeners.workload.addresses;
        let upstreams = Upstreams::new(&self.shared.upstreams, addresses);
        let priority = Priority::of(&listeners.workload.labels);
        let pod = Arc::new(Pod {
            shared: Arc::clone(&self.shared),
            workload: listeners.workload,
            original_dst: listeners.original_dst,
            sockets: listeners.sockets,
            own_ports,
            priority,
            share: self.shared.time.share(),
            stop: dialer.stop.clone(),
            kill: dialer.kill.clone(),
            tasks: dialer.tasks.clone(),
            pool: Pool::new(dialer.clone()),
            native: native::Pool::new(dialer),
            callers: native::Callers::default(),
            services: guard::Services::default(),
            upstreams,
            policy: watch::Sender::new(None),
            outbound_open: AtomicUsize::new(0),
            tunnels_open: AtomicUsize::new(0),
            inbound_open: AtomicUsize::new(0),
        });
        self.remember(&pod);
        accept::spawn(&pod, outbound, inbound);
        Ok(PodHandle { pod })
    }

    /// To be called when a new snapshot is in place: connections that its policies refuse are
    /// closed, and new ones are judged by them.
    pub fn policies_changed(&self) {
        let pods = self.shared.lock();
        let snapshot = self.shared.snapshot.load();
        for pod in pods.iter().filter_map(Weak::upgrade) {
            pod.take_policy(&snapshot);
        }
        self.shared.limits.retain(&snapshot);
        self.shared.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Judges a connection that the kernel has let pass or refused already, so that it counts where
    /// the proxy's own do. The decision in words, where the kernel has come to the same.
    pub fn count_policy(
        &self,
        policy: &CompiledPolicy,
        connection: &ConnectionAttributes<'_>,
    ) -> String {
        authorize::judge(policy, connection, &self.shared.metrics).to_string()
    }

    /// Follows the next connection that is wanted, for as long as what is returned lives.
    pub fn follow(&self, wanted: Wanted) -> Arc<Follower> {
        self.shared.followers.add(wanted)
    }

    /// How late the threads that carry connections get to what they have to do.
    pub fn delay(&self) -> std::time::Duration {
        self.shared.overload.delay().max(self.shared.time.delay())
    }

    /// To be called a few times a second with how much is used of what the agent needs: decides what is given
    /// up, and closes what is kept in store where that has to go.
    pub fn observe(&self, pressure: Pressure) -> Step {
        let step = self.shared.overload.observe(pressure);
        if step >= Step::Trim {
            let pods: Vec<_> = self.shared.lock().iter().filter_map(Weak::upgrade).collect();
            pods.iter().for_each(|pod| pod.trim());
        }
        step
    }

    /// What the proxy carries now.
    pub fn status(&self) -> ProxyStatus {
        let mut pods: Vec<PodStatus> = self
            .shared
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .map(|pod| status::of(&pod))
            .collect();
        pods.sort_by(|a, b| a.pod.cmp(&b.pod));
        let (authorizers, keys) = self.asked();
        ProxyStatus {
            pods,
            names: self.shared.upstreams.names(),
            overload: self.shared.overload.status(),
            authorizers,
            keys,
        }
    }

    /// What authorizers have answered, and the keys that tokens are verified with.
    pub fn asked(&self) -> (Vec<AuthorizerStatus>, Vec<KeyStatus>) {
        (self.shared.authorizers.status(), self.shared.keys.status())
    }

    /// What explanations go by besides a configuration.
    pub fn present(&self) -> Present {
        Present(Some(Arc::clone(&self.shared)))
    }

    fn remember(&self, pod: &Arc<Pod>) {
        let mut pods = self.shared.lock();
        // Under the lock, so that no snapshot comes between.
        pod.take_policy(&self.shared.snapshot.load());
        pods.retain(|pod| pod.strong_count() > 0);
        pods.push(Arc::downgrade(pod));
    }
}

fn adopt_all(
    listeners: Vec<std::net::TcpListener>,
    adopt: impl Fn(std::net::TcpListener) -> io::Result<TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    listeners.into_iter().map(adopt).collect()
}
