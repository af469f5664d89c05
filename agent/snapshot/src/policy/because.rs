//! Which attributes have decided: the reason in words, for whoever is refused and asks why.

use undermesh_model::{Condition, PolicyAction, Values};

use super::{
    CompiledRule, Match, Statement,
    evaluate::{Matches, Subject},
};

impl Subject<'_> {
    /// Everything of a rule that has matched: `rule[1] from[0] principals, to[2] paths`.
    pub(super) fn matched(&self, statement: &Statement, index: usize) -> String {
        let Some(rule) = statement.rules.iter().find(|rule| rule.index == index) else {
            return format!("rule[{index}]");
        };
        let allows = statement.action == PolicyAction::Allow;
        let clauses = rule.clauses.iter().zip(&rule.names).filter_map(|(clause, name)| {
            let met = |one: &Match| self.matches(one, allows) == Matches::Yes;
            let (place, one) = clause.iter().enumerate().find(|(_, one)| met(one))?;
            Some(described(name, place, one))
        });
        with(rule, clauses.collect::<Vec<_>>().join(", "))
    }

    /// What keeps the rule that comes closest from matching: `rule[0] to[0] methods`.
    pub(super) fn unmet(&self, statement: &Statement) -> Option<String> {
        let each = statement.rules.iter().map(|rule| self.first_unmet(rule));
        // Of those that come equally close, the first.
        let (_, words) = each.rev().max_by_key(|(met, _)| *met)?;
        Some(words)
    }

    /// How many clauses of a rule match, and what keeps the next one from it.
    fn first_unmet(&self, rule: &CompiledRule) -> (usize, String) {
        if rule.unknown {
            return (0, with(rule, "a field that nobody knows".to_owned()));
        }
        let met = |one: &Match| self.matches(one, true) == Matches::Yes;
        let clauses = rule.clauses.iter().zip(&rule.names).enumerate();
        let mut unmet = clauses.filter(|(_, (clause, _))| !clause.iter().any(met));
        let Some((place, (clause, name))) = unmet.next() else {
            // What asks for requests matches nothing else.
            return (0, with(rule, "requests".to_owned()));
        };
        let words = match clause.as_slice() {
            [one] => {
                let fields = fields(one).into_iter();
                let unmet = fields.filter(|(_, field)| !met(field)).map(|(name, _)| name);
                named(name, 0, &unmet.collect::<Vec<_>>())
            }
            _ => name.clone(),
        };
        (place, with(rule, words))
    }
}

fn with(rule: &CompiledRule, words: String) -> String {
    let index = rule.index;
    if words.is_empty() { format!("rule[{index}]") } else { format!("rule[{index}] {words}") }
}

fn described(clause: &str, place: usize, one: &Match) -> String {
    let names: Vec<String> = fields(one).into_iter().map(|(name, _)| name).collect();
    named(clause, place, &names)
}

/// A condition has its key for a name; a source or an operation is one of several.
fn named(clause: &str, place: usize, fields: &[String]) -> String {
    if clause.starts_with("when") {
        return clause.to_owned();
    }
    let fields = fields.join("+");
    format!("{clause}[{place}] {fields}").trim_end().to_owned()
}

/// The name of a clause that is a condition: its place and its key.
pub(super) fn condition(place: usize, condition: &Condition) -> String {
    let key = match condition {
        Condition::SourceAddress(_) => "source.ip",
        Condition::SourceNamespace(_) => "source.namespace",
        Condition::SourcePrincipal(_) => "source.principal",
        Condition::SourceServiceAccount(_) => "source.serviceAccount",
        Condition::SourceTrustDomain(_) => "source.trustDomain",
        Condition::DestinationAddress(_) => "destination.ip",
        Condition::DestinationPort(_) => "destination.port",
        Condition::RemoteAddress(_) => "remote.ip",
        Condition::RequestPrincipal(_) => "request.auth.principal",
        Condition::RequestHeader(name, _) => {
            return format!("when[{place}] request.headers[{name}]");
        }
        Condition::RequestClaim(path, _) => {
            return format!("when[{place}] request.auth.claims[{}]", path.join("]["));
        }
    };
    format!("when[{place}] {key}")
}

/// The fields of a match that are set, one by one, as users write them.
fn fields(one: &Match) -> Vec<(String, Match)> {
    let mut fields = Vec::new();
    let mut add = |name: Option<String>, set: &dyn Fn(&mut Match)| {
        if let Some(name) = name {
            let mut alone = Match::default();
            set(&mut alone);
            fields.push((name, alone));
        }
    };
    add(name("principals", &one.principals), &|m| m.principals.clone_from(&one.principals));
    add(name("namespaces", &one.namespaces), &|m| m.namespaces.clone_from(&one.namespaces));
    add(name("trustDomains", &one.trust_domains), &|m| {
        m.trust_domains.clone_from(&one.trust_domains);
    });
    add(name("serviceAccounts", &one.service_accounts), &|m| {
        m.service_accounts.clone_from(&one.service_accounts);
    });
    add(name("ipBlocks", &one.sources), &|m| m.sources.clone_from(&one.sources));
    add(name("ports", &one.ports), &|m| m.ports.clone_from(&one.ports));
    let request = &one.request;
    add(name("requestPrincipals", &request.principals), &|m| {
        m.request.principals.clone_from(&request.principals);
    });
    add(name("remoteIpBlocks", &request.remote), &|m| m.request.remote.clone_from(&request.remote));
    add(name("hosts", &request.hosts), &|m| m.request.hosts.clone_from(&request.hosts));
    add(name("methods", &request.methods), &|m| m.request.methods.clone_from(&request.methods));
    add(name("paths", &request.paths), &|m| m.request.paths.clone_from(&request.paths));
    fields
}

/// `ports`, `notPorts`, or both where both are set.
fn name<T>(field: &str, values: &Values<T>) -> Option<String> {
    let (first, rest) = field.split_at(1);
    let negated = format!("not{}{rest}", first.to_ascii_uppercase());
    match (values.any_of.is_empty(), values.none_of.is_empty()) {
        (true, true) => None,
        (false, true) => Some(field.to_owned()),
        (true, false) => Some(negated),
        (false, false) => Some(format!("{field}+{negated}")),
    }
}
