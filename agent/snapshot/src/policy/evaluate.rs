//! The one answer to "may this connection be delivered?", and to "may this request be answered?".
//!
//! A connection is asked about before its requests are known. What depends on them has no answer yet
//! ([`Cause::AtRequests`]): whoever cannot look at requests must not let the connection pass, and asks again
//! for bytes that are no requests.

use std::{
    cell::OnceCell,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use undermesh_model::{MtlsMode, PolicyAction, SpiffeId, TextMatch, Values};

use super::{
    Cause, CompiledLimit, CompiledPolicy, CompiledRule, Decision, Finding, FindingKind, Match,
    Statement,
    request::{Reading, RequestAttributes},
};

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

/// Decides about a connection whose bytes nobody has seen yet. DENY comes first, then ALLOW where there is
/// any; else it may pass.
pub fn evaluate<'a>(
    policy: &'a CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
) -> Decision<'a> {
    answer(policy, connection, Sight::Connection)
}

/// Decides about a connection that carries no requests. What is said about requests never allows it, and
/// does not keep from refusing it, as at layer 4 in Istio.
pub fn evaluate_opaque<'a>(
    policy: &'a CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
) -> Decision<'a> {
    answer(policy, connection, Sight::Opaque)
}

/// Decides about one request, but for what CUSTOM policies want to be [asked](asks).
pub fn evaluate_request<'a>(
    policy: &'a CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
    request: &RequestAttributes<'_>,
) -> Decision<'a> {
    answer(policy, connection, Sight::Request(request))
}

/// The first CUSTOM policy of a provider that a request matches, and what of it: the provider has to agree before
/// anything else is looked at.
pub fn asks<'a>(
    policy: &'a CompiledPolicy,
    provider: Option<&str>,
    connection: &ConnectionAttributes<'_>,
    request: &RequestAttributes<'_>,
) -> Option<(&'a Statement, String)> {
    let subject =
        Subject { connection, sight: Sight::Request(request), principal: OnceCell::new() };
    let custom = policy.custom.iter().map(AsRef::as_ref);
    let mut own = custom.filter(|one: &&Statement| one.provider.as_deref() == provider);
    own.find_map(|one| Some((one, subject.matched(one, subject.matching(one)?))))
}

/// The limits that a request counts in.
pub fn limits_of_request<'p, 'q>(
    policy: &'p CompiledPolicy,
    connection: &'q ConnectionAttributes<'q>,
    request: &'q RequestAttributes<'q>,
) -> impl Iterator<Item = &'p CompiledLimit> {
    let subject =
        Subject { connection, sight: Sight::Request(request), principal: OnceCell::new() };
    let limits = policy.limits.iter().map(AsRef::as_ref);
    limits.filter(move |limit| subject.limited(limit) == Matches::Yes)
}

/// The limits that a connection counts in, whatever it carries.
pub fn limits_of_connection<'p, 'q>(
    policy: &'p CompiledPolicy,
    connection: &'q ConnectionAttributes<'q>,
) -> impl Iterator<Item = &'p CompiledLimit> {
    let subject = Subject { connection, sight: Sight::Connection, principal: OnceCell::new() };
    let limits = policy.limits.iter().map(AsRef::as_ref);
    let limits = limits.filter(|limit| limit.limits.connections.is_some());
    limits.filter(move |limit| subject.limited(limit) == Matches::Yes)
}

fn answer<'a>(
    policy: &'a CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
    sight: Sight<'_>,
) -> Decision<'a> {
    let subject = Subject { connection, sight, principal: OnceCell::new() };
    let (cause, statement, rule) = decide(policy, &subject);
    let allowed = matches!(cause, Cause::Unrestricted | Cause::Allowed);
    let because = match (cause, statement, rule) {
        (Cause::NotAllowed, Some(statement), _) => subject.unmet(statement),
        (Cause::Denied | Cause::NotAsked, Some(statement), Some(rule)) => {
            Some(subject.matched(statement, rule))
        }
        _ => None,
    };
    let findings = match cause {
        // They are found when the requests are.
        Cause::AtRequests => Vec::new(),
        cause => find(policy, &subject, cause),
    };
    let policy = statement.map(|statement| &statement.origin);
    Decision { allowed, cause, policy, rule, because, findings }
}

/// The cause alone of what [`evaluate`] says.
pub(super) fn cause(policy: &CompiledPolicy, connection: &ConnectionAttributes<'_>) -> Cause {
    let sight = Sight::Connection;
    decide(policy, &Subject { connection, sight, principal: OnceCell::new() }).0
}

