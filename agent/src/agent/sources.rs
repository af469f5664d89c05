//! The source that the configuration names.

use std::{io, path::PathBuf, sync::Arc};

use tokio::sync::mpsc;
use undermesh_control::{
    ControllerConfig, ControllerSource, DISTRIBUTION_PATH, Health, KubernetesConfig,
    KubernetesSource, Link, ManifestSource, Opened, Opening, SourceUpdate, Timing,
};
use undermesh_identity::{ControllerLink, RemoteConfig};
use undermesh_snapshot::OutboundPolicy;

use crate::config::{Config, SourceConfig};

/// Follows the source until the receiver is dropped.
pub(super) fn watch(config: &Config, health: &Health) -> io::Result<mpsc::Receiver<SourceUpdate>> {
    match &config.source {
        SourceConfig::Manifests(dir) => ManifestSource::new(dir).watch(),
        SourceConfig::Kubernetes { kubeconfig, cache_dir } => {
            kubernetes(config, kubeconfig.clone(), cache_dir.clone(), health)
        }
        SourceConfig::Controller { controllers, cache_dir } => {
            controller(config, controllers, cache_dir.clone(), health)
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
        SourceConfig::Controller { controllers, .. } => {
            controller(config, controllers, None, &Health::default())
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

fn controller(
    config: &Config,
    controllers: &[RemoteConfig],
    cache_dir: Option<PathBuf>,
    health: &Health,
) -> io::Result<mpsc::Receiver<SourceUpdate>> {
    let link = ControllerLink::new(controllers.to_vec()).map_err(io::Error::other)?;
    let names: Vec<&str> = controllers.iter().map(|one| one.name.as_str()).collect();
    let config = ControllerConfig {
        node: config.node.clone(),
        cluster: config.cluster.clone(),
        // Addresses change, and of several replicas each says the same.
        controllers: names.first().map_or_else(String::new, |&name| name.to_owned()),
        root_namespace: config.root_namespace.clone(),
        narrow: config.outbound_policy == OutboundPolicy::RegistryOnly,
        cache_dir,
        timing: Timing::default(),
    };
    ControllerSource::new(config, Arc::new(Controllers(link)), health.clone()).watch()
}

/// Streams of controllers as a source takes them.
struct Controllers(ControllerLink);

impl Link for Controllers {
    fn open(&self) -> Opening<'_> {
        Box::pin(async {
            let opened = self.0.open(DISTRIBUTION_PATH).await?;
            let (incoming, outgoing, server) = (opened.incoming, opened.outgoing, opened.server);
            Ok(Opened { incoming, outgoing, server })
        })
    }
}
