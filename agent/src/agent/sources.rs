//! The source that the configuration names.

use std::{io, path::PathBuf};

use tokio::sync::mpsc;
use undermesh_control::{
    Health, KubernetesConfig, KubernetesSource, ManifestSource, SourceUpdate, Timing,
};

use crate::config::{Config, SourceConfig};

/// Follows the source until the receiver is dropped.
pub(super) fn watch(config: &Config, health: &Health) -> io::Result<mpsc::Receiver<SourceUpdate>> {
    match &config.source {
        SourceConfig::Manifests(dir) => ManifestSource::new(dir).watch(),
        SourceConfig::Kubernetes { kubeconfig, cache_dir } => {
            kubernetes(config, kubeconfig.clone(), cache_dir.clone(), health)
        }
    }
}

/// The same beside a successor, which has the cache and is what people look at.
pub(super) fn watch_beside(config: &Config) -> io::Result<mpsc::Receiver<SourceUpdate>> {
    match &config.source {
        SourceConfig::Manifests(dir) => ManifestSource::new(dir).watch(),
        SourceConfig::Kubernetes { kubeconfig, .. } => {
            kubernetes(config, kubeconfig.clone(), None, &Health::default())
        }
    }
}

fn kubernetes(
    config: &Config,
    kubeconfig: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    health: &Health,
) -> io::Result<mpsc::Receiver<SourceUpdate>> {
    let config = KubernetesConfig {
        node: config.node.clone(),
        kubeconfig,
        cache_dir,
        timing: Timing::default(),
    };
    KubernetesSource::new(config, health.clone()).watch()
}
