//! What `undermesh status` says of policies: which of them are about pods of this node, and which of them refuse
//! because something that they need is missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use undermesh_model::{PolicyAction, ResourceRef};
use undermesh_proxy::{AuthorizerStatus, KeyStatus};
use undermesh_snapshot::{CompiledPolicy, Snapshot, Statement};

use crate::agent::Warnings;

/// A policy about pods of this node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyRow {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `ALLOW`, `DENY`, `AUDIT`, `CUSTOM`; empty for what has none.
    pub(crate) action: String,
    /// Pods of this node that it is about.
    pub(crate) pods: usize,
    pub(crate) state: PolicyState,
    /// What is missing where it fails, closed or open.
    pub(crate) causes: BTreeSet<Cause>,
    /// Findings, and why it refuses what it might let pass.
    pub(crate) detail: Vec<String>,
}

/// What a policy does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PolicyState {
    /// What is written.
    Enforced,
    /// It is reported what would be done.
    DryRun,
    /// It refuses, since something that it needs is missing.
    FailsClosed,
    /// It lets pass, since something that it needs is missing and `failOpen` says so.
    FailsOpen,
}

/// Why a policy does not do what is written. Names are labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Cause {
    /// A rule has a field or a key that nobody knows: it allows nothing, or denies more.
    UnknownField,
    /// Whom it asks is not configured, or has no service.
    UnknownProvider,
    /// Whom it asks has given no answer the last time.
    NoAnswer,
    /// Keys for tokens were never read.
    NoKeys,
    /// The kernel cannot judge so many ports, and refuses.
    TooManyPorts,
}

impl PolicyState {
    pub(crate) const ALL: [Self; 4] =
        [Self::Enforced, Self::DryRun, Self::FailsClosed, Self::FailsOpen];

    /// As a label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::DryRun => "dry-run",
            Self::FailsClosed => "fails-closed",
            Self::FailsOpen => "fails-open",
        }
    }
}

impl Cause {
    /// As a label.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::UnknownField => "unknown-field",
            Self::UnknownProvider => "unknown-provider",
            Self::NoAnswer => "no-answer",
            Self::NoKeys => "no-keys",
            Self::TooManyPorts => "too-many-ports",
        }
    }
}

/// An authorizer that was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuthorizerRow {
    pub(crate) provider: String,
    pub(crate) allowed: u64,
    pub(crate) denied: u64,
    pub(crate) failed_closed: u64,
    pub(crate) failed_open: u64,
    /// Why it gave no answer the last time; empty where it has given one.
    pub(crate) error: String,
    /// How long ago that was.
    pub(crate) error_seconds: Option<u64>,
}

/// Where keys for tokens come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyRow {
    pub(crate) issuer: String,
    /// A URI, `inline`, or `discovered`.
    pub(crate) source: String,
    /// How many there are.
    pub(crate) keys: usize,
    /// How old they are.
    pub(crate) age_seconds: Option<u64>,
    /// Why the last fetch failed; empty where it has not.
    pub(crate) error: String,
    /// When the next token may have them fetched again.
    pub(crate) retry_seconds: u64,
}

/// All policies about pods of this node.
pub(crate) fn rows(
    snapshot: &Snapshot,
    (authorizers, keys): (&[AuthorizerStatus], &[KeyStatus]),
    warnings: &Warnings,
) -> Vec<PolicyRow> {
    let mut rows: BTreeMap<&ResourceRef, PolicyRow> = BTreeMap::new();
    for workload in &snapshot.local {
        let Some(policy) = snapshot.policies.get(&workload.name) else { continue };
        let mut own: Vec<&ResourceRef> = Vec::new();
        for statement in policy.statements() {
            let row = rows.entry(&statement.origin).or_insert_with(|| of(statement, warnings));
            let namespace = &workload.name.namespace;
            row.look_at_provider(statement, namespace, snapshot, authorizers);
            own.push(&statement.origin);
        }
        for rule in &policy.tokens {
            let origin = &rule.origin;
            let row = rows.entry(origin).or_insert_with(|| row(origin, "", warnings));
            row.look_at_keys(keys.iter().find(|key| key.is_of(rule)));
            own.push(origin);
        }
        own.dedup();
        for origin in own {
            let Some(row) = rows.get_mut(origin) else { continue };
            row.pods += 1;
            row.look_at_pod(&workload.origin, policy, warnings);
        }
    }
    rows.into_values().collect()
}

fn of(statement: &Statement, warnings: &Warnings) -> PolicyRow {
    let action = match statement.action {
        PolicyAction::Allow => "ALLOW",
        PolicyAction::Deny => "DENY",
        PolicyAction::Audit => "AUDIT",
        PolicyAction::Custom => "CUSTOM",
    };
    let mut row = row(&statement.origin, action, warnings);
    if statement.dry_run {
        row.state = PolicyState::DryRun;
    } else if statement.rules.iter().any(|rule| rule.unknown) {
        // The finding about it is there already.
        row.causes.insert(Cause::UnknownField);
        row.state = PolicyState::FailsClosed;
    }
    row
}

