//! Finds the kubelet, so that its probes are known by their exact connections. The node's address
//! alone would let every process of the node past the policies of its pods.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::sync::watch;
use undermesh_datapath::{CgroupRoot, Datapath, sock_diag};

/// How often it is looked whether the kubelet has come, or come back with another cgroup.
const LOOK: Duration = Duration::from_secs(10);
/// Where the kubelet serves its API.
const KUBELET_PORT: u16 = 10250;

/// Which cgroup the kubelet runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KubeletCgroup {
    /// That of the process that listens at port 10250.
    Auto,
    /// There is no kubelet.
    None,
    /// This one, relative to the cgroup2 mount.
    Path(PathBuf),
}

/// Keeps the probe programs where the kubelet is.
pub(crate) struct Kubelet {
    cgroup: KubeletCgroup,
    datapath: Arc<Mutex<Datapath>>,
    attached: Option<(PathBuf, u64)>,
    complaint: Option<String>,
}

impl Kubelet {
    pub(crate) fn new(cgroup: KubeletCgroup, datapath: Arc<Mutex<Datapath>>) -> Self {
        Self { cgroup, datapath, attached: None, complaint: None }
    }

    /// Runs until `stop` says so.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        if self.cgroup == KubeletCgroup::None {
            return;
        }
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // Looking through /proc takes a while on a full node.
            let Ok(looked) = tokio::task::spawn_blocking(move || self.look()).await else { return };
            self = looked;
        }
    }

    fn look(mut self) -> Self {
        match self.attach() {
            Ok(()) => self.complaint = None,
            Err(error) => {
                let complaint = format!("{error:#}");
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(
                        error = complaint,
                        "the kubelet's probes are taken for plaintext; trying again"
                    );
                    self.complaint = Some(complaint);
                }
            }
        }
        self
    }

    fn attach(&mut self) -> Result<()> {
        let root = CgroupRoot::find()?;
        let path = match &self.cgroup {
            KubeletCgroup::None => return Ok(()),
            KubeletCgroup::Path(path) => root.resolve(path),
            KubeletCgroup::Auto => match find(&root).context("cannot look for the kubelet")? {
                Some(path) => path,
                None => return Ok(()),
            },
        };
        let id =
            path.metadata().with_context(|| format!("kubeletCgroup {}", path.display()))?.ino();
        let found = Some((path.clone(), id));
        if self.attached == found {
            return Ok(());
        }
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner).attach_to_kubelet(&path)?;
        tracing::info!(cgroup = %path.display(), "the kubelet's probes pass by their connections");
        self.attached = found;
        Ok(())
    }
}

/// The cgroup of the process that listens at the kubelet's port.
fn find(root: &CgroupRoot) -> io::Result<Option<PathBuf>> {
    let sockets = listening_sockets(KUBELET_PORT)?;
    if sockets.is_empty() {
        return Ok(None);
    }
    let mut processes = fs::read_dir("/proc")?
        .flatten()
        .map(|process| process.path())
        .filter(|path| path.join("cgroup").exists());
    let owner = processes.find(|path| has_open(path, &sockets));
    let memberships = owner.and_then(|path| fs::read_to_string(path.join("cgroup")).ok());
    let path = memberships.as_deref().and_then(cgroup_of);
    Ok(path.map(|path| root.resolve(Path::new(path.trim_start_matches('/')))))
}

/// The sockets that listen at `port`, as processes call those that they have open.
fn listening_sockets(port: u16) -> io::Result<Vec<String>> {
    let sockets = sock_diag::own_listeners()?.into_iter().filter(|socket| socket.port == port);
    Ok(sockets.map(|socket| format!("socket:[{}]", socket.inode)).collect())
}

fn has_open(process: &Path, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|target| sockets.iter().any(|socket| target == Path::new(socket)))
    })
}

/// The path in the cgroup2 hierarchy, whose number is 0 (cgroups(7)).
fn cgroup_of(memberships: &str) -> Option<&str> {
    memberships.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_the_one_that_counts() {
        let hybrid =
            "3:cpu:/kubelet\n1:name=systemd:/system.slice\n0::/system.slice/kubelet.service\n";
        assert_eq!(cgroup_of(hybrid), Some("/system.slice/kubelet.service"));
        assert_eq!(cgroup_of("1:name=systemd:/init.scope\n"), None);
    }

    #[test]
    fn a_process_is_known_by_the_sockets_that_it_has_open() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = listening_sockets(port).unwrap();
        assert_eq!(sockets.len(), 1);
        assert!(has_open(Path::new("/proc/self"), &sockets));
        drop(listener);
        assert!(!has_open(Path::new("/proc/self"), &sockets));
    }
}
