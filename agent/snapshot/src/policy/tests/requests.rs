//! What rules say about requests, and about connections whose requests nobody has seen.

use http::HeaderMap;
use serde_json::{Map, Value, json};
use undermesh_model::{
    Condition, Operation, PathMatch, PrincipalMatch, Source, SpiffeId, TrustDomain,
};

use super::{
    rules::{allow, any_of, deny, from, none_of, principals, texts, to_ports},
    *,
};
use crate::{
    Cause, ConnectionAttributes, Decision, RequestAttributes, asks, evaluate, evaluate_opaque,
    evaluate_request,
};

/// A request of `other/web` to `shop/cart`, port 80.
#[derive(Clone)]
struct Asked {
    method: &'static str,
    hosts: Vec<&'static str>,
    paths: Vec<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    claims: Value,
    remote: &'static str,
}

fn get(path: &'static str) -> Asked {
    Asked {
        method: "GET",
        hosts: vec!["cart.shop"],
        paths: vec![path],
        headers: vec![],
        claims: Value::Null,
        remote: "198.51.100.7",
    }
}

/// Looks at one connection in one way.
fn look<R>(
    policies: Vec<AuthorizationPolicy>,
    port: u16,
    look: impl FnOnce(&CompiledPolicy, &ConnectionAttributes<'_>) -> R,
) -> R {
    let compiled = policy(&run(&cluster(vec![], policies)).snapshot, "cart");
    let source = SpiffeId::new(TrustDomain::default(), "other", "web");
    let connection = ConnectionAttributes {
        source: Some(&source),
        source_address: "10.2.0.4".parse().unwrap(),
        destination: socket(&format!("10.1.0.2:{port}")),
    };
    look(&compiled, &connection)
}

fn judge<R>(
    policies: Vec<AuthorizationPolicy>,
    asked: &Asked,
    read: impl FnOnce(Decision<'_>, usize) -> R,
) -> R {
    let paths: Vec<String> = asked.paths.iter().map(|path| (*path).to_owned()).collect();
    let hosts: Vec<String> = asked.hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut headers = HeaderMap::new();
    for (name, value) in &asked.headers {
        headers.append(*name, value.parse().unwrap());
    }
    let claims: Option<Map<String, Value>> = asked.claims.as_object().cloned();
    let request = RequestAttributes {
        method: asked.method,
        hosts: &hosts,
        paths: &paths,
        headers: &headers,
        claims: claims.as_ref(),
        remote: asked.remote.parse().unwrap(),
    };
    look(policies, 80, |policy, connection| {
        let providers: std::collections::BTreeSet<_> =
            policy.custom.iter().map(|one| one.provider.as_deref()).collect();
        let asked = |one: &Option<&str>| asks(policy, *one, connection, &request).is_some();
        let asks = providers.into_iter().filter(asked).count();
        read(evaluate_request(policy, connection, &request), asks)
    })
}

fn of(policies: Vec<AuthorizationPolicy>, asked: &Asked) -> Cause {
    judge(policies, asked, |decision, _| decision.cause)
}

fn before(policies: Vec<AuthorizationPolicy>, port: u16) -> Cause {
    look(policies, port, |policy, connection| evaluate(policy, connection).cause)
}

fn opaque(policies: Vec<AuthorizationPolicy>) -> Cause {
    look(policies, 80, |policy, connection| evaluate_opaque(policy, connection).cause)
}

fn to(operation: Operation) -> Rule {
    Rule { to: vec![operation], ..Rule::default() }
}

fn when(condition: Condition) -> Rule {
    Rule { when: vec![condition], ..Rule::default() }
}

fn paths(list: &[&str]) -> Vec<PathMatch> {
    list.iter().map(|text| PathMatch::parse(text).unwrap()).collect()
}

fn methods(list: &[&str]) -> Operation {
    Operation { methods: any_of(texts(list)), ..Operation::default() }
}

fn at(list: &[&str]) -> Operation {
    Operation { paths: any_of(paths(list)), ..Operation::default() }
}

#[test]
fn each_field_of_a_request_matches_as_istio_says() {
    let hosts = |list: &[&str]| Operation { hosts: any_of(texts(list)), ..Operation::default() };
    let header = |name: &str, values| Condition::RequestHeader(name.to_owned(), values);
    let claim = |path: &[&str], list: &[&str]| {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        when(Condition::RequestClaim(path, any_of(texts(list))))
    };
    let blocks = |text: &str| any_of(vec![undermesh_model::parse_block(text).unwrap()]);
    let principal = |text: &str| any_of(vec![PrincipalMatch::parse(text)]);
    let token = json!({"iss": "me", "sub": "you", "aud": ["a", "b"], "azp": "c",
        "scope": ["read", "write"], "deep": {"er": "d"}, "level": 3});
    let plain = get("/a/b");
    let with = Asked { headers: vec![("x", "1"), ("x", "2")], claims: token, ..get("/a/b") };
    for (rule, asked, matches) in [
        (to(methods(&["GET"])), &plain, true),
        (to(methods(&["POST", "P*"])), &plain, false),
        (to(hosts(&["cart.shop"])), &plain, true),
        (to(hosts(&["*.shop"])), &plain, true),
        (to(hosts(&["cart"])), &plain, false),
        (to(at(&["/a*"])), &plain, true),
        (to(at(&["/a/{*}"])), &plain, true),
        (to(at(&["/a"])), &plain, false),
        (to(Operation { paths: none_of(paths(&["/a*"])), ..Operation::default() }), &plain, false),
        (to(Operation { ports: any_of(vec![80]), ..methods(&["GET"]) }), &plain, true),
        (to(Operation { ports: any_of(vec![81]), ..methods(&["GET"]) }), &plain, false),
        (when(header("x", any_of(texts(&["1,2"])))), &with, true),
        (when(header("x", any_of(texts(&["1"])))), &with, false),
        (when(header("x", any_of(texts(&["*"])))), &plain, false),
        (when(header("x", none_of(texts(&["1"])))), &with, false),
        (when(header("x", none_of(texts(&["1"])))), &plain, true),
        (when(Condition::RemoteAddress(blocks("198.51.100.0/24"))), &plain, true),
        (when(Condition::RemoteAddress(blocks("10.0.0.0/8"))), &plain, false),
        (
            from(Source { remote_addresses: blocks("198.51.100.7"), ..Source::default() }),
            &plain,
            true,
        ),
        (
            from(Source { request_principals: principal("me/you"), ..Source::default() }),
            &with,
            true,
        ),
        (from(Source { request_principals: principal("*"), ..Source::default() }), &plain, false),
        (when(Condition::RequestPrincipal(principal("me/*"))), &with, true),
        (claim(&["aud"], &["b"]), &with, true),
        (claim(&["azp"], &["c"]), &with, true),
        (claim(&["scope"], &["write"]), &with, true),
        (claim(&["deep", "er"], &["d"]), &with, true),
        (claim(&["deep"], &["*"]), &with, false),
        (claim(&["level"], &["3"]), &with, false),
        (claim(&["aud"], &["*"]), &plain, false),
    ] {
        let text = format!("{rule:?}");
        let expected = if matches { Cause::Allowed } else { Cause::NotAllowed };
        assert_eq!(of(vec![allow(vec![rule.clone()])], asked), expected, "{text}");
        let expected = if matches { Cause::Denied } else { Cause::Unrestricted };
        assert_eq!(of(vec![deny(vec![rule])], asked), expected, "{text}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_if_one_is_and_allowed_if_both_are() {
    let asked = Asked { paths: vec!["/public//admin", "/public/admin"], ..get("/") };
    assert_eq!(of(vec![deny(vec![to(at(&["/public/admin"]))])], &asked), Cause::Denied);
    assert_eq!(of(vec![allow(vec![to(at(&["/public//admin"]))])], &asked), Cause::NotAllowed);
    assert_eq!(of(vec![allow(vec![to(at(&["/public/*"]))])], &asked), Cause::Allowed);
    let hosts = |text: &str| Operation { hosts: any_of(texts(&[text])), ..Operation::default() };
    let with_port = Asked { hosts: vec!["cart:80", "cart"], ..get("/") };
    assert_eq!(of(vec![deny(vec![to(hosts("cart"))])], &with_port), Cause::Denied);
    assert_eq!(of(vec![allow(vec![to(hosts("cart"))])], &with_port), Cause::NotAllowed);
    assert_eq!(of(vec![allow(vec![to(hosts("cart*"))])], &with_port), Cause::Allowed);
    let but = Operation { paths: none_of(paths(&["/public/admin"])), ..Operation::default() };
    assert_eq!(of(vec![allow(vec![to(but.clone())])], &asked), Cause::NotAllowed);
    assert_eq!(of(vec![deny(vec![to(but)])], &asked), Cause::Denied);
}

#[test]
fn a_connection_waits_for_its_requests_only_where_they_can_change_the_answer() {
    let get = || to(methods(&["GET"]));
    let nobody = || principals(&["nobody"]);
    let both = |rule: Rule| Rule { to: vec![methods(&["GET"])], ..rule };
    assert_eq!(before(vec![allow(vec![get()])], 80), Cause::AtRequests);
    assert_eq!(before(vec![allow(vec![both(nobody())])], 80), Cause::NotAllowed);
    assert_eq!(before(vec![allow(vec![get(), Rule::default()])], 80), Cause::Allowed);
    assert_eq!(before(vec![deny(vec![get()])], 80), Cause::AtRequests);
    assert_eq!(before(vec![deny(vec![get(), Rule::default()])], 80), Cause::Denied);
    assert_eq!(before(vec![deny(vec![both(nobody())])], 80), Cause::Unrestricted);
    let ports = Operation { ports: any_of(vec![80]), ..methods(&["GET"]) };
    assert_eq!(before(vec![deny(vec![to(ports)])], 81), Cause::Unrestricted);
    assert_eq!(before(vec![deny(vec![get()]), allow(vec![nobody()])], 80), Cause::NotAllowed);
    let dry = AuthorizationPolicy { dry_run: true, ..deny(vec![get()]) };
    assert_eq!(before(vec![dry], 80), Cause::AtRequests, "a dry run would not see the request");
    assert_eq!(before(vec![deny(vec![to_ports(&[80])])], 80), Cause::Denied);
}

#[test]
fn what_is_no_request_is_judged_by_the_rest_of_the_rule_and_never_allowed_by_it() {
    let get = || to(methods(&["GET"]));
    assert_eq!(opaque(vec![allow(vec![get()])]), Cause::NotAllowed);
    assert_eq!(opaque(vec![deny(vec![get()])]), Cause::Denied);
    assert_eq!(opaque(vec![custom(vec![get()])]), Cause::NotAsked);
    assert_eq!(opaque(vec![custom(vec![principals(&["nobody"])])]), Cause::Unrestricted);
}

fn custom(rules: Vec<Rule>) -> AuthorizationPolicy {
    let provider = Some("guard".to_owned());
    AuthorizationPolicy {
        provider,
        ..authorization("shop", "custom", "", PolicyAction::Custom, rules)
    }
}

#[test]
fn a_custom_policy_asks_about_the_requests_that_it_matches_and_decides_nothing_itself() {
    let policies = || vec![custom(vec![to(at(&["/admin"]))]), deny(vec![to(methods(&["POST"]))])];
    assert_eq!(before(policies(), 80), Cause::AtRequests);
    for (asked, cause, count) in [
        (get("/admin"), Cause::Unrestricted, 1),
        (get("/"), Cause::Unrestricted, 0),
        (Asked { method: "POST", ..get("/admin") }, Cause::Denied, 1),
    ] {
        judge(policies(), &asked, |decision, asks| {
            assert_eq!((decision.cause, asks), (cause, count));
        });
    }
}

#[test]
fn where_tokens_are_verified_every_connection_that_may_pass_waits_for_its_requests() {
    let rule = undermesh_model::JwtRule {
        origin: ResourceRef::namespaced("RequestAuthentication", "shop", "tokens"),
        issuer: "me".to_owned(),
        audiences: vec![],
        keys: undermesh_model::JwtKeys::Discovered,
        locations: vec![],
        forward: false,
        payload_header: None,
        claim_headers: vec![],
        words: vec![],
        timeout: std::time::Duration::from_secs(1),
    };
    let about = |namespace: &str, selector: &str| undermesh_model::RequestAuthentication {
        origin: ResourceRef::namespaced("RequestAuthentication", namespace, "tokens"),
        name: NamespacedName::new(namespace, "tokens"),
        selector: labels(selector),
        rules: vec![rule.clone()],
    };
    for (namespace, selector, policies, expected) in [
        ("shop", "", vec![], Cause::AtRequests),
        (ROOT, "app=cart", vec![], Cause::AtRequests),
        ("shop", "app=web", vec![], Cause::Unrestricted),
        ("other", "", vec![], Cause::Unrestricted),
        ("shop", "", vec![deny(vec![to_ports(&[80])])], Cause::Denied),
    ] {
        let object = about(namespace, selector);
        let mut cluster = cluster(vec![], policies);
        cluster.request_authentications.insert(object.name.clone(), object);
        let compiled = policy(&run(&cluster).snapshot, "cart");
        let source = SpiffeId::new(TrustDomain::default(), "other", "web");
        let connection = ConnectionAttributes {
            source: Some(&source),
            source_address: "10.2.0.4".parse().unwrap(),
            destination: socket("10.1.0.2:80"),
        };
        assert_eq!(evaluate(&compiled, &connection).cause, expected, "{namespace} {selector}");
    }
}
