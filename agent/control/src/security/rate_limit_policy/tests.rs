//! Policies as users write them, and what is read of them.

use undermesh_model::{Condition, TextMatch};

use super::*;
use crate::{definitions::fields_are, fixtures::load};

fn read(spec: &str) -> (Option<model::RateLimitPolicy>, Vec<String>) {
    let loaded = load(&format!(
        "apiVersion: undermesh.io/v1alpha1\nkind: RateLimitPolicy\n\
           metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    ));
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    let policy = loaded.cluster.and_then(|cluster| cluster.rate_limits.into_values().next());
    (policy, said.collect())
}

fn rate(count: u32, seconds: u64, burst: u32) -> Option<Rate> {
    let number = |number| NonZeroU32::new(number).unwrap();
    let per = Duration::from_secs(seconds);
    Some(Rate { count: number(count), per, burst: number(burst) })
}

#[test]
fn a_policy_is_read_field_by_field() {
    let (policy, said) = read(
        "
  selector: {matchLabels: {app: cart}}
  shadow: true
  rules:
  - name: free
    when: [{key: 'request.headers[X-Tier]', values: [free]}]
    requests: {count: 10, per: 1m, burst: 3}
    maxBodyBytes: 1000
    key: [pod, source.principal, source.namespace, source.ip, remote.ip, request.method, request.host,
          request.path, 'request.headers[X-User]', 'request.auth.claims[a][b]']
    maxKeys: 5
    answer: {status: 503, body: later, grpcStatus: RESOURCE_EXHAUSTED, headers: ALWAYS}
  - connections: {count: 5, per: 1s}
    from: [{source: {namespaces: [front]}}]",
    );
    assert_eq!(said, Vec::<String>::new());
    let policy = policy.unwrap();
    assert!(policy.shadow);
    assert_eq!(policy.selector["app"], "cart");
    let free = &policy.rules[0];
    assert_eq!(free.name, "free");
    let [Condition::RequestHeader(name, values)] = &free.when.when[..] else {
        panic!("{:?}", free.when)
    };
    assert_eq!(
        (name.as_str(), &values.any_of[..]),
        ("x-tier", &[TextMatch::Exact("free".into())][..])
    );
    let limits = &free.limits;
    assert_eq!((limits.requests, limits.body, limits.max_keys), (rate(10, 60, 3), Some(1000), 5));
    assert_eq!(limits.key.len(), 10);
    assert_eq!(limits.key[8], LimitKey::Header("x-user".to_owned()));
    assert_eq!(limits.key[9], LimitKey::Claim(vec!["a".to_owned(), "b".to_owned()]));
    let answer = &limits.answer;
    assert_eq!((answer.status, answer.body.as_str(), answer.exhausted), (503, "later", true));
    assert_eq!(answer.headers, LimitHeaders::Always);
    let connections = &policy.rules[1];
    assert_eq!(connections.name, "1");
    assert_eq!(connections.limits.connections, rate(5, 1, 5));
    assert_eq!(connections.limits.max_keys, MAX_KEYS);
}

#[test]
fn the_definition_has_the_fields_that_are_read() {
    // Those of sources and operations are named where they are read.
    let rest = ["spec.rules.[].from.[]", "spec.rules.[].to.[]"];
    fields_are::<Spec>(&KNOWN, &rest);
}

#[test]
fn a_policy_that_cannot_be_meant_rejects_the_state() {
    for rule in [
        "{}",
        "{requests: {count: 0, per: 1s}}",
        "{requests: {count: 1, per: soon}}",
        "{requests: {count: 1, per: 0s}}",
        "{requests: {count: 1, per: 25h}}",
        "{requests: {count: 1, per: 1s, burst: 0}}",
        "{requests: {count: 2, per: 1us}}",
        "{requests: {count: 1, per: 24h, burst: 400}}",
        "{requests: {count: 1, per: 1s}, key: [request.colour]}",
        "{requests: {count: 1, per: 1s}, key: ['request.headers[a b]']}",
        "{requests: {count: 1, per: 1s}, maxKeys: 1}",
        "{requests: {count: 1, per: 1s}, maxKeys: 1000001}",
        "{requests: {count: 1, per: 1s}, answer: {status: 200}}",
        "{requests: {count: 1, per: 1s}, name: 'a b'}",
        "{connections: {count: 1, per: 1s}, key: [request.path]}",
        "{connections: {count: 1, per: 1s}, to: [{operation: {paths: [/a]}}]}",
        "{requests: {count: 1, per: 1s}, to: [{operation: {ports: ['0']}}]}",
        "{name: a, maxBodyBytes: 1}, {name: a, maxBodyBytes: 2}",
    ] {
        let (_, said) = read(&format!("{{rules: [{rule}]}}"));
        assert!(said.iter().any(|one| one.starts_with("Error ")), "accepted: {rule}{said:?}");
    }
}

#[test]
fn what_has_no_effect_is_reported() {
    let (policy, said) = read("{}");
    assert!(policy.is_some() && said[0].starts_with("Warning no-effect"), "{said:?}");
    let (_, said) = read("{rules: [{maxBodyBytes: 1, colour: red}]}");
    assert!(said[0].starts_with("Warning unknown-field"), "{said:?}");
}
