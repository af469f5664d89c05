//! Where configuration comes from.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;

use super::RawConfig;

/// Directory of what an agent keeps for its next start, where nothing else is said.
const DEFAULT_CACHE_DIR: &str = "/var/lib/undermesh/cache";
/// What Kubernetes' downward API is usually asked to set.
const NODE_NAME: &str = "NODE_NAME";

/// Kinds of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum SourceKind {
    /// A directory of Kubernetes manifests.
    Manifests,
    /// A Kubernetes API server.
    Kubernetes,
}

/// The source, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceConfig {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// An API server.
    Kubernetes {
        /// How to reach it; `None` for the account of the agent's own pod.
        kubeconfig: Option<PathBuf>,
        /// Where the last good state is kept; `None` for nowhere.
        cache_dir: Option<PathBuf>,
    },
}

impl RawConfig {
    pub(super) fn source(&self) -> Result<SourceConfig> {
        let manifests = self.manifests.clone();
        match self.source {
            None | Some(SourceKind::Manifests) => {
                for (name, is_set) in [
                    ("kubeconfig", self.kubeconfig.is_some()),
                    ("cacheDir", self.cache_dir.is_some()),
                ] {
                    ensure!(!is_set, "{name} has no effect without `source: kubernetes`");
                }
                manifests.map(SourceConfig::Manifests).context(
                    "no source is set; pass --manifests, or `manifests:` in the configuration file, \
                     or `source: kubernetes`",
                )
            }
            Some(SourceKind::Kubernetes) => {
                ensure!(
                    manifests.is_none(),
                    "manifests has no effect with `source: kubernetes`; keep one of them"
                );
                let cache_dir = self.cache_dir.clone().unwrap_or_else(|| DEFAULT_CACHE_DIR.into());
                Ok(SourceConfig::Kubernetes {
                    kubeconfig: self.kubeconfig.clone(),
                    cache_dir: (cache_dir.as_os_str() != "none").then_some(cache_dir),
                })
            }
        }
    }

    /// The node's name: as it is set, or as Kubernetes says it.
    pub(super) fn node_name(&self) -> Result<String> {
        let from_kubernetes = || std::env::var(NODE_NAME).ok();
        let node = self.node.clone().or_else(from_kubernetes).filter(|node| !node.is_empty());
        node.context(
            "no node name is set; pass --node, or `node:` in the configuration file, or set NODE_NAME",
        )
    }
}
