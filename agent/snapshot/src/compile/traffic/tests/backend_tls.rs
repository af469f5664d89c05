//! TLS of BackendTLSPolicies.

use undermesh_ebpf_common::service_flags;
use undermesh_model::traffic::{BackendTls, ClientTls, TlsMode};

use super::*;
use crate::compile::tests::key;

fn policy(name: &str, created: i64, port: Option<u16>) -> BackendTls {
    let sni = Some(name.to_owned());
    BackendTls {
        origin: ResourceRef::namespaced("BackendTLSPolicy", "shop", name),
        precedence: 0,
        created,
        service: NamespacedName::new("shop", "cart"),
        port,
        tls: ClientTls { mode: TlsMode::Simple, sni, ..ClientTls::default() },
    }
}

fn with(policies: Vec<BackendTls>) -> Compiled {
    let mut cluster = world();
    cluster.backend_tls = policies;
    run(&cluster)
}

/// The name that endpoints are asked for by.
fn name(compiled: &Compiled) -> Option<String> {
    let default = &port(compiled, CART_VIP).traffic["other"].default;
    default.settings.tls.as_ref()?.sni.clone()
}

#[test]
fn a_policy_holds_for_all_clients_and_needs_the_proxy() {
    let compiled = with(vec![policy("one", 0, None)]);
    assert_eq!(name(&compiled).as_deref(), Some("one"));
    assert_eq!(compiled.snapshot.tables.services[&key(CART_VIP)].flags, service_flags::PROXY);
    assert_eq!(findings(&compiled), []);
    let elsewhere = with(vec![policy("one", 0, Some(9999))]);
    assert!(port(&elsewhere, CART_VIP).traffic.is_empty());
}

#[test]
fn the_older_policy_wins_and_the_other_is_told() {
    let compiled = with(vec![policy("a", 2, None), policy("b", 1, None)]);
    assert_eq!(name(&compiled).as_deref(), Some("b"));
    let found = findings(&compiled);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("BackendTLSPolicy shop/b wins, it is older"), "{found:?}");
    let compiled = with(vec![policy("b", 1, None), policy("a", 1, None)]);
    assert_eq!(name(&compiled).as_deref(), Some("a"));
    let higher = BackendTls { precedence: 1, ..policy("z", 9, None) };
    let compiled = with(vec![policy("a", 1, None), higher]);
    assert_eq!(name(&compiled).as_deref(), Some("z"));
}

#[test]
fn a_policy_for_the_port_goes_before_one_for_all() {
    let compiled = with(vec![policy("all", 1, None), policy("port", 2, Some(80))]);
    assert_eq!(name(&compiled).as_deref(), Some("port"));
    assert_eq!(findings(&compiled), []);
}

#[test]
fn a_destination_rules_tls_goes_before_a_policy() {
    let mut cluster = world();
    cluster.backend_tls = vec![policy("one", 0, None)];
    let mut rule = destination_rule("shop", "cart", CART);
    rule.policy.tls = Some(ClientTls::default());
    cluster.destination_rules.insert(rule.name.clone(), rule);
    let compiled = run(&cluster);
    let default = &port(&compiled, CART_VIP).traffic["other"].default;
    assert_eq!(default.settings.tls.as_ref().unwrap().mode, TlsMode::Disable);
    let found = findings(&compiled);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("DestinationRule shop/cart wins"), "{found:?}");
}
