//! Rules in one shape, whichever field said them.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use undermesh_model::{
    AuthorizationPolicy, Condition, JwtRule, MtlsMode, Operation, PolicyAction, ResourceRef, Rule,
    ServiceAccountMatch, Source, TextMatch, Values,
};

use super::{CompiledLimit, MtlsModes, because, request::RequestMatch};

/// Everything that decides who may reach one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompiledPolicy {
    /// Which ports take plaintext.
    pub modes: MtlsModes,
    /// How tokens of requests are verified.
    pub tokens: Vec<Arc<JwtRule>>,
    /// Policies with action CUSTOM.
    pub custom: Vec<Arc<Statement>>,
    /// Policies with action DENY.
    pub deny: Vec<Arc<Statement>>,
    /// Policies with action ALLOW.
    pub allow: Vec<Arc<Statement>>,
    /// Policies with action AUDIT.
    pub audit: Vec<Arc<Statement>>,
    /// How much is served.
    pub limits: Vec<Arc<CompiledLimit>>,
}

/// One AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    /// The object.
    pub origin: ResourceRef,
    /// What a match means.
    pub action: PolicyAction,
    /// Whom CUSTOM asks.
    pub provider: Option<String>,
    /// It is reported and not enforced.
    pub dry_run: bool,
    /// It matches where one of these does.
    pub rules: Vec<CompiledRule>,
}

/// One rule: every clause has to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CompiledRule {
    /// Its place in `rules` of the object, from 0.
    pub index: usize,
    /// It has fields or keys that nobody knows.
    pub unknown: bool,
    /// It asks for something that only a request can have.
    pub requests: bool,
    /// `from`, `to` and each condition; one of the matches of a clause has to match.
    pub clauses: Vec<Vec<Match>>,
    /// What users call each of them.
    pub names: Vec<String>,
}

/// What has to be true of a connection and its request; empty fields are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// Identity as `cluster.local/ns/shop/sa/cart`.
    pub principals: Values<TextMatch>,
    /// Namespace of the identity.
    pub namespaces: Values<TextMatch>,
    /// Trust domain of the identity.
    pub trust_domains: Values<TextMatch>,
    /// Service account of the identity.
    pub service_accounts: Values<ServiceAccountMatch>,
    /// Address of the client.
    pub sources: Values<IpNet>,
    /// Address of the pod.
    pub destinations: Values<IpNet>,
    /// Port of the pod.
    pub ports: Values<u16>,
    /// What has to be true of a request.
    pub request: RequestMatch,
}

impl CompiledPolicy {
    /// Whether anything but the default mode of mutual TLS can refuse a connection.
    pub fn is_enforced(&self) -> bool {
        !self.modes.ports.is_empty()
            || self.enforced().next().is_some()
            || !self.limits.is_empty()
            || self.looks_at_requests()
    }

    /// Whether something is asked of requests, if only to report it.
    pub fn looks_at_requests(&self) -> bool {
        let mut all = self.all().flat_map(|list| list.iter());
        !self.tokens.is_empty()
            || !self.custom.is_empty()
            || self.limits.iter().any(|limit| limit.looks_at_requests())
            || all.any(|statement| statement.looks_at_requests())
    }

    /// Whether there is nothing to evaluate at all: anybody may come, in plaintext too.
    pub fn is_trivial(&self) -> bool {
        self.modes.default != MtlsMode::Strict
            && self.modes.ports.is_empty()
            && self.tokens.is_empty()
            && self.limits.is_empty()
            && self.all().all(Vec::is_empty)
    }

    /// Whether the answer depends on the client's address.
    pub fn looks_at_sources(&self) -> bool {
        self.matches().any(|one| !one.sources.is_empty())
    }

    /// Whether the answer depends on which address of the pod was dialled.
    pub fn looks_at_destinations(&self) -> bool {
        self.matches().any(|one| !one.destinations.is_empty())
    }

    /// Every port that the answer may depend on: to all others, it is the same.
    pub fn ports(&self) -> BTreeSet<u16> {
        let listed =
            self.matches().flat_map(|one| one.ports.any_of.iter().chain(&one.ports.none_of));
        listed.chain(self.modes.ports.keys()).copied().collect()
    }

