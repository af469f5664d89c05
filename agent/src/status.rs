//! `undermesh status`: what the agent says of itself, as JSON and as a table.

mod destinations;
mod source;
mod table;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use undermesh_datapath::GateMode;
use undermesh_model::NamespacedName;
use undermesh_proxy::OverloadStatus;
use undermesh_snapshot::WorkloadInfo;

use crate::{
    enrolment::Failure,
    policies::{AuthorizerRow, KeyRow, PolicyRow},
};
pub(crate) use destinations::DestinationStatus;
pub(crate) use source::{ListRow, SourceStatus};
pub(crate) use table::{duration, section};

/// The whole page. Field names are API (docs/reference/status.md).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) agent: AgentStatus,
    /// Where configuration comes from; absent in the answers of older agents.
    #[serde(default)]
    pub(crate) source: SourceStatus,
    pub(crate) pods: Vec<PodStatus>,
    pub(crate) gate: GateStatus,
    /// Destinations of pods that the proxy looks after; absent in the answers of older agents.
    #[serde(default)]
    pub(crate) destinations: Vec<DestinationStatus>,
    pub(crate) certificates: Vec<CertificateRow>,
    /// Absent in the answers of older agents, as are the next two.
    #[serde(default)]
    pub(crate) policies: Vec<PolicyRow>,
    #[serde(default)]
    pub(crate) authorizers: Vec<AuthorizerRow>,
    #[serde(default)]
    pub(crate) token_keys: Vec<KeyRow>,
    pub(crate) programs: Vec<ProgramRow>,
    pub(crate) maps: Vec<MapRow>,
    /// Verdicts of the programs by reason, zero counts left out.
    pub(crate) verdicts: BTreeMap<String, u64>,
    pub(crate) warnings: Vec<String>,
}

/// The process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentStatus {
    pub(crate) version: String,
    pub(crate) node: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: u64,
    /// Generation of the configuration in force.
    pub(crate) generation: u64,
    pub(crate) ready: bool,
    /// Why not, where not.
    pub(crate) not_ready: Vec<String>,
    pub(crate) connections: u64,
    pub(crate) tunnels: u64,
    /// Absent in the answers of older agents.
    #[serde(default)]
    pub(crate) overload: OverloadRow,
}

/// What is given up for want of something, and how much of what is used, in percent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OverloadRow {
    pub(crate) step: String,
    pub(crate) memory_percent: u64,
    pub(crate) descriptors_percent: u64,
    pub(crate) delay_percent: u64,
}

impl From<OverloadStatus> for OverloadRow {
    fn from(status: OverloadStatus) -> Self {
        // Saturates, and nobody needs more than whole percents.
        let percent = |share: f64| (share * 100.0) as u64;
        Self {
            step: status.step.to_string(),
            memory_percent: percent(status.pressure.memory),
            descriptors_percent: percent(status.pressure.descriptors),
            delay_percent: percent(status.pressure.delay),
        }
    }
}

impl fmt::Display for OverloadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, memory_percent, descriptors_percent, delay_percent } = self;
        write!(
            f,
            "{step} (memory {memory_percent}%, descriptors {descriptors_percent}%, delay {delay_percent}%)"
        )
    }
}

/// The startup gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GateStatus {
    pub(crate) state: GateState,
    /// The cgroup in which pods run; absent where that is not known.
    pub(crate) cgroup: Option<String>,
    /// Pods that are to be in the mesh, run, and are not programmed.
    pub(crate) held_pods: usize,
    /// Cgroups that run something of which nobody has said what it is.
    pub(crate) unknown_cgroups: usize,
}

/// What the startup gate does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GateState {
    /// Nothing.
    #[default]
    Off,
    /// Refuses.
    Refuse,
    /// Lets through, and counts.
    Pass,
}

impl GateState {
    pub(crate) fn new(mode: Option<GateMode>) -> Self {
        match mode {
            None => Self::Off,
            Some(GateMode::Refuse) => Self::Refuse,
            Some(GateMode::Pass) => Self::Pass,
        }
    }
}

impl fmt::Display for GateStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            GateState::Off => return f.write_str("off"),
            GateState::Refuse => "refuse",
            GateState::Pass => "pass",
        };
        let (pods, cgroups) = (self.held_pods, self.unknown_cgroups);
        write!(f, "{state} (held pods: {pods}, unknown cgroups: {cgroups})")
    }
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PodState {
    /// Intercepted and served.
    Enrolled,
    /// Wanted, and tried again until it works.
    Pending,
    /// Wanted, and not running: not yet, or no longer.
    Waiting,
    /// Wanted, and something about it does not allow it.
    Impossible,
}

/// One pod of this node that configuration enrols.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodStatus {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) identity: String,
    pub(crate) state: PodState,
    /// Of the network namespace; absent while it is not programmed.
    pub(crate) netns_cookie: Option<u64>,
    /// Why it is pending, or what does not work as the configuration wants it.
    pub(crate) detail: String,
}

impl PodStatus {
    pub(crate) fn new(
        workload: &WorkloadInfo,
        netns_cookie: Option<u64>,
        failure: Option<&Failure>,
        problem: Option<&String>,
    ) -> Self {
        let state = match failure {
            Some(Failure { absent: true, .. }) => PodState::Waiting,
            None if netns_cookie.is_some() => PodState::Enrolled,
            _ => PodState::Pending,
        };
        Self {
            namespace: workload.name.namespace.clone(),
            name: workload.name.name.clone(),
            addresses: workload.addresses.clone(),
            identity: workload.identity.to_string(),
            state,
            netns_cookie,
            detail: failure.map(|failure| &failure.text).or(problem).cloned().unwrap_or_default(),
        }
    }

    /// A pod that cannot be enrolled, and why not.
    pub(crate) fn impossible(name: &NamespacedName, why: &str) -> Self {
        Self {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            addresses: Vec::new(),
            identity: String::new(),
            state: PodState::Impossible,
            netns_cookie: None,
            detail: why.to_owned(),
        }
    }
}

/// One certificate; never its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateRow {
    pub(crate) id: String,
    pub(crate) serial: String,
    /// Absent in the answers of older agents.
    #[serde(default)]
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    pub(crate) expires_in_seconds: i64,
    /// How much of the time is over that it was good for when it came; absent while there is none.
    #[serde(default)]
    pub(crate) life_percent: Option<i64>,
    /// Why the last renewal failed, where it did.
    pub(crate) last_error: String,
}

/// One program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProgramRow {
    pub(crate) name: String,
    pub(crate) hook: String,
    pub(crate) program_id: u32,
    pub(crate) attached_to: String,
    pub(crate) attached: bool,
}

/// One map.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MapRow {
    pub(crate) name: String,
    pub(crate) entries: u64,
    pub(crate) max_entries: u64,
    pub(crate) percent: u64,
    /// The setting that its size comes from; empty where that is fixed.
    pub(crate) setting: String,
}

#[cfg(test)]
mod tests;
