//! What `GET /status` says, as far as tests look at it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The status page.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The process.
    pub agent: AgentRow,
    /// Where configuration comes from.
    pub source: SourceRow,
    /// Enrolled and pending pods of the node.
    pub pods: Vec<PodRow>,
    /// The startup gate.
    pub gate: GateRow,
    /// Certificates of workloads.
    pub certificates: Vec<CertificateRow>,
    /// Policies about pods of the node.
    pub policies: Vec<PolicyRow>,
    /// Whom CUSTOM policies have asked.
    pub authorizers: Vec<AuthorizerRow>,
    /// What tokens are verified with.
    pub token_keys: Vec<KeyRow>,
    /// Programs in the kernel.
    pub programs: Vec<ProgramRow>,
    /// Maps in the kernel.
    pub maps: Vec<MapRow>,
    /// Verdicts by reason; zero counts are left out.
    pub verdicts: BTreeMap<String, u64>,
    /// Diagnostics as text.
    pub warnings: Vec<String>,
}

/// Where configuration comes from.
#[derive(Clone, Debug, Deserialize)]
pub struct SourceRow {
    /// `manifests` or `kubernetes`.
    pub kind: String,
    /// Everything has been read.
    pub complete: bool,
    /// When the state was written that is in force, where it comes from the cache.
    pub cached: Option<u64>,
}

/// The agent's process.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRow {
    /// Process id.
    pub pid: u32,
    /// The configuration in force.
    pub generation: u64,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// Why not.
    pub not_ready: Vec<String>,
    /// Live connections through the proxy.
    pub connections: u64,
    /// Live tunnels to and from other agents.
    pub tunnels: u64,
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRow {
    /// Its name.
    pub name: String,
    /// Its SPIFFE ID.
    pub identity: String,
    /// `enrolled`, or why not yet.
    pub state: String,
    /// Why it is pending.
    pub detail: String,
}

/// The startup gate.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateRow {
    /// `off`, `refuse` or `pass`.
    pub state: String,
    /// Pods that run, are to be in the mesh, and are not programmed.
    pub held_pods: u64,
    /// Cgroups that run something nobody has described.
    pub unknown_cgroups: u64,
}

/// A certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRow {
    /// The SPIFFE ID it is for.
    pub id: String,
    /// Its serial number.
    pub serial: String,
    /// Seconds until it expires; negative afterwards.
    pub expires_in_seconds: i64,
    /// How much of its life is over, in percent; absent while there is none.
    #[serde(default)]
    pub life_percent: Option<i64>,
    /// Why the last renewal failed, where it did.
    #[serde(default)]
    pub last_error: String,
}

/// A policy.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What a match means.
    pub action: String,
    /// Pods of the node that it is about.
    pub pods: usize,
    /// `enforced`, `dry-run`, `fails-closed` or `fails-open`.
    pub state: String,
    /// What is missing, where it fails.
    pub causes: Vec<String>,
    /// Findings, and why it fails.
    pub detail: Vec<String>,
}

/// An authorizer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizerRow {
    /// The provider's name.
    pub provider: String,
    /// Requests that it has let pass.
    pub allowed: u64,
    /// Requests that it has refused.
    pub denied: u64,
    /// Requests refused without an answer.
    pub failed_closed: u64,
    /// Requests that have passed without an answer.
    pub failed_open: u64,
    /// Why there was no answer the last time.
    pub error: String,
}

/// Keys of an issuer.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRow {
    /// The issuer.
    pub issuer: String,
    /// How many there are.
    pub keys: usize,
    /// Why the last fetch failed.
    pub error: String,
    /// When they may be fetched again.
    pub retry_seconds: u64,
}

/// A program.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramRow {
    /// Its name.
    pub name: String,
    /// The kind of its hook.
    pub hook: String,
    /// The kernel's id of it.
    pub program_id: u32,
    /// Whether its link is in place.
    pub attached: bool,
}

/// A map.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapRow {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries it has room for.
    pub max_entries: u64,
}

impl Status {
    /// How often the programs have given this verdict.
    pub fn verdict(&self, reason: &str) -> u64 {
        self.verdicts.get(reason).copied().unwrap_or_default()
    }

    /// Entries of a map; 0 for one that is not listed.
    pub fn entries(&self, map: &str) -> u64 {
        let found = self.maps.iter().find(|row| row.name == map);
        found.map_or(0, |row| row.entries)
    }

    /// A policy by its name.
    pub fn policy(&self, name: &str) -> Option<&PolicyRow> {
        self.policies.iter().find(|row| row.name == name)
    }

    /// Whether a pod is enrolled.
    pub fn is_enrolled(&self, pod: &str) -> bool {
        self.pods.iter().any(|row| row.name == pod && row.state == "enrolled")
    }
}