    /// All of its policies.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.all().flatten().map(Arc::as_ref)
    }

    /// Statements that can refuse a connection.
    fn enforced(&self) -> impl Iterator<Item = &Statement> {
        let statements = self.custom.iter().chain(&self.deny).chain(&self.allow);
        statements.map(Arc::as_ref).filter(|statement| !statement.dry_run)
    }

    fn all(&self) -> impl Iterator<Item = &Vec<Arc<Statement>>> {
        [&self.custom, &self.deny, &self.allow, &self.audit].into_iter()
    }

    fn matches(&self) -> impl Iterator<Item = &Match> {
        let reported = self.all().flatten().map(Arc::as_ref);
        let reported = reported.filter(|one| one.looks_at_requests());
        let rules = self.enforced().chain(reported).flat_map(|statement| &statement.rules);
        let limits = self.limits.iter().map(|limit| &limit.rule);
        rules.chain(limits).flat_map(|rule| &rule.clauses).flatten()
    }
}

impl Statement {
    /// Compiles one policy.
    pub fn new(policy: &AuthorizationPolicy) -> Self {
        let rules = policy.rules.iter().enumerate();
        Self {
            origin: policy.origin.clone(),
            action: policy.action,
            provider: policy.provider.clone(),
            dry_run: policy.dry_run,
            rules: rules.map(|(index, rule)| CompiledRule::new(index, rule)).collect(),
        }
    }

    fn looks_at_requests(&self) -> bool {
        self.rules.iter().any(|rule| rule.requests)
    }

    /// Whether a rule asks for something of a request's token.
    pub fn looks_at_tokens(&self) -> bool {
        let matches = self.rules.iter().flat_map(|rule| &rule.clauses).flatten();
        let mut requests = matches.map(|one| &one.request);
        requests.any(|one| !one.principals.is_empty() || !one.claims.is_empty())
    }
}

impl CompiledRule {
    pub(super) fn new(index: usize, rule: &Rule) -> Self {
        let lists = [
            ("from", rule.from.iter().map(Match::from).collect::<Vec<_>>()),
            ("to", rule.to.iter().map(Match::from).collect()),
        ];
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let (mut names, mut clauses): (Vec<String>, Vec<Vec<Match>>) =
            lists.map(|(name, list)| (name.to_owned(), list)).unzip();
        for (place, condition) in rule.when.iter().enumerate() {
            names.push(because::condition(place, condition));
            clauses.push(vec![Match::from(condition)]);
        }
        let unknown = !rule.unknown.is_empty();
        Self { index, unknown, requests: rule.looks_at_requests(), clauses, names }
    }
}

impl From<&Source> for Match {
    fn from(source: &Source) -> Self {
        Self {
            principals: source.principals.clone(),
            namespaces: source.namespaces.clone(),
            trust_domains: source.trust_domains.clone(),
            service_accounts: source.service_accounts.clone(),
            sources: source.addresses.clone(),
            request: RequestMatch::from(source),
            ..Self::default()
        }
    }
}

impl From<&Operation> for Match {
    fn from(operation: &Operation) -> Self {
        let request = RequestMatch::from(operation);
        Self { ports: operation.ports.clone(), request, ..Self::default() }
    }
}

impl From<&Condition> for Match {
    fn from(condition: &Condition) -> Self {
        let mut one = Self::default();
        match condition.clone() {
            Condition::SourceAddress(values) => one.sources = values,
            Condition::SourceNamespace(values) => one.namespaces = values,
            Condition::SourcePrincipal(values) => one.principals = values,
            Condition::SourceServiceAccount(values) => one.service_accounts = values,
            Condition::SourceTrustDomain(values) => one.trust_domains = values,
            Condition::DestinationAddress(values) => one.destinations = values,
            Condition::DestinationPort(values) => one.ports = values,
            Condition::RemoteAddress(values) => one.request.remote = values,
            Condition::RequestHeader(name, values) => one.request.headers.push((name, values)),
            Condition::RequestPrincipal(values) => one.request.principals = values,
            Condition::RequestClaim(path, values) => one.request.claims.push((path, values)),
        }
        one
    }
}
