//! For random policies, the kernel's table, [`evaluate`] and the reference evaluator agree.

use proptest::{collection::vec, option, prelude::*, sample::select, test_runner::TestCaseError};
use undermesh_ebpf_common::{Inbound, Publisher, Reason, decide_inbound, workload_flags};
use undermesh_model::{
    Condition, Operation, ServiceAccountMatch, Source, SpiffeId, TextMatch, TrustDomain, Values,
    parse_block,
};

use super::{
    reference::{Answer, answer},
    *,
};
use crate::{
    ArrivingView, Cause, ConnectionAttributes, DatapathTables, RequestAttributes, addr, asks,
    evaluate, evaluate_opaque, evaluate_request,
};

const PORTS: [u16; 4] = [80, 81, 8080, 65535];

fn values<T: Clone + std::fmt::Debug + 'static>(
    one: impl Strategy<Value = T> + Clone + 'static,
) -> impl Strategy<Value = Values<T>> {
    let list = prop_oneof![2 => Just(Vec::new()), 1 => vec(one, 1..3)];
    (list.clone(), list).prop_map(|(any_of, none_of)| Values { any_of, none_of })
}

fn text(choices: &'static [&'static str]) -> impl Strategy<Value = TextMatch> + Clone {
    select(choices).prop_map(TextMatch::parse)
}

fn principals() -> impl Strategy<Value = Values<TextMatch>> {
    values(text(&[
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/*",
        "*/sa/web",
        "cluster.local/ns/other/sa/web",
        "*",
    ]))
}

fn namespaces() -> impl Strategy<Value = Values<TextMatch>> {
    values(text(&["shop", "other", "*", "sh*", "*er"]))
}

fn accounts() -> impl Strategy<Value = Values<ServiceAccountMatch>> {
    values((select(&["shop", "other"][..]), select(&["web", "cart"][..])).prop_map(
        |(namespace, name)| ServiceAccountMatch { namespace: namespace.into(), name: name.into() },
    ))
}

fn blocks() -> impl Strategy<Value = Values<ipnet::IpNet>> {
    let one = select(&["10.1.0.0/16", "10.2.0.4", "10.0.0.0/8", "fd00::/8"][..]);
    values(one.prop_map(|text| parse_block(text).unwrap()))
}

fn ports() -> impl Strategy<Value = Values<u16>> {
    values(select(&PORTS[..3]))
}

fn source() -> impl Strategy<Value = Source> {
    let domains = values(text(&["cluster.local", "*", "elsewhere"]));
    // Addresses are rare: with them, the kernel cannot judge plaintext.
    let addresses = prop_oneof![3 => Just(Values::default()), 1 => blocks()];
    (principals(), namespaces(), domains, accounts(), addresses).prop_map(
        |(principals, namespaces, trust_domains, service_accounts, addresses)| Source {
            principals,
            namespaces,
            trust_domains,
            service_accounts,
            addresses,
            ..Source::default()
        },
    )
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        1 => blocks().prop_map(Condition::SourceAddress),
        2 => namespaces().prop_map(Condition::SourceNamespace),
        2 => principals().prop_map(Condition::SourcePrincipal),
        2 => accounts().prop_map(Condition::SourceServiceAccount),
        1 => blocks().prop_map(Condition::DestinationAddress),
        2 => ports().prop_map(Condition::DestinationPort),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let unknown = prop_oneof![5 => Just(vec![]), 1 => Just(vec!["mood".to_owned()])];
    // Methods are rare: with them, the kernel cannot judge.
    let methods = prop_oneof![5 => Just(Values::default()), 1 => values(text(&["GET", "P*"]))];
    let to = (ports(), methods);
    let to = to.prop_map(|(ports, methods)| Operation { ports, methods, ..Operation::default() });
    (vec(source(), 0..3), vec(to, 0..3), vec(condition(), 0..2), unknown)
        .prop_map(|(from, to, when, unknown)| Rule { from, to, when, unknown })
}

fn authorization_policy() -> impl Strategy<Value = AuthorizationPolicy> {
    use PolicyAction::{Allow, Audit, Deny};
    let action = prop_oneof![4 => Just(Allow), 3 => Just(Deny), 1 => Just(Audit)];
    let namespace = select(&["shop", "shop", ROOT, "other"][..]);
    let selector = select(&["", "app=cart", "app=web"][..]);
    (namespace, selector, action, prop::bool::weighted(0.1), vec(rule(), 0..3)).prop_map(
        |(namespace, selector, action, dry_run, rules)| AuthorizationPolicy {
            dry_run,
            ..authorization(namespace, "", selector, action, rules)
        },
    )
}

fn peer_authentication() -> impl Strategy<Value = PeerAuthentication> {
    let mode =
        || option::of(select(&[MtlsMode::Disable, MtlsMode::Permissive, MtlsMode::Strict][..]));
    let ports = prop::collection::btree_map(select(&PORTS[..]), mode(), 0..3);
    let namespace = select(&["shop", ROOT, "other"][..]);
    let selector = select(&["", "app=cart"][..]);
    (namespace, selector, mode(), ports, option::of(0..3_i64)).prop_map(
        |(namespace, selector, mode, ports, created)| PeerAuthentication {
            ports,
            created,
            ..authentication(namespace, "", selector, mode)
        },
    )
}

