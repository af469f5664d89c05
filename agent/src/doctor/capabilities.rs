//! What the agent, or whoever asks in its place, is allowed to do.

use std::fs;

use super::{catalogue::Kind, finding::Finding, situation::Situation};

/// `CAP_SYS_RESOURCE`.
pub(super) const SYS_RESOURCE: u8 = 24;
const SYS_ADMIN: u8 = 21;
const BPF: u8 = 39;

/// What is needed, and for what.
const NEEDED: [(u8, &str, &str); 4] = [
    (12, "CAP_NET_ADMIN", "attaching programs to sockets and network namespaces"),
    (
        19,
        "CAP_SYS_PTRACE",
        "finding the network namespaces of pods by their processes, and the kubelet",
    ),
    (SYS_ADMIN, "CAP_SYS_ADMIN", "entering network namespaces, and mounting a BPF file system"),
    (BPF, "CAP_BPF", "loading programs"),
];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    pub(super) fn has(self, capability: u8) -> bool {
        self.0 >> capability & 1 == 1
    }
}

/// The effective capabilities of a process, by its name in /proc.
pub(super) fn effective(process: &str) -> Option<Capabilities> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    parse(&status)
}

fn parse(status: &str) -> Option<Capabilities> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok().map(Capabilities)
}

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let process = agent(situation).unwrap_or_else(|| "self".to_owned());
    let Some(set) = effective(&process) else { return Vec::new() };
    let who =
        if process == "self" { "this process".to_owned() } else { format!("agent {process}") };
    missing(set)
        .map(|(name, purpose)| {
            Finding::new(
                Kind::CapabilityMissing,
                name,
                format!("{who} lacks it; it is for {purpose}"),
            )
        })
        .collect()
}

/// The agent's process. It may be in another PID namespace, where its id means somebody else.
fn agent(situation: &Situation) -> Option<String> {
    let pid = situation.status().as_ref().ok()?.agent.pid;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    name.starts_with("undermesh").then(|| pid.to_string())
}

/// Before CAP_BPF (Linux 5.8), and ever since as well, CAP_SYS_ADMIN includes it.
fn missing(set: Capabilities) -> impl Iterator<Item = (&'static str, &'static str)> {
    let lacks =
        move |capability: u8| !(set.has(capability) || capability == BPF && set.has(SYS_ADMIN));
    NEEDED
        .iter()
        .filter(move |(number, ..)| lacks(*number))
        .map(|(_, name, purpose)| (*name, *purpose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_in_force_is_read_and_sys_admin_includes_bpf() {
        let names = |status: &str| -> Vec<_> {
            missing(parse(status).unwrap()).map(|(name, _)| name).collect()
        };
        assert!(names("CapPrm:\t0\nCapEff:\t000001ffffffffff\n").is_empty());
        assert!(names("CapEff:\t0000000000281000\n").is_empty());
        assert_eq!(names("CapEff:\t0000008000001000\n"), ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN"]);
        assert_eq!(names("CapEff:\t0\n").len(), NEEDED.len());
        assert_eq!(parse("no such line"), None);
    }
}
