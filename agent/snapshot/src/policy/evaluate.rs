//! The one answer to "may this connection be delivered?".

use std::{
    cell::OnceCell,
    fmt,
    net::{IpAddr, SocketAddr},
};

use undermesh_model::{MtlsMode, ResourceRef, SpiffeId, TextMatch, Values};

use super::{CompiledPolicy, Match, Statement};

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionAttributes<'a> {
    /// Who the client has proven to be; nobody, for plaintext.
    pub source: Option<&'a SpiffeId>,
    /// Where it comes from.
    pub source_address: IpAddr,
    /// Address and port of the pod.
    pub destination: SocketAddr,
}

/// Yes or no, and because of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Let it pass.
    pub allowed: bool,
    /// Why.
    pub cause: Cause,
    /// The policy that decided: the one that matched, or, where no ALLOW policy matched, the
    /// first of those.
    pub policy: Option<&'a ResourceRef>,
    /// Which of its rules, from 0.
    pub rule: Option<usize>,
    /// What else there is to report.
    pub findings: Vec<Finding<'a>>,
}

/// Why a connection may pass or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing forbids it, and no ALLOW policy is about this workload.
    Unrestricted,
    /// A rule of an ALLOW policy matches.
    Allowed,
    /// The port takes no plaintext.
    StrictPlaintext,
    /// A rule of a DENY policy matches.
    Denied,
    /// There are ALLOW policies, and none matches.
    NotAllowed,
}

/// A policy that matched without a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// What would have happened.
    pub kind: FindingKind,
    /// Because of which policy.
    pub policy: &'a ResourceRef,
    /// Which of its rules; `None` where none of them matched and that is the finding.
    pub rule: Option<usize>,
}

/// Kinds of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingKind {
    /// An AUDIT policy matches.
    Audit,
    /// A DENY policy would refuse it, were it not a dry run.
    WouldDeny,
    /// No ALLOW policy would allow it, were those that are dry runs in force.
    WouldNotAllow,
}

impl FindingKind {
    /// Stable name for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::WouldDeny => "would_deny",
            Self::WouldNotAllow => "would_not_allow",
        }
    }
}

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Unrestricted => return f.write_str("no policy is about it"),
            Cause::StrictPlaintext => return f.write_str("the port takes no plaintext"),
            Cause::Allowed => f.write_str("allowed by ")?,
            Cause::Denied => f.write_str("denied by ")?,
            Cause::NotAllowed => f.write_str("not allowed by ")?,
        }
        if let Some(policy) = self.policy {
            write!(f, "{policy}")?;
        }
        match self.rule {
            Some(rule) => write!(f, ", rule {rule}"),
            None => Ok(()),
        }
    }
}

/// Decides. DENY comes first, then ALLOW where there is any; else it may pass.
pub fn evaluate<'a>(
    policy: &'a CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
) -> Decision<'a> {
    let subject = Subject { connection, principal: OnceCell::new() };
    let (cause, object, rule) = decide(policy, &subject);
    let allowed = matches!(cause, Cause::Unrestricted | Cause::Allowed);
    let findings = find(policy, &subject, cause);
    Decision { allowed, cause, policy: object, rule, findings }
}

fn decide<'a>(
    policy: &'a CompiledPolicy,
    subject: &Subject<'_>,
) -> (Cause, Option<&'a ResourceRef>, Option<usize>) {
    let connection = subject.connection;
    let mode = policy.modes.of(connection.destination.port());
    if connection.source.is_none() && mode == MtlsMode::Strict {
        return (Cause::StrictPlaintext, None, None);
    }
    let mut deny = policy.deny.iter().filter(|statement| !statement.dry_run);
    if let Some((statement, rule)) = deny.find_map(|one| Some((one, subject.matching(one)?))) {
        return (Cause::Denied, Some(&statement.origin), Some(rule));
    }
    let allow = || policy.allow.iter().filter(|statement| !statement.dry_run);
    let Some(first) = allow().next() else { return (Cause::Unrestricted, None, None) };
    match allow().find_map(|one| Some((one, subject.matching(one)?))) {
        Some((statement, rule)) => (Cause::Allowed, Some(&statement.origin), Some(rule)),
        None => (Cause::NotAllowed, Some(&first.origin), None),
    }
}

/// What AUDIT policies and dry runs have to say.
fn find<'a>(policy: &'a CompiledPolicy, subject: &Subject<'_>, cause: Cause) -> Vec<Finding<'a>> {
    let finding = |kind| {
        move |statement: &'a Statement| {
            let rule = Some(subject.matching(statement)?);
            Some(Finding { kind, policy: &statement.origin, rule })
        }
    };
    let audit = policy.audit.iter().map(AsRef::as_ref);
    let mut findings: Vec<_> = audit.filter_map(finding(FindingKind::Audit)).collect();
    let dry_deny = policy.deny.iter().map(AsRef::as_ref).filter(|one: &&Statement| one.dry_run);
    findings.extend(dry_deny.filter_map(finding(FindingKind::WouldDeny)));
    let mut dry_allow = policy.allow.iter().map(AsRef::as_ref).filter(|one| one.dry_run).peekable();
    let first: Option<&Statement> = dry_allow.peek().copied();
    if let Some(first) = first
        && cause != Cause::Allowed
        && !dry_allow.any(|one| subject.matching(one).is_some())
    {
        let kind = FindingKind::WouldNotAllow;
        findings.push(Finding { kind, policy: &first.origin, rule: None });
    }
    findings
}

/// A connection, and its principal once somebody has asked for it.
struct Subject<'a> {
    connection: &'a ConnectionAttributes<'a>,
    principal: OnceCell<String>,
}

impl Subject<'_> {
    /// The first rule that matches.
    fn matching(&self, statement: &Statement) -> Option<usize> {
        let every_clause = |clauses: &[Vec<Match>]| {
            clauses.iter().all(|clause| clause.iter().any(|one| self.is(one)))
        };
        let mut rules = statement.rules.iter();
        rules.find(|rule| every_clause(&rule.clauses)).map(|rule| rule.index)
    }

    /// Without an identity, nothing that is said about one is true: what asks for one does not
    /// match, and what excludes one does.
    fn is(&self, one: &Match) -> bool {
        let connection = self.connection;
        let source = connection.source;
        let text = |values: &Values<TextMatch>, of: fn(&SpiffeId) -> &str| {
            values.admit(|value| source.is_some_and(|source| value.matches(of(source))))
        };
        let principal = |source: &SpiffeId| self.principal.get_or_init(|| source.principal());
        one.principals.admit(|value| source.is_some_and(|source| value.matches(principal(source))))
            && text(&one.namespaces, |source| &source.namespace)
            && text(&one.trust_domains, |source| source.trust_domain.as_str())
            && one.service_accounts.admit(|account| {
                source.is_some_and(|source| {
                    source.namespace == account.namespace && source.service_account == account.name
                })
            })
            && one.sources.admit(|block| block.contains(&connection.source_address))
            && one.destinations.admit(|block| block.contains(&connection.destination.ip()))
            && one.ports.admit(|port| *port == connection.destination.port())
    }
}
