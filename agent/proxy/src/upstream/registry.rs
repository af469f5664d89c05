//! The destinations of one client pod, by name.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use undermesh_model::traffic::ClusterKey;
use undermesh_snapshot::traffic::ClusterSpec;

use super::{
    Cluster, UpstreamStatus,
    dns::{Families, first_answers},
    node::Node,
    status,
};

/// A cluster without a connection is forgotten when nobody has asked for it for this long.
const UNUSED: Duration = Duration::from_secs(600);

/// Names that hosts of one pod stand for, at most, where each is a destination of its own.
const MAX_NAMED: usize = 1024;

/// All destinations of one client pod: its limits and its connections.
pub(crate) struct Upstreams {
    node: Arc<Node>,
    families: Families,
    clusters: Arc<Clusters>,
    named: Mutex<HashMap<Arc<ClusterKey>, Named>>,
}

/// What a specification for many names is for one of them.
struct Named {
    general: Arc<ClusterSpec>,
    own: Arc<ClusterSpec>,
}

/// Clusters, and when they were last asked for.
#[derive(Default)]
pub(super) struct Clusters(Mutex<HashMap<Arc<ClusterKey>, Slot>>);

struct Slot {
    cluster: Arc<Cluster>,
    used: Instant,
}

impl Upstreams {
    /// Those of a pod with these addresses.
    pub(crate) fn new(node: &Arc<Node>, addresses: &[IpAddr]) -> Self {
        let clusters = Arc::new(Clusters::default());
        node.adopt(&clusters);
        let named = Mutex::default();
        Self { node: Arc::clone(node), families: Families::of(addresses), clusters, named }
    }

    /// The cluster of this specification. Its state is kept by its key, whatever snapshot it is from.
    pub(crate) fn cluster(&self, spec: &Arc<ClusterSpec>) -> Arc<Cluster> {
        let used = Instant::now();
        let mut clusters = self.clusters.lock();
        let Some(slot) = clusters.get_mut(&spec.key) else {
            let cluster = Cluster::new(&self.node, spec, self.families);
            let slot = Slot { cluster: Arc::clone(&cluster), used };
            clusters.insert(Arc::clone(&spec.key), slot);
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
        self.answered(self.cluster(spec)).await
    }

    /// `cluster` as it is once DNS was asked for the names of its endpoints.
    pub(super) async fn answered(&self, cluster: Arc<Cluster>) -> Arc<Cluster> {
        let unasked = cluster.unasked();
        // An answer that came since `cluster` was made leaves no name to ask for, but is not in it.
        if unasked.is_empty() && !cluster.is_outdated() {
            return cluster;
        }
        first_answers(&unasked).await;
        self.cluster(cluster.spec())
    }

    /// Closes connections without a request.
    pub(crate) fn trim(&self) {
        self.clusters.all().iter().for_each(|cluster| cluster.trim());
    }

    /// The same for whoever asks for `name`, which matters where the host stands for many. `None` where
    /// nobody can be at it, or the pod has asked for too many.
    pub(crate) async fn for_name(
        &self,
        spec: &Arc<ClusterSpec>,
        name: &str,
    ) -> Option<Arc<Cluster>> {
        if !spec.is_of_many() {
            return Some(self.resolved(spec).await);
        }
        match spec.key_of(name) {
            Some(key) => Some(self.resolved(&self.named(spec, key.into())?).await),
            None if spec.dynamic.is_some() => None,
            None => Some(self.resolved(spec).await),
        }
    }

    fn named(&self, general: &Arc<ClusterSpec>, key: Arc<ClusterKey>) -> Option<Arc<ClusterSpec>> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let known = named.get(&key).filter(|known| Arc::ptr_eq(&known.general, general));
        if let Some(known) = known {
            return Some(Arc::clone(&known.own));
        }
        if named.len() >= MAX_NAMED {
            let clusters = self.clusters.lock();
            named.retain(|key, _| clusters.contains_key(key));
        }
        if named.len() >= MAX_NAMED && !named.contains_key(&key) {
            return None;
        }
        let own = Arc::new(general.of(Arc::clone(&key)));
        named.insert(key, Named { general: Arc::clone(general), own: Arc::clone(&own) });
        Some(own)
    }

    /// What the pod's destinations are doing, by name.
    pub(crate) fn status(&self) -> Vec<UpstreamStatus> {
        let clusters = self.clusters.all();
        let mut all: Vec<_> = clusters.iter().map(|cluster| status::of(cluster)).collect();
        all.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        all
    }
}

impl Clusters {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<ClusterKey>, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Cluster>> {
        self.lock().values().map(|slot| Arc::clone(&slot.cluster)).collect()
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
