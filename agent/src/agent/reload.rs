//! Takes new configuration to its sinks.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};
use undermesh_control::SourceUpdate;
use undermesh_datapath::Datapath;
use undermesh_identity::IdentityStore;
use undermesh_model::{Cluster, Diagnostic, Generation, ResourceRef, Severity, SpiffeId};
use undermesh_proxy::Proxy;
use undermesh_snapshot::{Options, Snapshot, compile};
use undermesh_telemetry::Telemetry;

use super::{parts::Parts, sources};
use crate::{
    analyze::Found,
    config::SourceConfig,
    metrics::{Sink, SnapshotMetrics},
    pod::LAST_ACCEPTS,
    rejudge::Rejudge,
};

/// What is wrong at the moment, in the words of the status page.
#[derive(Clone, Default)]
pub(crate) struct Warnings {
    inner: Arc<Mutex<WarningList>>,
}

#[derive(Default)]
struct WarningList {
    /// Why a newer state was not taken.
    rejection: Vec<Diagnostic>,
    state: Vec<Diagnostic>,
    datapath: Option<String>,
}

impl Warnings {
    pub(crate) fn list(&self) -> Vec<String> {
        let list = self.lock();
        let rejection = list.rejection.iter().map(|it| format!("configuration rejected: {it}"));
        let state = list.state.iter().map(ToString::to_string);
        rejection.chain(list.datapath.iter().cloned()).chain(state).collect()
    }

    /// Every finding about the configuration, that of a state which was not taken first.
    pub(crate) fn findings(&self) -> Vec<Found> {
        let list = self.lock();
        list.rejection.iter().chain(&list.state).map(Found::from).collect()
    }

    /// Whether a newer state was not taken.
    pub(crate) fn is_rejected(&self) -> bool {
        !self.lock().rejection.is_empty()
    }

