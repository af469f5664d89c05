//! Where configuration comes from.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use undermesh_identity::RemoteConfig;
use undermesh_model::TrustDomain;

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
    /// The mesh's controller, which follows the API server for all nodes.
    Controller,
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
    /// Controllers.
    Controller {
        /// Where they are. There is at least one.
        controllers: Vec<RemoteConfig>,
        /// Where the last good state is kept; `None` for nowhere.
        cache_dir: Option<PathBuf>,
    },
}

impl RawConfig {
    pub(super) fn source(&self, trust_domain: &TrustDomain, cluster: &str) -> Result<SourceConfig> {
        let controllers = [
            ("controllerAddresses", self.controller_addresses.is_some()),
            ("controllerName", self.controller_name.is_some()),
        ];
        for (name, is_set) in controllers {
            let counts = self.source == Some(SourceKind::Controller);
            ensure!(!is_set || counts, "{name} has no effect without `source: controller`");
        }
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
                let (kubeconfig, cache_dir) = (self.kubeconfig.clone(), self.cache_dir());
                Ok(SourceConfig::Kubernetes { kubeconfig, cache_dir })
            }
            Some(SourceKind::Controller) => {
                for (name, is_set) in
                    [("manifests", manifests.is_some()), ("kubeconfig", self.kubeconfig.is_some())]
                {
                    ensure!(!is_set, "{name} has no effect with `source: controller`");
                }
                let controllers = self.controllers(trust_domain, cluster)?;
                Ok(SourceConfig::Controller { controllers, cache_dir: self.cache_dir() })
            }
        }
    }

    fn cache_dir(&self) -> Option<PathBuf> {
        let dir = self.cache_dir.clone().unwrap_or_else(|| DEFAULT_CACHE_DIR.into());
        (dir.as_os_str() != "none").then_some(dir)
    }

    /// Where controllers are: as it is said, or where certificates come from.
    fn controllers(&self, trust_domain: &TrustDomain, cluster: &str) -> Result<Vec<RemoteConfig>> {
        let said = self.controller_addresses.clone().unwrap_or_default();
        if said.is_empty() {
            let mut remote = self.remote_ca(trust_domain, cluster)?.context(
                "`source: controller` needs to know where controllers are; set controllerAddresses, or caAddress",
            )?;
            remote.name = self.controller_name.clone().unwrap_or(remote.name);
            return Ok(vec![remote]);
        }
        let name = self.controller_name.as_ref();
        let remote =
            |text: &String| self.remote("controllerAddresses", text, name, trust_domain, cluster);
        said.iter().map(remote).collect()
    }

    /// Whether controllers are asked for configuration.
    pub(super) fn asks_controllers(&self) -> bool {
        self.source == Some(SourceKind::Controller)
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
