//! How rules match, how policies add up, and what stays the same when nothing has changed.

use undermesh_ebpf_common::workload_flags;
use undermesh_model::{
    Condition, Operation, ServiceAccountMatch, Source, SpiffeId, TextMatch, TrustDomain, Values,
    parse_block,
};

use super::*;
use crate::{Cause, ConnectionAttributes, Decision, FindingKind, addr, evaluate};

pub(super) fn any_of<T>(values: Vec<T>) -> Values<T> {
    Values { any_of: values, none_of: vec![] }
}

pub(super) fn none_of<T>(values: Vec<T>) -> Values<T> {
    Values { any_of: vec![], none_of: values }
}

pub(super) fn texts(list: &[&str]) -> Vec<TextMatch> {
    list.iter().map(|text| TextMatch::parse(text)).collect()
}

pub(super) fn from(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

pub(super) fn principals(list: &[&str]) -> Rule {
    from(Source { principals: any_of(texts(list)), ..Source::default() })
}

pub(super) fn to_ports(ports: &[u16]) -> Rule {
    let operation = Operation { ports: any_of(ports.to_vec()), ..Operation::default() };
    Rule { to: vec![operation], ..Rule::default() }
}

pub(super) fn allow(rules: Vec<Rule>) -> AuthorizationPolicy {
    authorization("shop", "allow", "", PolicyAction::Allow, rules)
}

pub(super) fn deny(rules: Vec<Rule>) -> AuthorizationPolicy {
    authorization("shop", "deny", "", PolicyAction::Deny, rules)
}

/// Decides about a connection from `other/web`, or from nobody, to a port of `shop/cart`.
fn decide<R>(
    policies: Vec<AuthorizationPolicy>,
    identified: bool,
    port: u16,
    read: impl FnOnce(Decision<'_>) -> R,
) -> R {
    let compiled = policy(&run(&cluster(vec![], policies)).snapshot, "cart");
    let source = SpiffeId::new(TrustDomain::default(), "other", "web");
    read(evaluate(
        &compiled,
        &ConnectionAttributes {
            source: identified.then_some(&source),
            source_address: "10.2.0.4".parse().unwrap(),
            destination: socket(&format!("10.1.0.2:{port}")),
        },
    ))
}

fn cause(policies: Vec<AuthorizationPolicy>, identified: bool, port: u16) -> Cause {
    decide(policies, identified, port, |decision| decision.cause)
}

#[test]
fn each_field_matches_as_istio_says() {
    let me = "cluster.local/ns/other/sa/web";
    let account = |namespace: &str, name: &str| ServiceAccountMatch {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let block = |text| vec![parse_block(text).unwrap()];
    let source = Source::default;
    let when = |condition| Rule { when: vec![condition], ..Rule::default() };
    // What is written; whether it matches other/web; whether it matches nobody.
    let cases = [
        (Rule::default(), true, true),
        (principals(&[me]), true, false),
        (principals(&["*"]), true, false),
        (principals(&["cluster.local/ns/shop/*", "*/sa/web"]), true, false),
        (principals(&["cluster.local/ns/shop/*"]), false, false),
        (from(Source { principals: none_of(texts(&[me])), ..source() }), false, true),
        (from(Source { principals: none_of(texts(&["*"])), ..source() }), false, true),
        (from(Source { namespaces: any_of(texts(&["other"])), ..source() }), true, false),
        (from(Source { namespaces: none_of(texts(&["shop"])), ..source() }), true, true),
        (from(Source { trust_domains: any_of(texts(&["cluster*"])), ..source() }), true, false),
        (
            from(Source { service_accounts: any_of(vec![account("other", "web")]), ..source() }),
            true,
            false,
        ),
        (
            from(Source { service_accounts: any_of(vec![account("shop", "web")]), ..source() }),
            false,
            false,
        ),
        (
            from(Source { service_accounts: none_of(vec![account("other", "web")]), ..source() }),
            false,
            true,
        ),
        (from(Source { addresses: any_of(block("10.2.0.0/16")), ..source() }), true, true),
        (from(Source { addresses: none_of(block("10.2.0.4")), ..source() }), false, false),
        (from(Source { addresses: any_of(block("fd00::/8")), ..source() }), false, false),
        (to_ports(&[80, 8080]), true, true),
        (to_ports(&[81]), false, false),
        (
            Rule {
                to: vec![Operation { ports: none_of(vec![80]), ..Operation::default() }],
                ..Rule::default()
            },
            false,
            false,
        ),
        (Rule { from: principals(&[me]).from, ..to_ports(&[80]) }, true, false),
        (Rule { from: principals(&[me]).from, ..to_ports(&[81]) }, false, false),
        (when(Condition::SourceNamespace(any_of(texts(&["other"])))), true, false),
        (when(Condition::SourcePrincipal(none_of(texts(&["*"])))), false, true),
        (when(Condition::SourceServiceAccount(any_of(vec![account("other", "web")]))), true, false),
        (when(Condition::SourceAddress(any_of(block("10.0.0.0/8")))), true, true),
        (when(Condition::DestinationAddress(any_of(block("10.1.0.2")))), true, true),
        (when(Condition::DestinationAddress(none_of(block("10.1.0.2")))), false, false),
        (when(Condition::DestinationPort(any_of(vec![80]))), true, true),
        (
            Rule {
                when: vec![
                    Condition::DestinationPort(any_of(vec![80])),
                    Condition::DestinationPort(any_of(vec![81])),
                ],
                ..Rule::default()
            },
            false,
            false,
        ),
    ];
    for (rule, identified, unknown) in cases {
        for (expected, is_identified) in [(identified, true), (unknown, false)] {
            let found = cause(vec![deny(vec![rule.clone()])], is_identified, 80);
            assert_eq!(found == Cause::Denied, expected, "{is_identified}: {rule:#?}");
        }
    }
}

#[test]
fn deny_beats_allow_and_allow_beats_nothing() {
    let me = || principals(&["cluster.local/ns/other/sa/web"]);
    let nobody = || principals(&["nobody"]);
    for (policies, expected) in [
        (vec![], Cause::Unrestricted),
        (vec![allow(vec![])], Cause::NotAllowed),
        (vec![deny(vec![])], Cause::Unrestricted),
        (vec![allow(vec![Rule::default()])], Cause::Allowed),
        (vec![deny(vec![Rule::default()])], Cause::Denied),
        (vec![allow(vec![nobody(), me()])], Cause::Allowed),
        (vec![allow(vec![nobody()])], Cause::NotAllowed),
        (vec![allow(vec![me()]), deny(vec![me()])], Cause::Denied),
        (vec![allow(vec![me()]), deny(vec![nobody()])], Cause::Allowed),
        (vec![deny(vec![nobody()])], Cause::Unrestricted),
    ] {
        let words = format!("{policies:#?}");
        assert_eq!(cause(policies, true, 80), expected, "{words}");
    }
}

#[test]
fn policies_reach_their_namespace_their_labels_and_from_the_root_everything() {
    let all = || vec![Rule::default()];
    for (namespace, selector, reaches) in [
        ("shop", "", true),
        ("shop", "app=cart", true),
        ("shop", "app=web", false),
        ("other", "", false),
        ("other", "app=cart", false),
        (ROOT, "", true),
        (ROOT, "app=cart", true),
        (ROOT, "app=web", false),
    ] {
        let policy = authorization(namespace, "p", selector, PolicyAction::Deny, all());
        let found = cause(vec![policy], true, 80);
        assert_eq!(found == Cause::Denied, reaches, "{namespace} {selector}");
    }
}

#[test]
fn what_nobody_knows_never_allows_and_does_not_keep_from_denying() {
    let odd = |rule: Rule| Rule { unknown: vec!["mood".to_owned()], ..rule };
    let any = || odd(Rule { to: vec![Operation::default()], ..Rule::default() });
    assert_eq!(cause(vec![allow(vec![any()])], true, 80), Cause::NotAllowed);
    assert_eq!(cause(vec![allow(vec![any(), Rule::default()])], true, 80), Cause::Allowed);
    assert_eq!(cause(vec![deny(vec![any()])], true, 80), Cause::Denied);
    assert_eq!(cause(vec![deny(vec![odd(to_ports(&[80]))])], true, 80), Cause::Denied);
    assert_eq!(cause(vec![deny(vec![odd(to_ports(&[80]))])], true, 81), Cause::Unrestricted);
}

#[test]
fn a_decision_names_the_policy_and_the_rule() {
    let me = principals(&["cluster.local/ns/other/sa/web"]);
    let nobody = principals(&["nobody"]);
    decide(vec![deny(vec![nobody.clone(), me])], true, 80, |decision| {
        assert_eq!(decision.rule, Some(1));
        assert_eq!(
            decision.to_string(),
            "denied by AuthorizationPolicy shop/deny, rule[1] from[0] principals"
        );
    });
    decide(vec![allow(vec![nobody])], true, 80, |decision| {
        assert_eq!(
            decision.to_string(),
            "not allowed by AuthorizationPolicy shop/allow, rule[0] from[0] principals"
        );
    });
}

#[test]
fn a_refusal_names_what_has_matched_or_what_comes_closest() {
    let own = principals(&["cluster.local/ns/other/sa/web"]);
    let both = Rule { to: to_ports(&[80]).to, ..own.clone() };
    decide(vec![deny(vec![both.clone()])], true, 80, |decision| {
        let because = decision.because.as_deref();
        assert_eq!(because, Some("rule[0] from[0] principals, to[0] ports"));
    });
    // The second rule comes closer: of its clauses, the first one matches.
    let stranger = principals(&["nobody"]);
    decide(vec![allow(vec![stranger, both])], true, 81, |decision| {
        assert_eq!(decision.because.as_deref(), Some("rule[1] to[0] ports"));
    });
    decide(vec![deny(vec![Rule::default()])], true, 80, |decision| {
        assert_eq!(decision.because.as_deref(), Some("rule[0]"));
    });
    decide(vec![allow(vec![])], true, 80, |decision| assert_eq!(decision.because, None));
    decide(vec![allow(vec![own])], true, 80, |decision| assert_eq!(decision.because, None));
}

#[test]
fn dry_runs_and_audits_are_reported_and_change_nothing() {
    let dry = |policy: AuthorizationPolicy| AuthorizationPolicy { dry_run: true, ..policy };
    let all = || vec![Rule::default()];
    let audit = authorization("shop", "audit", "", PolicyAction::Audit, all());
    for (policies, expected) in [
        (vec![dry(deny(all()))], vec![FindingKind::WouldDeny]),
        (vec![dry(deny(vec![principals(&["nobody"])]))], vec![]),
        (vec![dry(allow(vec![principals(&["nobody"])]))], vec![FindingKind::WouldNotAllow]),
        (vec![dry(allow(all()))], vec![]),
        (vec![audit.clone()], vec![FindingKind::Audit]),
        (vec![audit, dry(deny(all()))], vec![FindingKind::Audit, FindingKind::WouldDeny]),
    ] {
        let tables = run(&cluster(vec![], policies.clone())).snapshot.tables;
        assert!(tables.policy.is_empty(), "a policy without a say is in the kernel's table");
        decide(policies, true, 80, |decision| {
            assert_eq!(decision.cause, Cause::Unrestricted);
            let kinds: Vec<_> = decision.findings.iter().map(|finding| finding.kind).collect();
            assert_eq!(kinds, expected);
        });
    }
}

#[test]
fn ids_stay_as_they_are_until_the_policy_itself_changes() {
    let policy = |ports: &[u16]| {
        authorization("shop", "p", "app=cart", PolicyAction::Deny, vec![to_ports(ports)])
    };
    let entry = |policies: Vec<AuthorizationPolicy>, pod: &str| {
        run(&cluster(vec![], policies)).snapshot.tables.workloads[&addr(pod.parse().unwrap())]
    };
    let before = entry(vec![policy(&[80])], "10.1.0.2");
    let elsewhere = authorization("other", "q", "", PolicyAction::Deny, vec![to_ports(&[1])]);
    assert_eq!(entry(vec![policy(&[80]), elsewhere.clone()], "10.1.0.2"), before);
    let after = entry(vec![policy(&[81])], "10.1.0.2");
    assert_ne!(after.policy, before.policy);
    assert_eq!((after.class, after.address_class), (before.class, before.address_class));
    assert_eq!(entry(vec![], "10.1.0.2").policy, 0);
    let web = entry(vec![elsewhere.clone()], "10.1.0.3");
    let other = entry(vec![elsewhere], "10.2.0.4");
    assert_eq!((web.policy, other.policy != 0), (0, true));
    assert_ne!(web.class, other.class, "two identities share a class");
}

#[test]
fn plaintext_under_a_policy_about_addresses_is_left_to_the_agent() {
    let blocks = any_of(vec![parse_block("10.2.0.0/16").unwrap()]);
    let rule = from(Source { addresses: blocks, ..Source::default() });
    let mut policy = allow(vec![rule]);
    policy.selector = labels("app=cart");
    let compiled = run(&cluster(vec![], vec![policy]));
    let entry = compiled.snapshot.tables.workloads[&addr("10.1.0.2".parse().unwrap())];
    assert_ne!(entry.flags & workload_flags::BY_ADDRESS, 0);
    assert!(compiled.snapshot.tables.policy.keys().all(|key| key.class != 0));
    assert_eq!(compiled.diagnostics, []);
}

#[test]
fn a_policy_with_too_many_ports_denies_in_the_kernel_and_that_is_said() {
    let ports: Vec<u16> = (1..=1_000).collect();
    let mut policy = deny(vec![to_ports(&ports)]);
    policy.selector = labels("app=cart");
    let compiled = run(&cluster(vec![], vec![policy]));
    assert!(compiled.snapshot.tables.policy.is_empty());
    let entry = compiled.snapshot.tables.workloads[&addr("10.1.0.2".parse().unwrap())];
    assert_ne!(entry.policy, 0);
    assert!(compiled.snapshot.tables.strict_unknown);
    assert_eq!(compiled.diagnostics[0].code, "too-many-ports");
}