fn row(origin: &ResourceRef, action: &str, warnings: &Warnings) -> PolicyRow {
    PolicyRow {
        kind: origin.kind.to_owned(),
        namespace: origin.namespace.clone(),
        name: origin.name.clone(),
        action: action.to_owned(),
        pods: 0,
        state: PolicyState::Enforced,
        causes: BTreeSet::new(),
        detail: warnings.about(origin, None),
    }
}

impl PolicyRow {
    fn fails(&mut self, cause: Cause, open: bool, why: String) {
        self.causes.insert(cause);
        if !self.detail.contains(&why) {
            self.detail.push(why);
        }
        if !open {
            self.state = PolicyState::FailsClosed;
        } else if self.state != PolicyState::FailsClosed {
            self.state = PolicyState::FailsOpen;
        }
    }

    fn look_at_provider(
        &mut self,
        statement: &Statement,
        namespace: &str,
        snapshot: &Snapshot,
        authorizers: &[AuthorizerStatus],
    ) {
        if statement.action != PolicyAction::Custom {
            return;
        }
        let provider = statement.provider.as_deref().unwrap_or_default();
        let route = match snapshot.authorizers.find(namespace, provider) {
            Ok(route) => route,
            Err(none) => {
                let why = format!("provider {provider:?} cannot be asked: {none}");
                return self.fails(Cause::UnknownProvider, false, why);
            }
        };
        let mut known = authorizers.iter().filter(|one| one.provider == provider);
        if let Some(error) = known.find_map(|one| one.error.as_ref()) {
            let open = route.rule.fail_open;
            let why = format!("provider {provider:?} gave no answer the last time: {error}");
            self.fails(Cause::NoAnswer, open, why);
        }
    }

    fn look_at_keys(&mut self, key: Option<&KeyStatus>) {
        let Some(KeyStatus { issuer, keys, error: Some(error), retry_seconds, .. }) = key else {
            return;
        };
        let again =
            format!("tried again with the next token, in {retry_seconds} s at the earliest");
        if *keys == 0 {
            let why = format!("no keys of issuer {issuer:?}: {error}; {again}");
            self.fails(Cause::NoKeys, false, why);
        } else {
            let why = format!("the keys of issuer {issuer:?} are old: {error}; {again}");
            if !self.detail.contains(&why) {
                self.detail.push(why);
            }
        }
    }

    /// What is wrong with the pod because of all its policies together.
    fn look_at_pod(&mut self, pod: &ResourceRef, policy: &CompiledPolicy, warnings: &Warnings) {
        for why in warnings.about(pod, Some("too-many-ports")) {
            if policy.is_enforced() {
                self.fails(Cause::TooManyPorts, false, format!("{pod} {why}"));
            }
        }
    }

    pub(crate) fn row(&self) -> Vec<String> {
        let state = match self.state {
            PolicyState::Enforced => "enforced",
            PolicyState::DryRun => "dry run",
            PolicyState::FailsClosed => "FAILS CLOSED",
            PolicyState::FailsOpen => "FAILS OPEN",
        };
        vec![
            format!("{} {}/{}", self.kind, self.namespace, self.name),
            self.action.clone(),
            self.pods.to_string(),
            state.to_owned(),
            self.detail.join("; "),
        ]
    }
}

impl AuthorizerRow {
    pub(crate) fn of(status: &AuthorizerStatus) -> Self {
        Self {
            provider: status.provider.clone(),
            allowed: status.allowed,
            denied: status.denied,
            failed_closed: status.failed_closed,
            failed_open: status.failed_open,
            error: status.error.clone().unwrap_or_default(),
            error_seconds: status.error_seconds,
        }
    }

    pub(crate) fn row(&self) -> Vec<String> {
        let ago = self.error_seconds.map(|seconds| format!("{seconds}s ago: {}", self.error));
        let counts = [self.allowed, self.denied, self.failed_closed, self.failed_open];
        let mut row = vec![self.provider.clone()];
        row.extend(counts.map(|count| count.to_string()));
        row.push(ago.unwrap_or_default());
        row
    }
}

impl KeyRow {
    pub(crate) fn of(status: &KeyStatus) -> Self {
        Self {
            issuer: status.issuer.clone(),
            source: status.source.clone(),
            keys: status.keys,
            age_seconds: status.age_seconds,
            error: status.error.clone().unwrap_or_default(),
            retry_seconds: status.retry_seconds,
        }
    }

    pub(crate) fn row(&self) -> Vec<String> {
        let age = self.age_seconds.map_or("never".to_owned(), |age| format!("{age}s ago"));
        let retry = if self.error.is_empty() {
            String::new()
        } else {
            format!("{} (again in {}s)", self.error, self.retry_seconds)
        };
        vec![self.issuer.clone(), self.source.clone(), self.keys.to_string(), age, retry]
    }
}
