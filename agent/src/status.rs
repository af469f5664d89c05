//! `undermesh status`: what the agent says of itself, as JSON and as a table.

mod destinations;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use undermesh_datapath::GateMode;
use undermesh_proxy::OverloadStatus;
use undermesh_snapshot::WorkloadInfo;

use crate::policies::{AuthorizerRow, KeyRow, PolicyRow};
pub(crate) use destinations::DestinationStatus;

/// The whole page. Field names are API (docs/reference/status.md).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) agent: AgentStatus,
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
        failure: Option<&String>,
        problem: Option<&String>,
    ) -> Self {
        let enrolled = netns_cookie.is_some() && failure.is_none();
        let state = if enrolled { PodState::Enrolled } else { PodState::Pending };
        Self {
            namespace: workload.name.namespace.clone(),
            name: workload.name.name.clone(),
            addresses: workload.addresses.clone(),
            identity: workload.identity.to_string(),
            state,
            netns_cookie,
            detail: failure.or(problem).cloned().unwrap_or_default(),
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

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let agent = &self.agent;
        writeln!(
            f,
            "Agent {} on node {} (pid {}, up {})",
            agent.version,
            agent.node,
            agent.pid,
            duration(agent.uptime_seconds as i64)
        )?;
        writeln!(f, "  ready        {}", if agent.ready { "yes" } else { "NO" })?;
        for reason in &agent.not_ready {
            writeln!(f, "               {reason}")?;
        }
        writeln!(f, "  generation   {}", agent.generation)?;
        writeln!(f, "  connections  {} (tunnels: {})", agent.connections, agent.tunnels)?;
        writeln!(f, "  overload     {}", agent.overload)?;
        writeln!(f, "  startup gate {}", self.gate)?;
        section(
            f,
            "Pods",
            &["POD", "ADDRESSES", "STATE", "IDENTITY", "DETAIL"],
            self.pods.iter().map(PodStatus::row),
        )?;
        destinations::write(f, &self.destinations)?;
        section(
            f,
            "Certificates",
            &["IDENTITY", "SERIAL", "EXPIRES IN", "PROBLEM"],
            self.certificates.iter().map(CertificateRow::row),
        )?;
        section(
            f,
            "Policies",
            &["POLICY", "ACTION", "PODS", "STATE", "DETAIL"],
            self.policies.iter().map(PolicyRow::row),
        )?;
        section(
            f,
            "Authorizers",
            &["PROVIDER", "ALLOWED", "DENIED", "FAILED CLOSED", "FAILED OPEN", "LAST FAILURE"],
            self.authorizers.iter().map(AuthorizerRow::row),
        )?;
        section(
            f,
            "Token keys",
            &["ISSUER", "SOURCE", "KEYS", "READ", "PROBLEM"],
            self.token_keys.iter().map(KeyRow::row),
        )?;
        section(
            f,
            "Programs",
            &["PROGRAM", "HOOK", "ID", "ATTACHED TO"],
            self.programs.iter().map(ProgramRow::row),
        )?;
        section(f, "Maps", &["MAP", "ENTRIES", "OF", "USED"], self.maps.iter().map(MapRow::row))?;
        section(
            f,
            "Verdicts",
            &["REASON", "CONNECTIONS"],
            self.verdicts.iter().map(|(reason, count)| vec![reason.clone(), count.to_string()]),
        )?;
        if !self.warnings.is_empty() {
            writeln!(f, "\nWarnings")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
        }
        Ok(())
    }
}

impl PodStatus {
    fn row(&self) -> Vec<String> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let state = match self.state {
            PodState::Enrolled => "enrolled",
            PodState::Pending => "PENDING",
        };
        vec![
            format!("{}/{}", self.namespace, self.name),
            addresses.join(","),
            state.to_owned(),
            self.identity.clone(),
            self.detail.clone(),
        ]
    }
}

impl CertificateRow {
    fn row(&self) -> Vec<String> {
        let serial: String = self.serial.chars().take(12).collect();
        vec![self.id.clone(), serial, duration(self.expires_in_seconds), self.last_error.clone()]
    }
}

impl ProgramRow {
    fn row(&self) -> Vec<String> {
        let target = if self.attached { self.attached_to.clone() } else { "NOTHING".to_owned() };
        vec![self.name.clone(), self.hook.clone(), self.program_id.to_string(), target]
    }
}

impl MapRow {
    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.entries.to_string(),
            self.max_entries.to_string(),
            format!("{}%", self.percent),
        ]
    }
}

/// Prints a heading and aligned columns; nothing at all where there are no rows.
pub(crate) fn section(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let mut table = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    table.extend(rows);
    if table.len() == 1 {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
    for row in &table {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(f, "  {}", line.join("  ").trim_end())?;
    }
    Ok(())
}

/// `2d 3h`, `4h 5m`, `6m 7s`: the two largest units.
fn duration(seconds: i64) -> String {
    if seconds < 0 {
        return format!("EXPIRED {} ago", duration(-seconds));
    }
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::PolicyState;

    #[test]
    fn durations_show_their_two_largest_units() {
        for (seconds, text) in [
            (0, "0s"),
            (61, "1m 1s"),
            (3_660, "1h 1m"),
            (90_000, "1d 1h"),
            (-61, "EXPIRED 1m 1s ago"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn the_table_shows_every_section_that_has_rows() {
        let status = Status {
            agent: AgentStatus {
                version: "0.1.0".into(),
                node: "a".into(),
                pid: 1,
                uptime_seconds: 5,
                generation: 3,
                ready: false,
                not_ready: vec!["pods have not been looked at yet".into()],
                connections: 0,
                tunnels: 0,
                overload: OverloadRow {
                    step: "trim".into(),
                    memory_percent: 83,
                    ..OverloadRow::default()
                },
            },
            pods: vec![],
            gate: GateStatus { state: GateState::Refuse, held_pods: 2, ..GateStatus::default() },
            destinations: vec![],
            certificates: vec![],
            policies: vec![PolicyRow {
                kind: "AuthorizationPolicy".into(),
                namespace: "shop".into(),
                name: "ask".into(),
                action: "CUSTOM".into(),
                pods: 2,
                state: PolicyState::FailsClosed,
                detail: vec!["provider \"judge\" cannot be asked".into()],
            }],
            authorizers: vec![],
            token_keys: vec![],
            programs: vec![],
            maps: vec![MapRow {
                name: "PODS".into(),
                entries: 1,
                max_entries: 4,
                percent: 25,
                setting: "maxPods".into(),
            }],
            verdicts: [("local".to_owned(), 2)].into(),
            warnings: vec!["Pod shop/cart: something".into()],
        };
        let text = status.to_string();
        for part in [
            "ready        NO",
            "pods have not",
            "overload     trim (memory 83%, descriptors 0%, delay 0%)",
            "startup gate refuse (held pods: 2, unknown cgroups: 0)",
            "PODS  1",
            "25%",
            "local",
            "Pod shop/cart",
            "AuthorizationPolicy shop/ask  CUSTOM  2     FAILS CLOSED  provider \"judge\"",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(!text.contains("Certificates") && !text.contains("Authorizers"));
        let json = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap().to_string(), text);
    }
}
