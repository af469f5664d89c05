//! The destinations of one client pod, by name.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use undermesh_snapshot::traffic::{ClusterKey, ClusterSpec};

use super::{
    Cluster, UpstreamStatus,
    dns::{Families, first_answers},
    node::Node,
    status,
};

/// A cluster without a connection is forgotten when nobody has asked for it for this long.
const UNUSED: Duration = Duration::from_secs(600);

/// All destinations of one client pod: its limits and its connections.
pub(crate) struct Upstreams {
    node: Arc<Node>,
    families: Families,
    clusters: Arc<Clusters>,
}

/// Clusters, and when they were last asked for.
#[derive(Default)]
pub(super) struct Clusters(Mutex<HashMap<ClusterKey, Slot>>);

struct Slot {
    cluster: Arc<Cluster>,
    used: Instant,
}

impl Upstreams {
    /// Those of a pod with these addresses.
    pub(crate) fn new(node: &Arc<Node>, addresses: &[IpAddr]) -> Self {
        let clusters = Arc::new(Clusters::default());
        node.adopt(&clusters);
        Self { node: Arc::clone(node), families: Families::of(addresses), clusters }
    }

    /// The cluster of this specification. Its state is kept by its key, whatever snapshot it is from.
    pub(crate) fn cluster(&self, spec: &Arc<ClusterSpec>) -> Arc<Cluster> {
        let used = Instant::now();
        let mut clusters = self.clusters.lock();
        let Some(slot) = clusters.get_mut(&spec.key) else {
            let cluster = Cluster::new(&self.node, spec, self.families);
            let slot = Slot { cluster: Arc::clone(&cluster), used };
            clusters.insert(spec.key.clone(), slot);
            return cluster;
        };
        slot.used = used;
        if !Arc::ptr_eq(slot.cluster.spec(), spec) || slot.cluster.is_outdated() {
            slot.cluster = slot.cluster.renewed(&self.node, spec);
        }
        Arc::clone(&slot.cluster)
    }

    /// The same, once DNS was asked for the names of its endpoints.
    pub(crate) async fn resolved(&self, spec: &Arc<ClusterSpec>) -> Arc<Cluster> {
        let cluster = self.cluster(spec);
        let unasked = cluster.unasked();
        if unasked.is_empty() {
            return cluster;
        }
        first_answers(&unasked).await;
        self.cluster(spec)
    }

    /// What the pod's destinations are doing, by name.
    pub(crate) fn status(&self) -> Vec<UpstreamStatus> {
        let clusters: Vec<_> =
            self.clusters.lock().values().map(|slot| Arc::clone(&slot.cluster)).collect();
        let mut all: Vec<_> = clusters.iter().map(|cluster| status::of(cluster)).collect();
        all.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        all
    }
}

impl Clusters {
    fn lock(&self) -> MutexGuard<'_, HashMap<ClusterKey, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets clusters that nobody uses.
    pub(super) fn tidy(&self, now: Instant) {
        let is_used = |slot: &mut Slot| {
            now.saturating_duration_since(slot.used) < UNUSED || slot.cluster.is_busy()
        };
        let unused: Vec<_> = self.lock().extract_if(|_, slot| !is_used(slot)).collect();
        drop(unused);
    }
}
