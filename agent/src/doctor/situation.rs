//! What every check starts from: the settings, the agent's own words, and the manifests.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use anyhow::Result;
use undermesh_control::{Loaded, ManifestSource};
use undermesh_datapath::{CgroupRoot, KernelFeatures, Netns, NetnsId, kubelet_pods};
use undermesh_model::{NamespacedName, PodLocation, Workload};

use crate::{
    client,
    config::{Outline, RawConfig},
    pod_cgroup,
    status::Status,
};

/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pods of this node that are entered.
const MAX_PODS: usize = 512;

/// What is known before any check runs.
pub(super) struct Situation {
    /// Nothing of Undermesh is expected to be here.
    pub(super) preflight: bool,
    pub(super) outline: Outline,
    /// Why the configuration file cannot be used.
    pub(super) unreadable: Option<(PathBuf, String)>,
    /// Why an agent would not take the settings.
    pub(super) invalid: Option<String>,
    /// What the kernel offers; set by the check that asks.
    pub(super) features: OnceLock<KernelFeatures>,
    // Read by the first check that needs them: checks have a deadline, and this has none.
    status: OnceLock<Result<Status, String>>,
    manifests: OnceLock<Option<Loaded>>,
}

impl Situation {
    /// Looks around. What cannot be read becomes a finding later.
    pub(super) fn find(preflight: bool, file: Option<&Path>, flags: RawConfig) -> Result<Self> {
        let (from_file, unreadable) = match file.map(|path| (path, RawConfig::read(path))) {
            None => (RawConfig::default(), None),
            Some((_, Ok(settings))) => (settings, None),
            Some((path, Err(error))) => {
                (RawConfig::default(), Some((path.to_owned(), format!("{error:#}"))))
            }
        };
        let settings = flags.or(from_file);
        let outline = settings.outline()?;
        // Without a cgroup2 hierarchy, every setting would be said to be wrong.
        let invalid = outline.cgroup.is_some().then(|| settings.check().err()).flatten();
        Ok(Self {
            preflight,
            outline,
            unreadable,
            invalid: invalid.map(|error| format!("{error:#}")),
            features: OnceLock::new(),
            status: OnceLock::new(),
            manifests: OnceLock::new(),
        })
    }

    /// The agent's status page, or why there is none.
    pub(super) fn status(&self) -> &Result<Status, String> {
        self.status.get_or_init(|| {
            client::get_within(self.outline.admin_address, "/status", PATIENCE)
                .and_then(|json| Ok(serde_json::from_str(&json)?))
                .map_err(|error| format!("{error:#}"))
        })
    }

    /// The manifest directory, where one is known.
    pub(super) fn manifests(&self) -> Option<&Loaded> {
        let load = || Some(ManifestSource::new(self.outline.manifests.as_ref()?).load());
        self.manifests.get_or_init(load).as_ref()
    }

    /// The name of this node: what the settings say, or the agent.
    pub(super) fn node(&self) -> Option<&str> {
        let said = self.status().as_ref().ok().map(|status| status.agent.node.as_str());
        self.outline.node.as_deref().or(said)
    }

    /// The pods of this node that are to be in the mesh, with their namespaces, as far as they are
    /// there.
    pub(super) fn pods(&self) -> Vec<(NamespacedName, Netns)> {
        let cluster = self.manifests().and_then(|loaded| loaded.cluster.as_ref());
        let workloads = cluster.into_iter().flat_map(|cluster| cluster.workloads.values());
        workloads
            .filter(|pod| pod.enrolment.is_enrolled() && self.is_here(pod))
            .filter_map(|pod| Some((pod.name.clone(), Netns::open(&namespace(pod)?).ok()?)))
            .take(MAX_PODS)
            .collect()
    }

    fn is_here(&self, pod: &Workload) -> bool {
        self.node().is_some_and(|node| pod.node.as_deref() == Some(node))
            && !pod.host_network
            && !pod.terminated
    }
}

/// Where a pod's namespace is; `None` while nothing runs in it.
fn namespace(pod: &Workload) -> Option<PathBuf> {
    match pod.location.as_ref()? {
        PodLocation::Netns(path) => Some(path.clone()),
        PodLocation::Uid(uid) => {
            let pods = kubelet_pods(&CgroupRoot::find().ok()?)?;
            let own = NetnsId::of(Path::new("/proc/self/ns/net")).ok();
            pod_cgroup::namespace(&pod_cgroup::find(&pods, uid)?, own)
        }
        PodLocation::Cgroup(path) => {
            let processes = CgroupRoot::find().ok()?.processes(path).ok()?;
            Some(PathBuf::from(format!("/proc/{}/ns/net", processes.first()?)))
        }
    }
}
