//! Every finding that there is. The page `docs/reference/doctor.md` has the same table; a test
//! compares them.

use super::finding::Severity;

macro_rules! kinds {
    ($($variant:ident = $id:literal, $severity:ident, $consequence:literal, $remedy:literal;)*) => {
        /// What can be found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Kind {
            $($variant,)*
        }

        impl Kind {
            /// All of them.
            #[cfg(test)]
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its stable name.
            pub(super) fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)* }
            }

            /// How bad it is.
            pub(super) fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// What follows from it.
            pub(super) fn consequence(self) -> &'static str {
                match self { $(Self::$variant => $consequence,)* }
            }

            /// What to do.
            pub(super) fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

kinds! {
    CheckFailed = "check-failed", Warning,
        "nothing is known of what it looks at",
        "report it, with the output of `undermesh doctor -o json`";
    CheckTimedOut = "check-timed-out", Warning,
        "nothing is known of what it looks at",
        "run it again; a file system or a name server that hangs keeps others waiting as well";
    SettingsUnreadable = "settings-unreadable", Error,
        "an agent with this configuration does not start; the other checks use the defaults",
        "correct the file, or `--config`";
    SettingsInvalid = "settings-invalid", Error,
        "an agent with these settings does not start",
        "correct the setting (docs/reference/names.md)";
    FeatureMissing = "feature-missing", Error,
        "the agent does not start, or enrols no pod",
        "run a newer kernel, or one built with CONFIG_CGROUP_BPF, CONFIG_BPF_SYSCALL and CONFIG_INET";
    FeatureDegraded = "feature-degraded", Note,
        "something else takes its place; the table of features says what",
        "nothing; a newer kernel has it";
    FeatureUnknown = "feature-unknown", Warning,
        "whether the agent can start is not known",
        "run as root with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, on a node with a writable cgroup2 hierarchy";
    JitOff = "jit-off", Warning,
        "programs are interpreted, and cost several times as much per connection",
        "sysctl -w net.core.bpf_jit_enable=1";
    BtfMissing = "btf-missing", Note,
        "nothing that Undermesh needs; other tools need it",
        "nothing; kernels built with CONFIG_DEBUG_INFO_BTF have it";
    MemlockLimited = "memlock-limited", Error,
        "maps are refused with EPERM, and the agent does not start",
        "raise the limit of locked memory (`LimitMEMLOCK=infinity`), or give CAP_SYS_RESOURCE";
    LockdownConfidentiality = "lockdown-confidentiality", Note,
        "programs may not read kernel memory; those of Undermesh do not, tools such as bpftrace do",
        "nothing";
    LsmPresent = "lsm-present", Note,
        "its policy may refuse bpf(2) or network namespaces to the agent, which shows as EPERM or EACCES",
        "nothing, as long as the agent starts; otherwise look for denials in the audit log";
    CapabilityMissing = "capability-missing", Error,
        "the agent does not start, or cannot enter pods",
        "run as root, or give it: in a container `securityContext.capabilities`, in a unit `AmbientCapabilities=`";
    Cgroup2Missing = "cgroup2-missing", Error,
        "there is nothing to attach to, and the agent does not start",
        "mount -t cgroup2 none /sys/fs/cgroup (or, beside cgroup v1, /sys/fs/cgroup/unified)";
    CgroupHybrid = "cgroup-hybrid", Note,
        "programs attach to the cgroup2 hierarchy, and reach pods only if they are in it as well",
        "boot with systemd.unified_cgroup_hierarchy=1";
    CgroupV1Pods = "cgroup-v1-pods", Error,
        "pods are outside of every cgroup2 cgroup below the root, and are not told apart from the node",
        "boot with systemd.unified_cgroup_hierarchy=1, or attach to the whole hierarchy (`cgroup: .`)";
    CgroupMissing = "cgroup-missing", Error,
        "there is nothing to attach to, and the agent does not start",
        "correct `cgroup`, or start what makes it (the kubelet)";
    BpffsMissing = "bpffs-missing", Error,
        "nothing can be pinned, and the agent does not start",
        "mount -t bpf bpf DIR, and point `pinDir` below it";
    BpffsUnmounted = "bpffs-unmounted", Note,
        "the agent mounts one; in a container, that goes with the container unless the mount is propagated",
        "mount -t bpf bpf /sys/fs/bpf at boot";
    PinsOtherVersion = "pins-other-version", Warning,
        "programs of another version still run beside those of this one",
        "the agent removes them when it has taken over; without one, `undermesh cleanup`";
    PinsWithoutAgent = "pins-without-agent", Warning,
        "programs still decide for enrolled pods: meshed destinations are refused",
        "start the agent, or remove them with `undermesh cleanup`";
    ProgramExclusive = "program-exclusive", Error,
        "the kernel lets nobody else attach there or below, and the agent does not start",
        "have its owner attach it with BPF_F_ALLOW_MULTI (drain and reboot the node), or `bpftool cgroup detach`";
    ProgramOverridden = "program-overridden", Warning,
        "it was attached with BPF_F_ALLOW_OVERRIDE, and no longer runs for pods once ours are attached below it",
        "have its owner attach it with BPF_F_ALLOW_MULTI, or as a link";
    SocketLbFirst = "socket-lb-first", Warning,
        "it replaces service addresses by backends' before the mesh sees them: policies and balancing of services have no effect",
        "attach below its cgroup (`cgroup: kubepods.slice`), or switch it off for pods (`socketLB.hostNamespaceOnly` of Cilium)";
    SocketLbAfter = "socket-lb-after", Note,
        "it sees only what the mesh leaves alone",
        "nothing";
    ProgramBeside = "program-beside", Note,
        "it runs for the same connections",
        "nothing, unless it changes their destination";
    CniFound = "cni-found", Note,
        "the mesh needs nothing of it; what it filters or encapsulates stays as it is",
        "nothing";
    MtuMismatch = "mtu-mismatch", Warning,
        "large packets are dropped or cut up on their way out: connections open, and stall with the first large answer",
        "set the pods' MTU (in the CNI's configuration) to that of the node's interface or less";
    ClockUnsynchronised = "clock-unsynchronised", Warning,
        "when clocks of nodes differ, fresh certificates are refused as not yet valid",
        "run chrony, systemd-timesyncd or another NTP client";
    ClockBeforeCa = "clock-before-ca", Error,
        "no certificate of this authority is valid yet: every handshake fails",
        "set the clock; if it is right, make the authority anew on a machine whose clock is right";
    ClockBehindFiles = "clock-behind-files", Warning,
        "the clock has been set back, or that of the machine that wrote it is ahead",
        "compare the clocks of both machines";
    ResolvMissing = "resolv-missing", Warning,
        "names cannot be resolved on this node",
        "write a `nameserver` line into /etc/resolv.conf";
    NameserverSilent = "nameserver-silent", Warning,
        "names are resolved late or not at all",
        "start it, correct /etc/resolv.conf, or let UDP port 53 pass to it";
    PortBusy = "port-busy", Error,
        "the agent cannot listen there, and does not start",
        "stop whoever listens there (`ss -ltnp`), or choose another address for the agent";
    PodPortTaken = "pod-port-taken", Warning,
        "what other pods send to that port of an enrolled pod goes to the agent and not to it",
        "let the application listen at another port; 15008 is the tunnels'";
    PodOutboundPortTaken = "pod-outbound-port-taken", Note,
        "the agent takes another port of the pod's loopback address",
        "nothing";
    CaAbsent = "ca-absent", Note,
        "an agent needs one before it starts",
        "undermesh ca init, or `ca intermediate` on the machine that has the root's key";
    CaUnusable = "ca-unusable", Error,
        "no certificate can be issued: an agent does not start, a running one lets its certificates expire",
        "correct what it says, or `caDir`";
    CertificateHalfSpent = "certificate-half-spent", Note,
        "half of its life is over",
        "plan its renewal: `undermesh ca rotate` for authorities; workloads' are renewed by the agent about now";
    CertificateEnding = "certificate-ending", Warning,
        "less than a fifth of its life is left; when it ends, so does every handshake under it",
        "undermesh ca rotate for authorities; for workloads look at why the renewal fails";
    CertificateExpired = "certificate-expired", Error,
        "every handshake under it fails",
        "undermesh ca rotate for authorities; for workloads look at why the renewal fails";
    CertificateRenewalFailing = "certificate-renewal-failing", Warning,
        "the old certificate is used until it expires",
        "correct what the error says; the agent tries again by itself";
    AgentSilent = "agent-silent", Error,
        "no agent serves this node: meshed destinations are refused to its enrolled pods",
        "start it; if it runs, run this in its network namespace, or pass `--admin-address`; before installing, `--preflight`";
    AgentNotReady = "agent-not-ready", Error,
        "the node is not sent traffic, and some pods are not in the mesh",
        "the reason says what is missing";
    ProgramDetached = "program-detached", Error,
        "connections pass it by",
        "restart the agent: it attaches again. Find out who has detached it or removed its cgroup or pin";
    MapFilling = "map-filling", Warning,
        "when it is full, what is new finds no place: a pod is not enrolled, a service is not known, a connection is closed",
        "raise its size (docs/reference/names.md), and start the agent after `undermesh cleanup`";
    PodPending = "pod-pending", Warning,
        "it is labelled as part of the mesh and is not: its connections are neither encrypted nor checked",
        "correct what the reason says; the agent tries again by itself";
    AgentWarning = "agent-warning", Warning,
        "as the agent says",
        "as the agent says";
    ManifestsRejected = "manifests-rejected", Error,
        "the whole state is rejected: the last good one stays in force, and a fresh agent does not get ready",
        "correct the object at the place that is named";
    ManifestsWarning = "manifests-warning", Warning,
        "the object has no effect, or another one than it seems",
        "correct the object at the place that is named";
    NetworkPolicyBlocks = "network-policy-blocks", Warning,
        "applications may talk, but the tunnel that carries their connections between nodes is dropped: they fail",
        "let TCP port 15008 pass between meshed pods in the policies that are named; or let both ends speak the native wire, which has the application's own port";
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/doctor.md");

    /// Rows of the page's table of findings: the name, and what follows it.
    fn documented() -> BTreeMap<String, Vec<String>> {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (_, table) = page.split_once("## Findings").unwrap();
        let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let cells: Vec<String> =
                row.trim_end_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
            (cells[0].trim_end_matches('`').to_owned(), cells[1..].to_vec())
        })
        .collect()
    }

    #[test]
    fn the_page_lists_every_finding_with_the_words_of_the_catalogue_and_no_other() {
        let page = documented();
        for kind in Kind::ALL {
            let row = page.get(kind.id());
            let words = [kind.severity().as_str(), kind.consequence(), kind.remedy()];
            assert_eq!(row, Some(&words.map(str::to_owned).to_vec()), "{}", kind.id());
        }
        assert_eq!(page.len(), Kind::ALL.len());
    }

    /// What no node can be made to show: a check that ends without an answer has a fault. A test
    /// beside the code produces it with a check of its own.
    const ELSEWHERE: [Kind; 1] = [Kind::CheckFailed];

    #[test]
    fn every_finding_is_produced_by_a_test_on_a_real_node() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tests");
        let files = ["", "_kernel", "_network", "_agent"];
        let texts = files
            .map(|name| std::fs::read_to_string(format!("{dir}/netns_doctor{name}.rs")).unwrap());
        for kind in Kind::ALL.iter().filter(|kind| !ELSEWHERE.contains(kind)) {
            let name = format!("\"{}\"", kind.id());
            assert!(texts.iter().any(|text| text.contains(&name)), "{name} has no test");
        }
    }

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.id()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
