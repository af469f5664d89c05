//! Finds the kubelet, so that its probes are known by their exact connections. The node's address
//! alone would let every process of the node past the policies of its pods.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::sync::watch;
use undermesh_datapath::{CgroupRoot, Datapath};

/// How often it is looked whether the kubelet has come, or come back with another cgroup.
const LOOK: Duration = Duration::from_secs(10);
/// Where the kubelet serves its API.
const KUBELET_PORT: u16 = 10250;
/// TCP_LISTEN, as /proc/net/tcp writes states.
const LISTEN: &str = "0A";

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
            KubeletCgroup::Auto => match find(&root) {
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
fn find(root: &CgroupRoot) -> Option<PathBuf> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening_sockets(&table, KUBELET_PORT))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let owner = processes
        .map(|process| process.path())
        .filter(|path| path.join("cgroup").exists())
        .find(|path| has_open(path, &sockets))?;
    let cgroup = cgroup_of(&fs::read_to_string(owner.join("cgroup")).ok()?)?.to_owned();
    Some(root.resolve(Path::new(cgroup.trim_start_matches('/'))))
}

/// Inode numbers of the sockets that listen at `port`, from /proc/net/tcp (proc(5)).
fn listening_sockets(table: &str, port: u16) -> Vec<u64> {
    let at = format!(":{port:04X}");
    let listening = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        (local.ends_with(&at) && state == LISTEN).then_some(inode)
    };
    table.lines().filter_map(listening).collect()
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
    fn the_listening_socket_of_a_port_is_found_by_its_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:280A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000 100 0\n   \
            1: 0100007F:280A 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000 20 4\n   \
            2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000 100 0\n";
        assert_eq!(listening_sockets(table, 10250), [4711]);
        assert_eq!(listening_sockets(table, 22), [4713]);
        assert_eq!(listening_sockets("", 22), [0; 0]);
    }

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
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let sockets: Vec<String> =
            listening_sockets(&table, port).iter().map(|one| format!("socket:[{one}]")).collect();
        assert_eq!(sockets.len(), 1);
        assert!(has_open(Path::new("/proc/self"), &sockets));
        drop(listener);
        assert!(!has_open(Path::new("/proc/self"), &sockets));
    }
}
