//! The cgroup that the kubelet has made for a pod, by the pod's uid.
//!
//! Its name says whose it is, in each of the layouts that there are:
//!
//! ```text
//! systemd    kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice   '_' for '-'
//! cgroupfs   kubepods/burstable/pod<uid>
//! guaranteed one level less: kubepods.slice/kubepods-pod<uid>.slice, kubepods/pod<uid>
//! kind       kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/...
//! ```
//!
//! Below it is one cgroup for each container (`cri-containerd-<id>.scope`, `crio-<id>.scope`, `<id>`), and
//! one for the sandbox. Static pods have the hash of their file as their uid.
//!
//! Source: Kubernetes, `pkg/kubelet/cm/cgroup_manager_linux.go`, `pod_container_manager_linux.go`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use undermesh_datapath::NetnsId;

/// How deep below the cgroup of all pods that of one pod is: below its class of service, if any.
const MAX_DEPTH: usize = 3;
/// How deep containers are below their pod: some make cgroups of their own.
const MAX_INNER_DEPTH: usize = 4;
/// Processes that are looked at.
const MAX_PROCESSES: usize = 256;

/// The uid of the pod whose cgroup has this name; `None` where it is none of a pod.
pub(crate) fn uid_of(name: &OsStr) -> Option<String> {
    let name = name.to_str()?;
    let uid = match name.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => name.strip_prefix("pod")?,
    };
    let is_uid = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-' || byte == b'_';
    let long_enough = uid.len() >= 32;
    (long_enough && uid.bytes().all(is_uid)).then(|| uid.replace('_', "-").to_ascii_lowercase())
}

/// Finds the cgroup of a pod below that of all pods.
pub(crate) fn find(pods: &Path, uid: &str) -> Option<PathBuf> {
    let uid = uid.to_ascii_lowercase();
    let mut level = vec![pods.to_owned()];
    for _ in 0..MAX_DEPTH {
        let mut next = Vec::new();
        for dir in level.iter().flat_map(|dir| directories(dir)) {
            match dir.file_name().and_then(uid_of) {
                Some(found) if found == uid => return Some(dir),
                Some(_) => {}
                None => next.push(dir),
            }
        }
        level = next;
    }
    None
}

/// The network namespace of a pod: that of its outermost processes, but for those that are in `own`, where
/// helpers of its runtime are. Whoever makes namespaces of his own inside a pod is further in.
pub(crate) fn namespace(pod: &Path, own: Option<NetnsId>) -> Option<PathBuf> {
    let mut level = vec![pod.to_owned()];
    let mut looked_at = 0;
    for _ in 0..=MAX_INNER_DEPTH {
        for process in level.iter().flat_map(|dir| processes(dir)) {
            let path = PathBuf::from(format!("/proc/{process}/ns/net"));
            if NetnsId::of(&path).is_ok_and(|id| Some(id) != own) {
                return Some(path);
            }
            looked_at += 1;
            if looked_at == MAX_PROCESSES {
                return None;
            }
        }
        level = level.iter().flat_map(|dir| directories(dir)).collect();
    }
    None
}

/// Whether any process runs in a cgroup or below it.
pub(crate) fn is_populated(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

/// In the order of their names, so that every look finds the same.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut found: Vec<PathBuf> = entries.filter(is_dir).map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn processes(cgroup: &Path) -> Vec<u32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "1b4d2b6e-9a3f-4f6c-8a52-0c8c5ad3a0f1";
    const SYSTEMD: &str = "1b4d2b6e_9a3f_4f6c_8a52_0c8c5ad3a0f1";
    const HASH: &str = "3a5e2ee5d2b1b6f9b6b6c7b1a0f0e7d4";

    #[test]
    fn pods_are_known_by_the_names_of_their_cgroups() {
        for (name, uid) in [
            (format!("kubepods-burstable-pod{SYSTEMD}.slice"), Some(UID)),
            (format!("kubepods-besteffort-pod{SYSTEMD}.slice"), Some(UID)),
            (format!("kubepods-pod{SYSTEMD}.slice"), Some(UID)),
            (format!("kubelet-kubepods-burstable-pod{SYSTEMD}.slice"), Some(UID)),
            (format!("pod{UID}"), Some(UID)),
            (format!("pod{}", UID.to_uppercase()), Some(UID)),
            (format!("kubepods-burstable-pod{HASH}.slice"), Some(HASH)),
            (format!("pod{HASH}"), Some(HASH)),
            ("kubepods-burstable.slice".to_owned(), None),
            ("kubepods.slice".to_owned(), None),
            ("kubelet-kubepods.slice".to_owned(), None),
            ("burstable".to_owned(), None),
            ("besteffort".to_owned(), None),
            (format!("cri-containerd-{HASH}{HASH}.scope"), None),
            (format!("crio-{HASH}{HASH}.scope"), None),
            (format!("crio-conmon-{HASH}{HASH}.scope"), None),
            (format!("{HASH}{HASH}"), None),
            ("pod".to_owned(), None),
            ("podman".to_owned(), None),
            ("pods".to_owned(), None),
            (format!("libpod-{HASH}{HASH}.scope"), None),
        ] {
            assert_eq!(uid_of(OsStr::new(&name)).as_deref(), uid, "{name}");
        }
    }

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn pods_are_found_in_every_layout() {
        let id = format!("{HASH}{HASH}");
        for (base, pod, container) in [
            (
                "kubepods.slice",
                format!("kubepods-burstable.slice/kubepods-burstable-pod{SYSTEMD}.slice"),
                format!("cri-containerd-{id}.scope"),
            ),
            ("kubepods.slice", format!("kubepods-pod{SYSTEMD}.slice"), format!("crio-{id}.scope")),
            ("kubepods", format!("burstable/pod{UID}"), id.clone()),
            ("kubepods", format!("pod{UID}"), id.clone()),
            (
                "kubelet.slice/kubelet-kubepods.slice",
                format!(
                    "kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{SYSTEMD}.slice"
                ),
                format!("cri-containerd-{id}.scope"),
            ),
            ("kubelet/kubepods", format!("besteffort/pod{UID}"), id.clone()),
        ] {
            let root =
                std::env::temp_dir().join(format!("undermesh-cgroups-{}", std::process::id()));
            let dir = Dir(root.clone());
            let base = root.join(base);
            fs::create_dir_all(base.join(&pod).join(container)).unwrap();
            let other = pod.replace("1b4d2b6e", "ffffffff");
            fs::create_dir_all(base.join(other)).unwrap();
            assert_eq!(find(&base, UID), Some(base.join(&pod)), "{pod}");
            assert_eq!(find(&base, HASH), None);
            drop(dir);
        }
    }
}
