//! A second evaluator, written from Istio's specification over the objects as they were read. It
//! shares nothing with the first but the nouns.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use undermesh_model::{
    AuthorizationPolicy, Condition, MtlsMode, Operation, PeerAuthentication, PolicyAction, Rule,
    ServiceAccountMatch, Source, TextMatch, Values, Workload,
};

use super::ROOT;
use crate::ConnectionAttributes;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Pass,
    Refuse,
    TooPlain,
}

pub(super) fn answer(
    authentications: &[PeerAuthentication],
    authorizations: &[AuthorizationPolicy],
    workload: &Workload,
    connection: &ConnectionAttributes<'_>,
) -> Answer {
    let port = connection.destination.port();
    if connection.source.is_none() && mode(authentications, workload, port) == MtlsMode::Strict {
        return Answer::TooPlain;
    }
    let mut allows = 0;
    let mut allowed = false;
    for policy in authorizations {
        if policy.dry_run || !is_about(policy, workload) {
            continue;
        }
        let matches = policy.rules.iter().any(|rule| rule_matches(policy, rule, connection));
        match policy.action {
            PolicyAction::Deny if matches => return Answer::Refuse,
            PolicyAction::Allow => {
                allows += 1;
                allowed = allowed || matches;
            }
            _ => {}
        }
    }
    if allows == 0 || allowed { Answer::Pass } else { Answer::Refuse }
}

fn labels_match(selector: &BTreeMap<String, String>, workload: &Workload) -> bool {
    selector.iter().all(|(k, v)| workload.labels.get(k).is_some_and(|value| value == v))
}

fn is_about(policy: &AuthorizationPolicy, workload: &Workload) -> bool {
    let namespace = &policy.name.namespace;
    (namespace == ROOT || *namespace == workload.name.namespace)
        && labels_match(&policy.selector, workload)
}

fn mode(all: &[PeerAuthentication], workload: &Workload, port: u16) -> MtlsMode {
    let oldest = |is: &dyn Fn(&&PeerAuthentication) -> bool| {
        all.iter().filter(is).min_by_key(|p| (p.created, p.name.clone()))
    };
    let own = &workload.name.namespace;
    let mut mode = MtlsMode::Permissive;
    let mesh = oldest(&|p| p.selector.is_empty() && p.name.namespace == ROOT);
    let namespace = oldest(&|p| p.selector.is_empty() && p.name.namespace == *own && own != ROOT);
    let this = oldest(&|p| {
        !p.selector.is_empty()
            && p.name.namespace == *own
            && own != ROOT
            && labels_match(&p.selector, workload)
    });
    for one in [mesh, namespace, this].into_iter().flatten() {
        mode = one.mode.unwrap_or(mode);
    }
    this.and_then(|one| *one.ports.get(&port)?).unwrap_or(mode)
}

fn rule_matches(
    policy: &AuthorizationPolicy,
    rule: &Rule,
    connection: &ConnectionAttributes<'_>,
) -> bool {
    let operations = rule.to.iter().any(|to| !to.methods.is_empty());
    if (!rule.unknown.is_empty() || operations) && policy.action == PolicyAction::Allow {
        return false;
    }
    let from = rule.from.is_empty() || rule.from.iter().any(|it| source(it, connection));
    let to = rule.to.is_empty() || rule.to.iter().any(|it| operation(it, connection));
    from && to && rule.when.iter().all(|it| condition(it, connection))
}

fn source(it: &Source, connection: &ConnectionAttributes<'_>) -> bool {
    principal(&it.principals, connection)
        && namespace(&it.namespaces, connection)
        && trust_domain(&it.trust_domains, connection)
        && account(&it.service_accounts, connection)
        && address(&it.addresses, connection.source_address)
}

fn operation(it: &Operation, connection: &ConnectionAttributes<'_>) -> bool {
    port(&it.ports, connection)
}

fn condition(it: &Condition, connection: &ConnectionAttributes<'_>) -> bool {
    match it {
        Condition::SourceAddress(values) => address(values, connection.source_address),
        Condition::SourceNamespace(values) => namespace(values, connection),
        Condition::SourcePrincipal(values) => principal(values, connection),
        Condition::SourceServiceAccount(values) => account(values, connection),
        Condition::SourceTrustDomain(values) => trust_domain(values, connection),
        Condition::DestinationAddress(values) => address(values, connection.destination.ip()),
        Condition::DestinationPort(values) => port(values, connection),
        other => panic!("{other:?} is about requests"),
    }
}

/// Positive lists want one match, negative ones none, and empty ones nothing.
fn lists(positive: Vec<bool>, negative: Vec<bool>) -> bool {
    (positive.is_empty() || positive.contains(&true)) && !negative.contains(&true)
}

fn texts(values: &Values<TextMatch>, text: Option<String>) -> bool {
    let one = |pattern: &TextMatch| match (&text, pattern) {
        (None, _) => false,
        (Some(text), TextMatch::Exact(exact)) => text == exact,
        (Some(text), TextMatch::Prefix(prefix)) => text.find(prefix.as_str()) == Some(0),
        (Some(text), TextMatch::Suffix(suffix)) => {
            text.len() >= suffix.len() && text[text.len() - suffix.len()..] == **suffix
        }
        (Some(text), TextMatch::Present) => !text.is_empty(),
    };
    lists(values.any_of.iter().map(one).collect(), values.none_of.iter().map(one).collect())
}

fn principal(values: &Values<TextMatch>, connection: &ConnectionAttributes<'_>) -> bool {
    let text = connection.source.map(|id| id.to_string().replacen("spiffe://", "", 1));
    texts(values, text)
}

fn namespace(values: &Values<TextMatch>, connection: &ConnectionAttributes<'_>) -> bool {
    texts(values, connection.source.map(|id| id.namespace.clone()))
}

fn trust_domain(values: &Values<TextMatch>, connection: &ConnectionAttributes<'_>) -> bool {
    texts(values, connection.source.map(|id| id.trust_domain.to_string()))
}

fn account(values: &Values<ServiceAccountMatch>, connection: &ConnectionAttributes<'_>) -> bool {
    let own = connection.source.map(|id| format!("{}/{}", id.namespace, id.service_account));
    let one = |it: &ServiceAccountMatch| own == Some(format!("{}/{}", it.namespace, it.name));
    lists(values.any_of.iter().map(one).collect(), values.none_of.iter().map(one).collect())
}

fn address(values: &Values<IpNet>, address: IpAddr) -> bool {
    let one = |it: &IpNet| it.contains(&address);
    lists(values.any_of.iter().map(one).collect(), values.none_of.iter().map(one).collect())
}

fn port(values: &Values<u16>, connection: &ConnectionAttributes<'_>) -> bool {
    let one = |it: &u16| *it == connection.destination.port();
    lists(values.any_of.iter().map(one).collect(), values.none_of.iter().map(one).collect())
}
