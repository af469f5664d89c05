//! A server, a source that follows it, and what the source has said last.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use undermesh_control::{Health, KubernetesConfig, KubernetesSource, SourceUpdate, Timing};
use undermesh_model::{Cluster, Diagnostic, NamespacedName};
use undermesh_tests::{
    apiserver::{ApiServer, Options},
    wait_for,
};

/// Generous, for busy machines.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// This node.
pub(crate) const NODE: &str = "node-a";

/// Everything at the pace of tests.
pub(crate) fn timing() -> Timing {
    Timing {
        first_retry: Duration::from_millis(20),
        longest_retry: Duration::from_millis(200),
        silence: Duration::from_secs(5),
        initial_events: Duration::from_secs(2),
        debounce: Duration::from_millis(10),
        longest_debounce: Duration::from_millis(100),
        cache: Duration::from_millis(20),
        ..Timing::default()
    }
}

/// A directory that goes with the test.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("undermesh-kubernetes-{}-{id}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server with TLS, and a kubeconfig for it.
pub(crate) fn server(dir: &Dir, options: Options) -> Result<(ApiServer, PathBuf)> {
    let server = ApiServer::start(&dir.0, options, None)?;
    let kubeconfig = server.kubeconfig("agent", "127.0.0.1", server.token())?;
    Ok((server, kubeconfig))
}

/// A source that is followed.
pub(crate) struct Followed {
    updates: tokio::sync::mpsc::Receiver<SourceUpdate>,
    pub(crate) health: Health,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Updates so far.
    pub(crate) count: usize,
}

impl Followed {
    pub(crate) fn new(dir: &Dir, kubeconfig: PathBuf) -> Result<Self> {
        Self::with(dir, kubeconfig, timing())
    }

    pub(crate) fn with(dir: &Dir, kubeconfig: PathBuf, timing: Timing) -> Result<Self> {
        let config = KubernetesConfig {
            node: NODE.to_owned(),
            kubeconfig: Some(kubeconfig),
            cache_dir: Some(dir.0.join("cache")),
            timing,
        };
        let health = Health::default();
        let updates = KubernetesSource::new(config, health.clone()).watch()?;
        Ok(Self { updates, health, cluster: None, diagnostics: Vec::new(), count: 0 })
    }

    /// Takes what has come.
    pub(crate) fn look(&mut self) -> Result<()> {
        while let Ok(update) = self.updates.try_recv() {
            self.count += 1;
            match update {
                SourceUpdate::State { cluster, diagnostics, .. } => {
                    self.cluster = Some(cluster);
                    self.diagnostics = diagnostics;
                }
                SourceUpdate::Rejected { diagnostics } => {
                    return Err(anyhow!("rejected: {diagnostics:?}"));
                }
            }
        }
        Ok(())
    }

    /// Waits until what is in force is as wanted.
    pub(crate) fn until(
        &mut self,
        what: &str,
        wanted: impl Fn(&Cluster) -> bool,
    ) -> Result<Arc<Cluster>> {
        let found = wait_for(what, WITHIN, || {
            self.look()?;
            Ok(self.cluster.clone().filter(|cluster| wanted(cluster)))
        });
        found.with_context(|| format!("{:?}\n{:#?}", self.diagnostics, self.health.report()))
    }

    /// Waits until every list is complete.
    pub(crate) fn until_complete(&mut self) -> Result<Arc<Cluster>> {
        wait_for("everything to be read", WITHIN, || {
            self.look()?;
            Ok(self.health.report().complete.then_some(()))
        })
        .with_context(|| format!("{:#?}", self.health.report()))?;
        self.until("a state", |_| true)
    }

    /// Codes of what is said about a kind's objects.
    pub(crate) fn codes(&self, kind: &str) -> Vec<&'static str> {
        let of = |found: &&Diagnostic| found.object.as_ref().is_some_and(|one| one.kind == kind);
        self.diagnostics.iter().filter(of).map(|found| found.code).collect()
    }

    pub(crate) fn says(&self, code: &str) -> bool {
        self.diagnostics.iter().any(|found| found.code == code)
    }
}

pub(crate) fn shop(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

/// A pod with an address, on a node.
pub(crate) fn pod(name: &str, node: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop",
            "labels": {"app": name, "istio.io/dataplane-mode": "ambient"},
        },
        "spec": {"nodeName": node, "serviceAccountName": "default", "containers": [{"name": "c"}]},
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A PeerAuthentication with a mode, which may be nonsense.
pub(crate) fn peers(mode: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "peers", "namespace": "shop"}, "spec": {"mtls": {"mode": mode}},
    })
}

/// A route of the host `cart` to itself.
pub(crate) fn route(name: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": ["cart"], "http": [{"route": [{"destination": {"host": "cart"}}]}]},
    })
}
