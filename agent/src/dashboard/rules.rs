//! What the rules of a policy look at, in words. Values of headers and claims may be secrets: of those, names alone.

use std::collections::BTreeSet;

use serde::Serialize;
use undermesh_model::{PathMatch, PrincipalMatch, TextMatch, Values};
use undermesh_snapshot::{CompiledRule, Match};

/// Values of one field that are told.
const MOST: usize = 8;

/// One rule. Field names are API (docs/reference/status.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuleRow {
    /// `rule[0]`, or its name.
    pub(super) name: String,
    /// Ports that it can match; absent where it can match any.
    pub(super) ports: Option<BTreeSet<u16>>,
    /// What has to be true.
    looks_at: Vec<String>,
    /// Of requests, not of connections.
    requests: bool,
    /// It has fields that nobody knows.
    unknown: bool,
}

impl RuleRow {
    pub(super) fn new(rule: &CompiledRule, name: Option<&str>) -> Self {
        let clauses = rule.clauses.iter().zip(&rule.names);
        Self {
            name: name.map_or_else(|| format!("rule[{}]", rule.index), str::to_owned),
            ports: ports(rule),
            looks_at: clauses.flat_map(|(clause, name)| words(clause, name)).collect(),
            requests: rule.requests,
            unknown: rule.unknown,
        }
    }
}

/// Ports that all clauses can match; absent where none of them names any.
fn ports(rule: &CompiledRule) -> Option<BTreeSet<u16>> {
    let of_clause = |clause: &Vec<Match>| {
        let each = clause.iter().map(|one| {
            let listed = one.ports.any_of.iter().filter(|port| !one.ports.none_of.contains(port));
            (!one.ports.any_of.is_empty()).then(|| listed.copied().collect::<BTreeSet<u16>>())
        });
        each.collect::<Option<Vec<_>>>().map(|all| all.into_iter().flatten().collect())
    };
    rule.clauses
        .iter()
        .filter_map(of_clause)
        .reduce(|a: BTreeSet<u16>, b: BTreeSet<u16>| a.intersection(&b).copied().collect())
}

fn words(clause: &[Match], name: &str) -> Vec<String> {
    let place = |at: usize| match clause.len() {
        1 => name.to_owned(),
        _ => format!("{name}[{at}]"),
    };
    let all = clause.iter().enumerate().map(|(at, one)| (place(at), fields(one).join(", ")));
    all.map(|(place, fields)| match fields.as_str() {
        "" => format!("{place}: anything"),
        _ => format!("{place}: {fields}"),
    })
    .collect()
}

fn fields(one: &Match) -> Vec<String> {
    let mut found = Vec::new();
    let Match { request, .. } = one;
    say(&mut found, "principals", &one.principals, text);
    say(&mut found, "namespaces", &one.namespaces, text);
    say(&mut found, "trust domains", &one.trust_domains, text);
    say(&mut found, "service accounts", &one.service_accounts, |it| {
        format!("{}/{}", it.namespace, it.name)
    });
    say(&mut found, "addresses", &one.sources, ToString::to_string);
    say(&mut found, "addresses of the pod", &one.destinations, ToString::to_string);
    say(&mut found, "ports", &one.ports, ToString::to_string);
    say(&mut found, "original addresses", &request.remote, ToString::to_string);
    say(&mut found, "hosts", &request.hosts, text);
    say(&mut found, "methods", &request.methods, text);
    say(&mut found, "paths", &request.paths, |it| match it {
        PathMatch::Text(it) => text(it),
        PathMatch::Template(_) => "a template".to_owned(),
    });
    let issuers: &Values<PrincipalMatch> = &request.principals;
    if !issuers.is_empty() {
        found.push("who the token is from".to_owned());
    }
    found.extend(request.headers.iter().map(|(name, _)| format!("header {name}")));
    found.extend(request.claims.iter().map(|(path, _)| format!("claim {}", path.join("."))));
    found
}

fn say<T>(found: &mut Vec<String>, name: &str, values: &Values<T>, show: impl Fn(&T) -> String) {
    for (list, not) in [(&values.any_of, ""), (&values.none_of, "not ")] {
        if list.is_empty() {
            continue;
        }
        let mut shown: Vec<String> = list.iter().take(MOST).map(&show).collect();
        if list.len() > MOST {
            shown.push(format!("{} more", list.len() - MOST));
        }
        found.push(format!("{not}{name} {}", shown.join(" ")));
    }
}

fn text(text: &TextMatch) -> String {
    match text {
        TextMatch::Exact(text) => text.clone(),
        TextMatch::Prefix(text) => format!("{text}*"),
        TextMatch::Suffix(text) => format!("*{text}"),
        TextMatch::Present => "*".to_owned(),
    }
}
