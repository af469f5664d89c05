//! The layout of cgroups, and the place to attach to.

use std::{
    fs,
    path::{Path, PathBuf},
};

use undermesh_datapath::CgroupRoot;

use super::{catalogue::Kind, finding::Finding, situation::Situation};

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// Names that a kubelet gives the cgroup of all pods.
const PODS: [&str; 2] = ["kubepods.slice", "kubepods"];

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let v1 = v1_mounts(&fs::read_to_string(MOUNTINFO).unwrap_or_default());
    let Ok(root) = CgroupRoot::find() else {
        return vec![Finding::new(
            Kind::Cgroup2Missing,
            MOUNTINFO,
            "no cgroup2 file system is mounted",
        )];
    };
    let mut found = Vec::new();
    if !v1.is_empty() {
        let layout =
            format!("cgroup v1 has {} hierarchies, and cgroup2 is mounted beside them", v1.len());
        found.push(Finding::new(Kind::CgroupHybrid, root.path().display().to_string(), layout));
    }
    found.extend(pods_in_v1(&v1, root.path()));
    if let Some(cgroup) = situation.outline.cgroup.as_ref().filter(|cgroup| !cgroup.is_dir()) {
        let object = cgroup.display().to_string();
        found.push(Finding::new(Kind::CgroupMissing, object, "it is not there"));
    }
    found
}

/// Mount points of cgroup v1 (proc(5): the type follows the separator ` - `).
fn v1_mounts(mounts: &str) -> Vec<PathBuf> {
    let lines = mounts.lines().filter_map(|line| line.split_once(" - "));
    lines
        .filter(|(_, filesystem)| filesystem.split(' ').next() == Some("cgroup"))
        .filter_map(|(mount, _)| mount.split(' ').nth(4).map(PathBuf::from))
        .collect()
}

/// A kubelet that knows only cgroup v1.
fn pods_in_v1(v1: &[PathBuf], root: &Path) -> Option<Finding> {
    let has_pods = |mount: &Path| PODS.iter().map(|name| mount.join(name)).find(|dir| dir.is_dir());
    if has_pods(root).is_some() {
        return None;
    }
    let dir = v1.iter().find_map(|mount| has_pods(mount))?;
    let found = format!("there is none in {}", root.display());
    Some(Finding::new(Kind::CgroupV1Pods, dir.display().to_string(), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cgroup_v1_counts_as_such() {
        let mounts = "30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw shared:6 - cgroup2 cgroup2 rw\n";
        assert_eq!(v1_mounts(mounts), [PathBuf::from("/sys/fs/cgroup/cpu")]);
    }
}