    /// Findings about one object of the state in force; of one kind, if it is named.
    pub(crate) fn about(&self, object: &ResourceRef, code: Option<&str>) -> Vec<String> {
        let list = self.lock();
        let of = |found: &&Diagnostic| found.object.as_ref() == Some(object);
        let found = list.state.iter().filter(of);
        let found = found.filter(|found| code.is_none_or(|code| found.code == code));
        found.map(|found| format!("{} [{}]", found.message, found.code)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, WarningList> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compiles states and hands them to the data path, the proxy and the certificates.
pub(super) struct Reload {
    options: Options,
    datapath: Arc<Mutex<Datapath>>,
    identities: Arc<IdentityStore>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    cluster: Arc<ArcSwapOption<Cluster>>,
    proxy: Arc<Proxy>,
    telemetry: Arc<Telemetry>,
    rejudge: Arc<Rejudge>,
    snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    warnings: Warnings,
    metrics: SnapshotMetrics,
    /// States come as people write them, not as a cluster lives.
    by_hand: bool,
}

impl Reload {
    pub(super) fn new(parts: &Parts) -> Self {
        let mut metrics = SnapshotMetrics::default();
        parts.telemetry.with_registry(|registry| metrics = SnapshotMetrics::register(registry));
        Self {
            options: parts.options(),
            datapath: Arc::clone(&parts.datapath),
            identities: Arc::clone(&parts.identities),
            snapshot: Arc::clone(&parts.snapshot),
            cluster: Arc::clone(&parts.cluster),
            proxy: Arc::clone(&parts.proxy),
            telemetry: Arc::clone(&parts.telemetry),
            rejudge: Arc::clone(&parts.rejudge),
            snapshots: parts.snapshots.clone(),
            warnings: parts.warnings.clone(),
            metrics,
            by_hand: matches!(parts.config.source, SourceConfig::Manifests(_)),
        }
    }

    /// Runs until `stop` says so.
    pub(super) async fn run(
        self,
        mut updates: mpsc::Receiver<SourceUpdate>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let update = tokio::select! {
                update = updates.recv() => update,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match update {
                Some(SourceUpdate::State { cluster, generation, diagnostics }) => {
                    self.take(&cluster, generation, diagnostics);
                }
                Some(SourceUpdate::Rejected { diagnostics }) => self.reject(&diagnostics),
                None => {
                    tracing::error!("the source has ended; the last state stays in force");
                    return;
                }
            }
        }
    }

    /// Certificates first, since they take longest; the proxy before the kernel, so that nothing
    /// is led to a proxy that does not know it yet; pods last.
    fn take(&self, cluster: &Arc<Cluster>, generation: Generation, mut found: Vec<Diagnostic>) {
        let arrived = Instant::now();
        let compiled = compile(cluster, &self.options, generation);
        let compile_ms = arrived.elapsed().as_millis();
        found.extend(compiled.diagnostics);
        let said = self.said();
        found.iter().filter(|found| !said.contains(&found.to_string())).for_each(log);
        let snapshot = Arc::new(compiled.snapshot);
        self.want_certificates(&snapshot);
        self.cluster.store(Some(Arc::clone(cluster)));
        self.snapshot.store(Arc::clone(&snapshot));
        self.proxy.policies_changed();
        self.metrics.applied(Sink::Proxy, generation.0, arrived.elapsed());
        let began = Instant::now();
        let applied =
            self.datapath.lock().unwrap_or_else(PoisonError::into_inner).apply(&snapshot.tables);
        let apply_ms = began.elapsed().as_millis();
        if applied.is_ok() {
            self.metrics.applied(Sink::Kernel, generation.0, arrived.elapsed());
        }
        let mut warnings = self.warnings.lock();
        warnings.rejection.clear();
        warnings.state = found;
        warnings.datapath = applied.as_ref().err().map(ToString::to_string);
        drop(warnings);
        match applied {
            Ok(entries) if self.by_hand || generation.0 == 1 => {
                tracing::info!(%generation, entries, compile_ms, apply_ms, "configuration in force");
            }
            Ok(entries) => {
                tracing::debug!(%generation, entries, compile_ms, apply_ms, "configuration in force");
            }
            Err(error) => {
                tracing::error!(%generation, %error, "configuration is only partly in force");
            }
        }
        self.forget_workloads(&snapshot);
        self.snapshots.send_replace(Some(Arc::clone(&snapshot)));
        let rejudge = Arc::clone(&self.rejudge);
        tokio::task::spawn_blocking(move || rejudge.run(&snapshot));
    }

    /// What need not be logged again: an API server may send a state a second. Who has written a
    /// state by hand wants to read all that is wrong with it.
    fn said(&self) -> HashSet<String> {
        if self.by_hand {
            return HashSet::new();
        }
        self.warnings.lock().state.iter().map(ToString::to_string).collect()
    }

    /// Asks for certificates for all pods of this node. Those of pods that leave are kept for a
    /// moment: their last connections may still be on their way to the proxy.
    fn want_certificates(&self, snapshot: &Snapshot) {
        let of = |snapshot: &Snapshot| -> BTreeSet<SpiffeId> {
            snapshot.local.iter().map(|workload| workload.identity.clone()).collect()
        };
        let wanted = of(snapshot);
        let former = of(&self.snapshot.load());
        if former.is_subset(&wanted) {
            return self.identities.set_wanted(wanted);
        }
        self.identities.set_wanted(wanted.union(&former).cloned().collect());
        let (identities, now) = (Arc::clone(&self.identities), Arc::clone(&self.snapshot));
        let generation = snapshot.generation;
        tokio::spawn(async move {
            tokio::time::sleep(LAST_ACCEPTS * 2).await;
            // A later state has said what it wants.
            if now.load().generation == generation {
                identities.set_wanted(wanted);
            }
        });
    }

    fn reject(&self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            log(diagnostic);
        }
        let generation = self.snapshot.load().generation;
        tracing::error!(%generation, "configuration rejected; the last good state stays in force");
        let mut warnings = self.warnings.lock();
        warnings.rejection = diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .cloned()
            .collect();
    }

    /// Metrics of workloads that are gone go with them.
    fn forget_workloads(&self, snapshot: &Snapshot) {
        let alive: BTreeSet<(&str, &str)> = snapshot
            .workloads
            .values()
            .map(|workload| (workload.name.namespace.as_str(), workload.workload_name.as_str()))
            .collect();
        self.telemetry.retain_workloads(|namespace, name| alive.contains(&(namespace, name)));
    }
}

/// What an agent goes on doing that has handed over: policies change, and what it still carries is
/// judged by them. Maps, certificates and pods are its successor's.
pub(super) async fn follow_policies(parts: &Parts) {
    let options = parts.options();
    let updates = sources::watch_beside(&parts.config);
    let mut updates = match updates {
        Ok(updates) => updates,
        Err(error) => {
            tracing::error!(%error, "live connections are not judged by later policies");
            return;
        }
    };
    while let Some(update) = updates.recv().await {
        if let SourceUpdate::State { cluster, generation, .. } = update {
            let compiled = compile(&cluster, &options, generation);
            parts.snapshot.store(Arc::new(compiled.snapshot));
            parts.proxy.policies_changed();
        }
    }
}

fn log(diagnostic: &Diagnostic) {
    match diagnostic.severity {
        Severity::Error => tracing::error!("{diagnostic}"),
        Severity::Warning => tracing::warn!("{diagnostic}"),
        Severity::Info => tracing::info!("{diagnostic}"),
    }
}
