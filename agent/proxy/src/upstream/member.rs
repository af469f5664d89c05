//! One endpoint of a cluster, as one client pod sees it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::time::Instant;
use undermesh_model::SpiffeId;
use undermesh_snapshot::traffic::ClusterEndpoint;

use super::{outlier::Health, pool::Pool};

/// An endpoint with its state.
pub(super) struct Member {
    pub(super) endpoint: ClusterEndpoint,
    pub(super) host: Arc<Host>,
    /// What the node knows of it; `None` where nothing is ever ejected.
    pub(super) health: Option<Arc<Health>>,
}

/// Names what is at an endpoint: another workload with the same address is another host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostKey {
    pub(super) address: SocketAddr,
    pub(super) identity: Option<SpiffeId>,
    /// The name and port that are one host whatever its address.
    pub(super) name: Option<(Arc<str>, u16)>,
}

/// What outlives snapshots of an endpoint.
pub(super) struct Host {
    /// Since when it is an endpoint of the cluster.
    pub(super) since: Instant,
    /// Its HTTP connections.
    pub(super) pool: Arc<Pool>,
    active: AtomicU32,
}

/// An attempt that is running, for as long as it lives.
pub(super) struct Active(Arc<Host>);

impl Member {
    pub(super) fn is_healthy(&self) -> bool {
        self.health.as_ref().is_none_or(|health| !health.is_ejected())
    }
}

impl HostKey {
    pub(super) fn of(endpoint: &ClusterEndpoint) -> Self {
        let identity = endpoint.workload.as_ref().map(|workload| workload.identity.clone());
        Self { address: endpoint.address, identity, name: None }
    }
}

impl Host {
    pub(super) fn new(pool: Arc<Pool>) -> Arc<Self> {
        Arc::new(Self { since: Instant::now(), pool, active: AtomicU32::new(0) })
    }

    /// Attempts that run there now.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    pub(super) fn start(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
