//! What this machine lets us do with the kernel: read from procfs, decided by pure functions, so
//! that a command can say what is missing before it has started anything.

use std::fs;

/// Capabilities that loading, attaching and namespaces need: number in `capability.h`, and name.
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// The first kernel with every hook we attach to (`sk_lookup` links came last, in 5.9).
const FIRST_KERNEL: (u32, u32) = (5, 10);

/// The texts that the decisions are made from.
pub(crate) struct Machine {
    /// `/proc/self/status`
    status: String,
    /// `/proc/filesystems`
    filesystems: String,
    /// `/proc/self/mounts`
    mounts: String,
    /// `/proc/sys/kernel/osrelease`
    release: String,
}

impl Machine {
    /// Reads what this machine says about itself; a file that is missing counts as empty.
    pub(crate) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            status: text("/proc/self/status"),
            filesystems: text("/proc/filesystems"),
            mounts: text("/proc/self/mounts"),
            release: text("/proc/sys/kernel/osrelease"),
        }
    }

    /// Whether this process runs as root.
    pub(crate) fn is_root(&self) -> bool {
        // Uid: real, effective, saved, filesystem.
        self.status_field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
    }

    /// What keeps this process from running the eBPF programs in namespaces of its own, each as
    /// a phrase; empty when nothing does.
    pub(crate) fn missing_for_bpf(&self) -> Vec<String> {
        if !self.is_root() {
            return vec!["needs root".to_owned()];
        }
        let mut missing = Vec::new();
        for (number, name) in CAPABILITIES {
            if !self.has_capability(number) {
                missing.push(format!("needs {name}, which this container does not grant"));
            }
        }
        if !self.filesystems.split_whitespace().any(|word| word == "bpf") {
            missing.push("needs a kernel built with CONFIG_BPF_SYSCALL".to_owned());
        }
        if !self.has_cgroup2() {
            missing.push("needs cgroup v2 mounted (`mount -t cgroup2 none DIRECTORY`)".to_owned());
        }
        if self.kernel().is_some_and(|kernel| kernel < FIRST_KERNEL) {
            let (major, minor) = FIRST_KERNEL;
            let release = self.release.trim();
            missing.push(format!("needs Linux {major}.{minor} or later, this is {release}"));
        }
        missing
    }

    fn has_capability(&self, number: u32) -> bool {
        self.status_field("CapEff:")
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .is_some_and(|set| set & (1 << number) != 0)
    }

    fn has_cgroup2(&self) -> bool {
        self.mounts.lines().any(|line| line.split(' ').nth(2) == Some("cgroup2"))
    }

    fn kernel(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    fn status_field(&self, name: &str) -> Option<&str> {
        self.status.lines().find_map(|line| line.strip_prefix(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capable() -> Machine {
        Machine {
            status: "Name:\txtask\nUid:\t1000\t0\t0\t0\nCapEff:\t000001ffffffffff\n".to_owned(),
            filesystems: "nodev\tcgroup2\nnodev\tbpf\n\text4\n".to_owned(),
            mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n".to_owned(),
            release: "6.1.0-28-amd64\n".to_owned(),
        }
    }

    #[test]
    fn effective_root_with_bpf_and_cgroup2_lacks_nothing() {
        assert_eq!(capable().missing_for_bpf(), Vec::<String>::new());
    }

    #[test]
    fn a_plain_user_is_told_about_root_and_nothing_else() {
        let mut machine = capable();
        machine.status = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n".to_owned();
        machine.mounts.clear();
        assert_eq!(machine.missing_for_bpf(), ["needs root"]);
    }

    #[test]
    fn root_in_a_container_is_told_which_capability_is_missing() {
        let mut machine = capable();
        machine.status = "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n".to_owned();
        let missing = machine.missing_for_bpf().join("; ");
        assert!(missing.contains("CAP_NET_ADMIN"), "{missing}");
        assert!(missing.contains("CAP_SYS_ADMIN"), "{missing}");
    }

    #[test]
    fn each_missing_piece_of_the_kernel_is_named() {
        let mut machine = capable();
        machine.filesystems = "nodev\tcgroup2\n".to_owned();
        machine.mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n".to_owned();
        machine.release = "5.9.16\n".to_owned();
        let missing = machine.missing_for_bpf();
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert!(missing[0].contains("CONFIG_BPF_SYSCALL"));
        assert!(missing[1].contains("cgroup v2"));
        assert!(missing[2].contains("this is 5.9.16"));
    }
}
