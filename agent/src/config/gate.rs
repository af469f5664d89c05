//! The settings of the startup gate.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;
use undermesh_datapath::{CgroupRoot, GateMode, kubelet_pods};

use super::{RawConfig, span};

/// How long connections of a cgroup that nobody has described are held.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Without these, a cluster has nothing that could mend it.
const EXEMPT: [&str; 1] = ["kube-system"];

/// What becomes of connections to the mesh from where nothing is programmed yet.
#[derive(Clone, Copy, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StartupGate {
    /// Refused.
    Refuse,
    /// Let through and counted.
    Pass,
    /// There is no gate.
    Off,
}

/// The validated settings.
#[derive(Clone, Debug)]
pub(crate) struct GateConfig {
    /// What it does; `None` for no gate.
    pub(crate) mode: Option<GateMode>,
    /// The cgroup in which pods run, where it is known.
    pub(crate) pods: Option<PathBuf>,
    /// It was named in the settings, and not found.
    pub(crate) explicit: bool,
    /// Namespaces that are never held up.
    pub(crate) exempt: BTreeSet<String>,
    /// How long a cgroup that nobody has described is held.
    pub(crate) timeout: Duration,
}

impl GateConfig {
    pub(super) fn new(raw: &RawConfig, attach_point: &Path) -> Result<Self> {
        let exempt: BTreeSet<String> = match &raw.startup_gate_exempt {
            Some(names) => names.iter().cloned().collect(),
            None => EXEMPT.map(str::to_owned).into(),
        };
        Ok(Self {
            mode: match raw.startup_gate {
                None | Some(StartupGate::Refuse) => Some(GateMode::Refuse),
                Some(StartupGate::Pass) => Some(GateMode::Pass),
                Some(StartupGate::Off) => None,
            },
            explicit: raw.pod_cgroup.is_some(),
            pods: pod_cgroup(raw.pod_cgroup.as_deref(), attach_point)?,
            exempt,
            timeout: span(raw.startup_gate_timeout, TIMEOUT),
        })
    }
}

/// The programs only ever see what runs below their attach point.
fn pod_cgroup(setting: Option<&Path>, attach_point: &Path) -> Result<Option<PathBuf>> {
    let root = CgroupRoot::find()?;
    let path = match setting {
        None => return Ok(kubelet_pods(&root).filter(|path| path.starts_with(attach_point))),
        Some(path) if path.as_os_str() == "none" => return Ok(None),
        Some(path) => root.resolve(path),
    };
    ensure!(
        path.starts_with(attach_point),
        "podCgroup {} is not below the attach point {}; the programs would never see its pods",
        path.display(),
        attach_point.display()
    );
    Ok(Some(path))
}