fn named<T>(all: &mut [T], name: impl Fn(&mut T) -> &mut NamespacedName) {
    for (index, one) in all.iter_mut().enumerate() {
        name(one).name = format!("p{index}");
    }
}

/// What the kernel says about a connection between two pods of this node, or about plaintext;
/// nothing where it leaves the answer to the agent.
fn kernel(tables: &DatapathTables, connection: &ConnectionAttributes<'_>) -> Option<Answer> {
    let source = addr(connection.source_address);
    let publisher = connection.source.map_or(Publisher::NOBODY, |_| Publisher::pod(source));
    let view = ArrivingView { tables, publisher };
    let destination = connection.destination;
    match decide_inbound(&view, &addr(destination.ip()), destination.port(), &source) {
        Inbound::Pass(Reason::InboundLocal | Reason::InboundPlaintext) => Some(Answer::Pass),
        Inbound::Drop(Reason::PolicyDenied) => Some(Answer::Refuse),
        Inbound::Drop(Reason::StrictPlaintext) => Some(Answer::TooPlain),
        Inbound::Steer(Reason::InboundCaptured) => None,
        other => panic!("{other:?} is no answer to this question"),
    }
}

/// What a cause comes to; nothing where it depends on requests.
fn said(cause: Cause) -> Option<Answer> {
    match cause {
        Cause::Unrestricted | Cause::Allowed => Some(Answer::Pass),
        Cause::Denied | Cause::NotAllowed | Cause::NotAsked => Some(Answer::Refuse),
        Cause::StrictPlaintext => Some(Answer::TooPlain),
        Cause::AtRequests => None,
    }
}

/// What becomes of requests that differ in what the rules look at.
fn of_requests(policy: &CompiledPolicy, connection: &ConnectionAttributes<'_>) -> Vec<Answer> {
    let headers = http::HeaderMap::new();
    let (hosts, paths) = (["cart".to_owned()], ["/".to_owned()]);
    let requests = ["GET", "PUT", "HEAD"].map(|method| RequestAttributes {
        method,
        hosts: &hosts,
        paths: &paths,
        headers: &headers,
        claims: None,
        remote: connection.source_address,
    });
    let answer = |request: &RequestAttributes<'_>| {
        let cause = evaluate_request(policy, connection, request).cause;
        if asks(policy, None, connection, request).is_some() { None } else { said(cause) }
    };
    requests.iter().map(|request| answer(request).unwrap()).collect()
}

/// Every source that there is to every port of `shop/cart`.
fn check(
    authentications: Vec<PeerAuthentication>,
    authorizations: Vec<AuthorizationPolicy>,
) -> Result<(), TestCaseError> {
    let cluster = cluster(authentications.clone(), authorizations.clone());
    let snapshot = run(&cluster).snapshot;
    let cart = &cluster.workloads[&NamespacedName::new("shop", "cart")];
    let compiled = policy(&snapshot, "cart");
    let entry = snapshot.tables.workloads[&addr("10.1.0.2".parse().unwrap())];
    let modes = snapshot.workloads[&"10.1.0.2".parse().unwrap()].mtls.clone();
    let compiled = CompiledPolicy { modes, ..(*compiled).clone() };
    let id = |namespace| SpiffeId::new(TrustDomain::default(), namespace, "web");
    let (near, far) = (id("shop"), id("other"));
    for (source, address) in [
        (Some(&near), "10.1.0.3"),
        (Some(&far), "10.2.0.4"),
        (None, "10.9.9.9"),
        (None, "10.1.0.9"),
    ] {
        for port in PORTS.into_iter().chain([1, 443]) {
            let connection = ConnectionAttributes {
                source,
                source_address: address.parse().unwrap(),
                destination: socket(&format!("10.1.0.2:{port}")),
            };
            let expected = answer(&authentications, &authorizations, cart, &connection);
            let decision = evaluate_opaque(&compiled, &connection);
            let evaluated = said(decision.cause);
            prop_assert_eq!(evaluated.as_ref(), Some(&expected), "{:?} {}", connection, decision);
            prop_assert_eq!(decision.allowed, expected == Answer::Pass);
            let decision = evaluate(&compiled, &connection);
            let expected = said(decision.cause);
            let of_requests = of_requests(&compiled, &connection);
            match &expected {
                // What is settled before any request is seen, no request can change.
                Some(settled) => {
                    prop_assert!(of_requests.iter().all(|one| one == settled), "{:?}", of_requests);
                    prop_assert_eq!(decision.allowed, *settled == Answer::Pass);
                }
                None => prop_assert!(!decision.allowed),
            }
            let in_kernel = kernel(&snapshot.tables, &connection);
            if source.is_none() && entry.flags & workload_flags::BY_ADDRESS != 0 {
                prop_assert_eq!(in_kernel, None, "plaintext that the kernel cannot judge");
            } else {
                prop_assert_eq!(in_kernel, expected, "the kernel about {:?}", connection);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn table_evaluation_and_specification_agree(
        mut authentications in vec(peer_authentication(), 0..4),
        mut authorizations in vec(authorization_policy(), 0..4),
    ) {
        named(&mut authentications, |one| &mut one.name);
        named(&mut authorizations, |one| &mut one.name);
        check(authentications, authorizations)?;
    }
}
