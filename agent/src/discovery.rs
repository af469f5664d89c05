//! When to look for pods: as soon as a cgroup of theirs appears or is populated, or something is
//! mounted, as a named network namespace is. What has happened is of no interest here: whoever is told
//! compares everything.

use std::path::PathBuf;

use undermesh_datapath::{CgroupRoot, DatapathError, Mounts, PodCgroup, PodCgroups};

/// What is listened to.
pub(crate) struct Discovery {
    cgroups: Option<PodCgroups>,
    mounts: Option<Mounts>,
    changed: bool,
    /// Something cannot be listened to any more.
    deaf: bool,
}

impl Discovery {
    /// Listens to the mount table, and to the cgroup in which pods run.
    ///
    /// # Errors
    /// Where that cgroup cannot be watched. Without the mount table, pods are found a moment later.
    pub(crate) fn open(root: &CgroupRoot, pods: Option<&PathBuf>) -> Result<Self, DatapathError> {
        let cgroups = pods.map(|path| PodCgroups::open(root, path)).transpose()?;
        let mounts = Mounts::open()
            .inspect_err(|error| tracing::warn!(%error, "new namespaces are found later"))
            .ok();
        Ok(Self { cgroups, mounts, changed: true, deaf: false })
    }

    /// The cgroup in which pods run: its id, and its level in the hierarchy.
    pub(crate) fn pods(&self) -> Option<(u64, u32)> {
        self.cgroups.as_ref().map(|cgroups| (cgroups.id(), cgroups.level()))
    }

    /// The cgroups of pods, outer ones first.
    pub(crate) fn list(&mut self) -> Result<Vec<PodCgroup>, DatapathError> {
        self.changed = false;
        self.cgroups.as_ref().map_or(Ok(Vec::new()), PodCgroups::list)
    }

    /// Whether anything may have changed since cgroups were listed.
    pub(crate) fn has_changed(&self) -> bool {
        self.changed
    }

    /// Makes the next look a thorough one: something has shown that the last one was not enough.
    pub(crate) fn distrust(&mut self) {
        self.changed = true;
    }

    /// Waits until there is a reason to look.
    pub(crate) async fn changed(&mut self) {
        if self.deaf {
            return std::future::pending().await;
        }
        let heard = tokio::select! {
            heard = changed_cgroups(self.cgroups.as_mut()) => heard,
            heard = changed_mounts(self.mounts.as_mut()) => heard,
        };
        self.changed = true;
        if let Err(error) = heard {
            tracing::error!(%error, "pods are found late from now on");
            self.deaf = true;
        }
    }
}

async fn changed_cgroups(cgroups: Option<&mut PodCgroups>) -> Result<(), DatapathError> {
    match cgroups {
        Some(cgroups) => cgroups.changed().await,
        None => std::future::pending().await,
    }
}

async fn changed_mounts(mounts: Option<&mut Mounts>) -> Result<(), DatapathError> {
    match mounts {
        Some(mounts) => mounts.changed().await,
        None => std::future::pending().await,
    }
}
