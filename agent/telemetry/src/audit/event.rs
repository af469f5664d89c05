//! What is written. Names are API (`docs/reference/audit-log.md`); what is not known is left out.

use serde::Serialize;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum AuditEvent {
    /// Somebody was given a certificate.
    CertificateIssued {
        /// For whom.
        identity: String,
        /// Its serial number.
        serial: String,
        /// When it expires, RFC 3339.
        not_after: String,
        /// Who has asked.
        asker: Asker,
    },
    /// Somebody was not.
    CertificateRefused {
        /// For whom it was wanted, where that was said.
        #[serde(skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
        /// Why, as a word.
        reason: String,
        /// Why, in words.
        message: String,
        /// Who has asked.
        asker: Asker,
    },
    /// What signs, or who is trusted, has changed.
    AuthorityChanged {
        /// `created`, `intermediate_replaced`, `root_staged`, `root_replaced`, `root_pruned`.
        change: &'static str,
        /// Subject of the certificate that signs.
        issuer: String,
        /// Its serial number.
        serial: String,
        /// How many roots are trusted.
        roots: usize,
    },
    /// A controller has begun or ceased to write.
    LeaderChanged {
        /// Which one.
        replica: String,
        /// Whether it writes.
        leads: bool,
    },
    /// An object was not taken by the API server because the controller has refused it.
    ObjectRefused {
        /// Which one.
        #[serde(flatten)]
        object: AuditObject,
        /// `CREATE` or `UPDATE`.
        operation: String,
        /// Who wanted it.
        user: String,
        /// Why not.
        findings: Vec<String>,
    },
    /// An object of the configuration is another than before.
    ConfigurationChanged {
        /// Which one.
        #[serde(flatten)]
        object: AuditObject,
        /// `created`, `changed`, `deleted`.
        change: &'static str,
        /// `metadata.generation`.
        #[serde(skip_serializing_if = "Option::is_none")]
        generation: Option<i64>,
        /// The manager that has written last, and when, where `metadata.managedFields` says it.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// The fields that differ, at most a few.
        fields: Vec<String>,
    },
    /// An agent has put in force what it was sent, or not.
    ConfigurationDistributed {
        /// Its node.
        node: String,
        /// Its pod.
        pod: String,
        /// Where it is.
        address: String,
        /// `first` of a stream, `changes`, or `rejected`.
        what: &'static str,
        /// The version of the last state.
        version: String,
        /// States since the last line.
        states: u64,
        /// Objects in them, each as often as it was sent.
        objects: u64,
        /// Names in them of what is gone, or no longer needed.
        removed: u64,
        /// Bytes that were sent.
        bytes: u64,
        /// Why the last is not in force.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Somebody wanted configuration and was refused.
    DistributionRefused {
        /// Why, as a word.
        reason: String,
        /// Why, in words.
        message: String,
        /// Who has asked.
        asker: Asker,
    },
    /// A policy has refused a connection or a request.
    PolicyDenied {
        /// The pod that was guarded.
        workload: String,
        /// Who has asked; absent for somebody without a certificate.
        #[serde(skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
        /// The address of whoever has asked.
        address: String,
        /// Why, as the access log has it.
        reason: String,
        /// More, for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        /// The policy that has decided, where one has.
        #[serde(skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
    },
}

/// Who has asked for a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asker {
    /// The address at the other end.
    pub address: String,
    /// Who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The pod that its token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// That pod's node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// An object of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditObject {
    /// Its kind.
    pub kind: String,
    /// Its namespace; absent for what is in none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name.
    pub name: String,
}
