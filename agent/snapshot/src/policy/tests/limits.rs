//! Which limits are about what, and that connections which they are about are handed to the agent.

use std::{num::NonZeroU32, time::Duration};

use http::HeaderMap;
use undermesh_ebpf_common::policy_verdict;
use undermesh_model::{
    LimitKey, LimitRule, Limits, Operation, Rate, RateLimitPolicy, SpiffeId, TrustDomain,
};

use super::{
    rules::{any_of, deny, principals, to_ports},
    *,
};
use crate::{
    Cause, ConnectionAttributes, RequestAttributes, evaluate, evaluate_opaque,
    limits_of_connection, limits_of_request,
};

fn rate(count: u32) -> Option<Rate> {
    let count = NonZeroU32::new(count).unwrap();
    Some(Rate { count, per: Duration::from_secs(1), burst: count })
}

fn requests(when: Rule) -> LimitRule {
    let limits = Limits { requests: rate(5), max_keys: 10, ..Limits::default() };
    LimitRule { name: "requests".to_owned(), when, limits }
}

fn connections(when: Rule) -> LimitRule {
    let limits = Limits { connections: rate(5), max_keys: 10, ..Limits::default() };
    LimitRule { name: "connections".to_owned(), when, limits }
}

fn limit(namespace: &str, selector: &str, rules: Vec<LimitRule>) -> RateLimitPolicy {
    RateLimitPolicy {
        origin: ResourceRef::namespaced("RateLimitPolicy", namespace, "limit"),
        name: NamespacedName::new(namespace, "limit"),
        selector: labels(selector),
        shadow: false,
        rules,
    }
}

fn limited(limits: Vec<RateLimitPolicy>, policies: Vec<AuthorizationPolicy>) -> Compiled {
    let mut cluster = cluster(vec![], policies);
    cluster.rate_limits = limits.into_iter().map(|one| (one.name.clone(), one)).collect();
    run(&cluster)
}

fn path(path: &str) -> Rule {
    let paths = any_of(vec![undermesh_model::PathMatch::parse(path).unwrap()]);
    Rule { to: vec![Operation { paths, ..Operation::default() }], ..Rule::default() }
}

fn web() -> SpiffeId {
    SpiffeId::new(TrustDomain::default(), "other", "web")
}

fn connection(source: &SpiffeId) -> ConnectionAttributes<'_> {
    ConnectionAttributes {
        source: Some(source),
        source_address: "10.2.0.4".parse().unwrap(),
        destination: socket("10.1.0.2:80"),
    }
}

#[test]
fn connections_that_a_limit_may_be_about_are_handed_to_the_agent() {
    let source = web();
    for (limits, policies, expected) in [
        (limit("shop", "", vec![requests(Rule::default())]), vec![], Cause::AtRequests),
        (limit("shop", "", vec![requests(path("/a"))]), vec![], Cause::AtRequests),
        (limit("shop", "", vec![connections(Rule::default())]), vec![], Cause::AtRequests),
        (limit(ROOT, "app=cart", vec![requests(Rule::default())]), vec![], Cause::AtRequests),
        (limit("shop", "app=web", vec![requests(Rule::default())]), vec![], Cause::Unrestricted),
        (limit("shop", "", vec![requests(to_ports(&[81]))]), vec![], Cause::Unrestricted),
        (
            limit("shop", "", vec![requests(principals(&["cluster.local/ns/a/sa/b"]))]),
            vec![],
            Cause::Unrestricted,
        ),
        // What is refused anyway needs no look.
        (
            limit("shop", "", vec![requests(Rule::default())]),
            vec![deny(vec![to_ports(&[80])])],
            Cause::Denied,
        ),
    ] {
        let text = format!("{limits:?}");
        let compiled = policy(&limited(vec![limits], policies).snapshot, "cart");
        assert_eq!(evaluate(&compiled, &connection(&source)).cause, expected, "{text}");
    }
}

#[test]
fn the_kernel_is_told_to_hand_them_over() {
    let compiled = limited(vec![limit("shop", "", vec![requests(Rule::default())])], vec![]);
    let answers: Vec<u32> =
        compiled.snapshot.tables.policy.values().map(|one| one.verdict).collect();
    assert!(
        !answers.is_empty() && answers.iter().all(|one| *one == policy_verdict::JUDGE),
        "{answers:?}"
    );
}

#[test]
fn a_limit_is_about_what_its_rule_matches_and_bytes_are_none_of_it() {
    let rules = vec![requests(path("/a*")), connections(Rule::default())];
    let compiled = policy(&limited(vec![limit("shop", "", rules)], vec![]).snapshot, "cart");
    let source = web();
    let connection = connection(&source);
    let headers = HeaderMap::new();
    let names = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = RequestAttributes {
            method: "GET",
            hosts: &[],
            paths: &paths,
            headers: &headers,
            claims: None,
            remote: connection.source_address,
        };
        let limits = limits_of_request(&compiled, &connection, &request);
        limits.filter(|one| one.limits.requests.is_some()).count()
    };
    // One of the readings of a path is enough.
    assert_eq!((names(&["/ab"]), names(&["/b"]), names(&["/b", "/a"])), (1, 0, 1));
    let about: Vec<_> = limits_of_connection(&compiled, &connection).collect();
    assert_eq!((about.len(), about[0].name.as_str()), (1, "connections"));
    assert!(evaluate_opaque(&compiled, &connection).allowed);
}

#[test]
fn budgets_outlive_changes_that_are_not_about_them() {
    let budgets = |rule: LimitRule| {
        let compiled = limited(vec![limit("shop", "", vec![rule])], vec![]);
        policy(&compiled.snapshot, "cart").limits[0].budgets
    };
    let base = budgets(requests(Rule::default()));
    assert_eq!(budgets(requests(path("/a"))), base);
    let mut keyed = requests(Rule::default());
    keyed.limits.key = vec![LimitKey::SourcePrincipal];
    assert_ne!(budgets(keyed), base);
    let mut larger = requests(Rule::default());
    larger.limits.requests = rate(6);
    assert_ne!(budgets(larger), base);
}
