//! Rules in one shape, whichever field said them.

use std::{collections::BTreeSet, sync::Arc};

use ipnet::IpNet;
use undermesh_model::{
    AuthorizationPolicy, Condition, MtlsMode, Operation, PolicyAction, ResourceRef, Rule,
    ServiceAccountMatch, Source, TextMatch, Values,
};

use super::MtlsModes;

/// Everything that decides who may reach one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompiledPolicy {
    /// Which ports take plaintext.
    pub modes: MtlsModes,
    /// Policies with action DENY.
    pub deny: Vec<Arc<Statement>>,
    /// Policies with action ALLOW.
    pub allow: Vec<Arc<Statement>>,
    /// Policies with action AUDIT.
    pub audit: Vec<Arc<Statement>>,
}

/// One AuthorizationPolicy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    /// The object.
    pub origin: ResourceRef,
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
    /// `from`, `to` and each condition; one of the matches of a clause has to match.
    pub clauses: Vec<Vec<Match>>,
}

/// What has to be true of a connection; empty fields are.
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
}

impl CompiledPolicy {
    /// Whether anything but the default mode of mutual TLS can refuse a connection.
    pub fn is_enforced(&self) -> bool {
        !self.modes.ports.is_empty() || self.enforced().next().is_some()
    }

    /// Whether there is nothing to evaluate at all: anybody may come, in plaintext too.
    pub fn is_trivial(&self) -> bool {
        self.modes.default != MtlsMode::Strict
            && self.modes.ports.is_empty()
            && [&self.deny, &self.allow, &self.audit].iter().all(|list| list.is_empty())
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

    /// Statements that can refuse a connection.
    fn enforced(&self) -> impl Iterator<Item = &Statement> {
        let statements = self.deny.iter().chain(&self.allow);
        statements.map(Arc::as_ref).filter(|statement| !statement.dry_run)
    }

    fn matches(&self) -> impl Iterator<Item = &Match> {
        let rules = self.enforced().flat_map(|statement| &statement.rules);
        rules.flat_map(|rule| &rule.clauses).flatten()
    }
}

impl Statement {
    /// Compiles one policy. Of what only layer 7 can tell, nobody here can say whether it matches:
    /// a rule that allows never does, one that refuses does as far as the rest of it matches.
    pub fn new(policy: &AuthorizationPolicy) -> Self {
        let usable = |rule: &Rule| policy.action != PolicyAction::Allow || rule.layer7.is_empty();
        let rules = policy.rules.iter().enumerate().filter(|(_, rule)| usable(rule));
        Self {
            origin: policy.origin.clone(),
            dry_run: policy.dry_run,
            rules: rules.map(|(index, rule)| CompiledRule::new(index, rule)).collect(),
        }
    }
}

impl CompiledRule {
    fn new(index: usize, rule: &Rule) -> Self {
        let lists = [
            rule.from.iter().map(Match::from).collect::<Vec<_>>(),
            rule.to.iter().map(Match::from).collect(),
        ];
        let mut clauses: Vec<Vec<Match>> =
            lists.into_iter().filter(|list| !list.is_empty()).collect();
        clauses.extend(rule.when.iter().map(|condition| vec![Match::from(condition)]));
        Self { index, clauses }
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
            ..Self::default()
        }
    }
}

impl From<&Operation> for Match {
    fn from(operation: &Operation) -> Self {
        Self { ports: operation.ports.clone(), ..Self::default() }
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
            Condition::DestinationAddress(values) => one.destinations = values,
            Condition::DestinationPort(values) => one.ports = values,
        }
        one
    }
}
