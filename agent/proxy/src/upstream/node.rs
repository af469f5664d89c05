//! What all pods of the node share: what was learnt about endpoints, the metrics, and the task that looks
//! after both.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, time::Instant};
use undermesh_model::traffic::ClusterKey;
use undermesh_snapshot::traffic::ClusterSpec;

use super::{
    NameStatus, Names,
    dns::Place,
    metrics::{ClusterMetrics, UpstreamMetrics},
    outlier::{Detector, Health},
    registry::Clusters,
};

/// How often clusters that nobody uses are looked for.
const TIDY: Duration = Duration::from_secs(60);

/// The node's part in the destinations of its pods.
pub(crate) struct Node {
    pub(super) metrics: UpstreamMetrics,
    /// What DNS says.
    pub(super) names: Names,
    /// Kept by the clusters that ask them.
    detectors: Mutex<HashMap<Arc<ClusterKey>, Weak<Detector>>>,
    pods: Mutex<Vec<Weak<Clusters>>>,
    /// A detector is new, or wants to sweep earlier.
    changed: Arc<Notify>,
}

impl Node {
    /// Begins to look after what will be there; the task ends with the node.
    pub(crate) fn new(metrics: UpstreamMetrics, names: Names, runtime: &Handle) -> Arc<Self> {
        let changed = Arc::new(Notify::new());
        let node = Arc::new(Self {
            metrics,
            names,
            detectors: Mutex::default(),
            pods: Mutex::default(),
            changed: Arc::clone(&changed),
        });
        runtime.spawn(look_after(Arc::downgrade(&node), changed));
        node
    }

    /// The detector of a cluster, and what it knows of these places, in their order. `None` for a cluster
    /// whose endpoints are never ejected.
    pub(super) fn watch(
        &self,
        spec: &ClusterSpec,
        places: &[Place],
        metrics: &Arc<ClusterMetrics>,
    ) -> Option<(Arc<Detector>, Vec<Arc<Health>>)> {
        let settings = spec.settings.outlier.as_ref()?;
        let mut detectors = self.detectors.lock().unwrap_or_else(PoisonError::into_inner);
        let known = detectors.get(&spec.key).and_then(Weak::upgrade);
        let detector = known.unwrap_or_else(|| {
            let key = Arc::clone(&spec.key);
            let detector = Arc::new(Detector::new(key.clone(), settings, Arc::clone(metrics)));
            detectors.insert(key, Arc::downgrade(&detector));
            detector
        });
        drop(detectors);
        let health = detector.watch(places.iter().map(|place| place.endpoint.address), settings);
        self.changed.notify_one();
        Some((detector, health))
    }

    /// The names that destinations of the node's pods have.
    pub(crate) fn names(&self) -> Vec<NameStatus> {
        self.names.status()
    }

    /// Looks after the clusters of a pod as well.
    pub(super) fn adopt(&self, clusters: &Arc<Clusters>) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|pod| pod.strong_count() > 0);
        pods.push(Arc::downgrade(clusters));
    }

    /// Sweeps the detectors whose time it is. When the next one wants to.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut detectors = self.detectors.lock().unwrap_or_else(PoisonError::into_inner);
        detectors.retain(|_, detector| detector.strong_count() > 0);
        let all: Vec<_> = detectors.values().filter_map(Weak::upgrade).collect();
        drop(detectors);
        all.iter().map(|detector| detector.sweep(now)).min()
    }

    fn tidy(&self, now: Instant) {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pods.iter().filter_map(Weak::upgrade).for_each(|clusters| clusters.tidy(now));
    }
}

async fn look_after(node: Weak<Node>, changed: Arc<Notify>) {
    let mut tidy_at = Instant::now() + TIDY;
    while let Some(node) = node.upgrade() {
        let now = Instant::now();
        if now >= tidy_at {
            node.tidy(now);
            tidy_at = now + TIDY;
        }
        let next = node.sweep(now).map_or(tidy_at, |sweep| sweep.min(tidy_at));
        drop(node);
        // Either way, the state decides what is to be done.
        let _ = tokio::time::timeout_at(next, changed.notified()).await;
    }
}