fn decide<'a>(
    policy: &'a CompiledPolicy,
    subject: &Subject<'_>,
) -> (Cause, Option<&'a Statement>, Option<usize>) {
    let connection = subject.connection;
    let mode = policy.modes.of(connection.destination.port());
    if connection.source.is_none() && mode == MtlsMode::Strict {
        return (Cause::StrictPlaintext, None, None);
    }
    if matches!(subject.sight, Sight::Opaque)
        && let Some((statement, rule)) = subject.first(&policy.custom)
    {
        return (Cause::NotAsked, Some(statement), Some(rule));
    }
    if let Some((statement, rule)) = subject.first(&policy.deny) {
        return (Cause::Denied, Some(statement), Some(rule));
    }
    let allow = || policy.allow.iter().filter(|statement| !statement.dry_run);
    let settled = match (allow().next(), subject.first(&policy.allow)) {
        (None, _) => (Cause::Unrestricted, None, None),
        (_, Some((statement, rule))) => (Cause::Allowed, Some(statement), Some(rule)),
        (Some(first), None) if !allow().any(|one| subject.may_match(one)) => {
            return (Cause::NotAllowed, Some(first), None);
        }
        (Some(_), None) => (Cause::AtRequests, None, None),
    };
    if subject.waits_for_requests(policy) { (Cause::AtRequests, None, None) } else { settled }
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

/// What every policy about a workload has to say of a connection, in the order in which they are asked, with dry runs:
/// the decision's winner and losers, for whoever wants to know why it is what it is.
pub fn review<'a>(
    policy: &'a CompiledPolicy,
    connection: &ConnectionAttributes<'_>,
    sight: Sight<'_>,
) -> Vec<Opinion<'a>> {
    let subject = Subject { connection, sight, principal: OnceCell::new() };
    let opinion = |statement: &'a Arc<Statement>| {
        let rule = subject.matching(statement);
        let matches = match rule {
            Some(_) => Matches::Yes,
            None if subject.may_match(statement) => Matches::Maybe,
            None => Matches::No,
        };
        let because = match rule {
            Some(rule) => Some(subject.matched(statement, rule)),
            None => subject.unmet(statement),
        };
        Opinion { statement, matches, rule, because }
    };
    let lists = [&policy.custom, &policy.deny, &policy.allow, &policy.audit];
    lists.into_iter().flatten().map(opinion).collect()
}

/// What one policy has to say of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion<'a> {
    /// The policy.
    pub statement: &'a Statement,
    /// Whether a rule of it matches.
    pub matches: Matches,
    /// Which one.
    pub rule: Option<usize>,
    /// What of it has matched, or what keeps the closest rule from it; nothing where there are no rules.
    pub because: Option<String>,
}

/// What can be seen of what a connection carries.
#[derive(Clone, Copy, Debug)]
pub enum Sight<'a> {
    /// Nothing yet.
    Connection,
    /// No requests.
    Opaque,
    /// This request.
    Request(&'a RequestAttributes<'a>),
}

/// Whether something matches, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matches {
    /// It does not.
    No,
    /// It depends on the requests.
    Maybe,
    /// It does.
    Yes,
}

impl From<bool> for Matches {
    fn from(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }
}

/// A connection, what is seen of it, and its principal once somebody has asked for it.
pub(super) struct Subject<'a> {
    connection: &'a ConnectionAttributes<'a>,
    sight: Sight<'a>,
    principal: OnceCell<String>,
}

impl Subject<'_> {
    /// The first statement that is in force and matches, and which of its rules.
    fn first<'s>(&self, statements: &'s [Arc<Statement>]) -> Option<(&'s Statement, usize)> {
        let mut enforced = statements.iter().filter(|statement| !statement.dry_run);
        enforced.find_map(|one| Some((&**one, self.matching(one)?)))
    }

    /// The first rule that matches for certain.
    fn matching(&self, statement: &Statement) -> Option<usize> {
        let mut rules = statement.rules.iter();
        let rule = rules.find(|rule| self.rule(rule, statement.action) == Matches::Yes);
        rule.map(|rule| rule.index)
    }

    fn may_match(&self, statement: &Statement) -> bool {
        let mut rules = statement.rules.iter();
        rules.any(|rule| self.rule(rule, statement.action) != Matches::No)
    }

    /// Whether anything that could refuse, or has something to report, depends on requests.
    fn waits_for_requests(&self, policy: &CompiledPolicy) -> bool {
        if !matches!(self.sight, Sight::Connection) {
            return false;
        }
        let unsettled = |statement: &Arc<Statement>| {
            self.matching(statement).is_none() && self.may_match(statement)
        };
        let dry_allow = policy.allow.iter().filter(|one| one.dry_run);
        // A token that is not valid is refused, whatever the rules say.
        !policy.tokens.is_empty()
            || policy.limits.iter().any(|limit| self.limited(limit) != Matches::No)
            || policy.custom.iter().any(|one| self.may_match(one))
            || policy.deny.iter().chain(&policy.audit).chain(dry_allow).any(unsettled)
    }

    /// Whether a limit is about it: what cannot be told does not lift it.
    fn limited(&self, limit: &CompiledLimit) -> Matches {
        self.rule(&limit.rule, PolicyAction::Deny)
    }

    fn rule(&self, rule: &CompiledRule, action: PolicyAction) -> Matches {
        let allows = action == PolicyAction::Allow;
        let cannot_be_told = rule.unknown || rule.requests && matches!(self.sight, Sight::Opaque);
        if allows && cannot_be_told {
            return Matches::No;
        }
        let clause = |clause: &Vec<Match>| {
            let each = clause.iter().map(|one| self.matches(one, allows));
            each.max().unwrap_or(Matches::No)
        };
        rule.clauses.iter().map(clause).min().unwrap_or(Matches::Yes)
    }

    pub(super) fn matches(&self, one: &Match, allows: bool) -> Matches {
        if !self.is(one) {
            return Matches::No;
        }
        match self.sight {
            _ if one.request.is_empty() => Matches::Yes,
            Sight::Connection => Matches::Maybe,
            // It refuses, reports or asks: what cannot be told does not keep it from doing so.
            Sight::Opaque => Matches::Yes,
            Sight::Request(request) => {
                let reading = if allows { Reading::All } else { Reading::Any };
                one.request.is(request, reading).into()
            }
        }
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
