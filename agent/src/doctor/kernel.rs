//! The kernel: features, the JIT, type information, locked memory, security modules.

use std::fs;

use rustix::process::{Resource, getrlimit};
use undermesh_datapath::{Availability, Feature, KernelFeatures, Need};

use super::{
    capabilities::{self, SYS_RESOURCE},
    catalogue::Kind,
    finding::Finding,
    situation::Situation,
};

const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
const BTF: &str = "/sys/kernel/btf/vmlinux";
const LSM: &str = "/sys/kernel/security/lsm";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

pub(super) fn check(situation: &Situation) -> Vec<Finding> {
    let limit = getrlimit(Resource::Memlock);
    let features = situation.features.get_or_init(KernelFeatures::probe);
    let mut found = of_features(features, situation.status().is_ok());
    let charged = features.all().iter().any(|probed| {
        probed.feature == Feature::MemoryAccounting.name()
            && matches!(probed.availability, Availability::Missing(_))
    });
    let may_raise = capabilities::effective("self").is_some_and(|set| set.has(SYS_RESOURCE));
    found.extend(memlock(charged, may_raise, limit.maximum));
    found.extend(fs::read_to_string(JIT).ok().and_then(|text| jit(&text)));
    if !fs::exists(BTF).unwrap_or(false) {
        found.push(Finding::new(Kind::BtfMissing, BTF, "it is not there"));
    }
    found.extend(fs::read_to_string(LSM).ok().and_then(|text| modules(&text)));
    found.extend(fs::read_to_string(LOCKDOWN).ok().and_then(|text| lockdown(&text)));
    found
}

fn of_features(features: &KernelFeatures, agent_runs: bool) -> Vec<Finding> {
    let findings = features.all().iter().filter_map(|probed| {
        let (kind, reason) = classify(&probed.availability, probed.need, agent_runs)?;
        let found = format!("{reason} (used for: {})", probed.used_for);
        Some(Finding::new(kind, probed.feature, found))
    });
    findings.collect()
}

/// What nothing depends on is no finding, whatever came of it. What cannot be tried from here, as in a pod that has no
/// cgroup of its own to write to, is none beside an agent: it has tried, has started, and warns of what it lacks.
fn classify(availability: &Availability, need: Need, agent_runs: bool) -> Option<(Kind, &str)> {
    match (availability, need) {
        (Availability::Available, _) | (_, Need::Informative) => None,
        (Availability::Unknown(_), _) if agent_runs => None,
        (Availability::Missing(reason), Need::Required) => Some((Kind::FeatureMissing, reason)),
        (Availability::Missing(reason), Need::Degrades) => Some((Kind::FeatureDegraded, reason)),
        (Availability::Unknown(reason), _) => Some((Kind::FeatureUnknown, reason)),
    }
}

/// A limit matters where maps count against it and the agent cannot raise it.
fn memlock(charged: bool, may_raise: bool, maximum: Option<u64>) -> Option<Finding> {
    let bytes = maximum.filter(|_| charged && !may_raise)?;
    let found = format!("maps count against a limit of {bytes} bytes");
    Some(Finding::new(Kind::MemlockLimited, "RLIMIT_MEMLOCK", found))
}

fn jit(text: &str) -> Option<Finding> {
    (text.trim() == "0").then(|| Finding::new(Kind::JitOff, JIT, "it is 0"))
}

/// Modules that look at bpf(2) or setns(2).
fn modules(text: &str) -> Option<Finding> {
    let strict: Vec<&str> = text
        .trim()
        .split(',')
        .filter(|name| ["selinux", "apparmor", "smack", "tomoyo", "bpf"].contains(name))
        .collect();
    (!strict.is_empty()).then(|| Finding::new(Kind::LsmPresent, LSM, strict.join(", ")))
}

/// `none [integrity] confidentiality`: the one in force stands in brackets.
fn lockdown(text: &str) -> Option<Finding> {
    let found = "it is in force";
    text.contains("[confidentiality]")
        .then(|| Finding::new(Kind::LockdownConfidentiality, LOCKDOWN, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_an_error_and_what_could_not_be_asked_is_not_called_missing() {
        let missing = Availability::Missing("no".to_owned());
        let unknown = Availability::Unknown("no".to_owned());
        let kind = |availability, need| classify(availability, need, false).map(|(kind, _)| kind);
        assert_eq!(kind(&missing, Need::Required), Some(Kind::FeatureMissing));
        assert_eq!(kind(&missing, Need::Degrades), Some(Kind::FeatureDegraded));
        assert_eq!(kind(&missing, Need::Informative), None);
        assert_eq!(kind(&unknown, Need::Required), Some(Kind::FeatureUnknown));
        assert_eq!(kind(&Availability::Available, Need::Required), None);
        // An agent that runs has tried itself; what it lacks, it may lack from the next start on.
        assert_eq!(classify(&unknown, Need::Required, true), None);
        assert!(classify(&missing, Need::Required, true).is_some());
    }

    #[test]
    fn a_memory_limit_counts_only_where_maps_do_and_it_cannot_be_raised() {
        assert!(memlock(true, false, Some(65_536)).is_some());
        for (charged, may_raise, maximum) in
            [(false, false, Some(65_536)), (true, true, Some(65_536)), (true, false, None)]
        {
            assert!(memlock(charged, may_raise, maximum).is_none());
        }
    }

    #[test]
    fn the_kernels_own_words_are_understood() {
        assert!(jit("0\n").is_some() && jit("1\n").is_none() && jit("2\n").is_none());
        let found = modules("lockdown,capability,landlock,yama,apparmor,bpf\n").unwrap();
        assert_eq!((found.kind, found.found.as_str()), (Kind::LsmPresent, "apparmor, bpf"));
        assert!(modules("capability,yama\n").is_none());
        assert!(lockdown("none integrity [confidentiality]\n").is_some());
        assert!(lockdown("none [integrity] confidentiality\n").is_none());
    }
}
