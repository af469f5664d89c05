//! Several limits together, and what is told about them.

use std::num::NonZeroU32;

use prometheus_client::{encoding::text::encode, registry::Registry};
use undermesh_model::{Limits as Written, Rate, ResourceRef, Rule};
use undermesh_snapshot::{CompiledLimit, CompiledPolicy};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn limit(name: &str, count: u32, burst: u32) -> CompiledLimit {
    let number = |number| NonZeroU32::new(number).unwrap();
    let per = Duration::from_secs(1);
    let requests = Some(Rate { count: number(count), per, burst: number(burst) });
    let limits = Written { requests, max_keys: 100, ..Written::default() };
    let policy = undermesh_model::RateLimitPolicy {
        origin: ResourceRef::namespaced("RateLimitPolicy", "shop", "p"),
        name: undermesh_model::NamespacedName::new("shop", "p"),
        selector: [].into(),
        shadow: false,
        rules: Vec::new(),
    };
    let rule = undermesh_model::LimitRule { name: name.to_owned(), when: Rule::default(), limits };
    CompiledLimit::new(&policy, 0, &rule)
}

fn take<'a>(limits: &Limits, now: u64, list: &'a [CompiledLimit]) -> Verdict<'a> {
    limits.take_at(now, Counted::Requests, list.iter(), |_| "key")
}

#[test]
fn the_strictest_limit_answers_and_the_others_are_not_charged() {
    let limits = Limits::new(LimitMetrics::default());
    let all = [limit("wide", 10, 10), limit("slow", 1, 2), limit("slower", 1, 2)];
    for remaining in [1, 0] {
        let verdict = take(&limits, 0, &all);
        assert!(verdict.refused.is_none());
        assert_eq!(verdict.tightest.unwrap().remaining, remaining);
    }
    for _ in 0..20 {
        let verdict = take(&limits, 0, &all);
        let refused = verdict.refused.unwrap();
        assert!(refused.limit.name.starts_with("slow"));
        assert!(verdict.tightest.is_none());
    }
    let wide = take(&limits, 0, &all[..1]).tightest.unwrap();
    assert_eq!(wide.remaining, 7, "refused requests have used up a limit that they were within");
}

#[test]
fn a_shadow_is_counted_and_refuses_nothing() {
    let mut registry = Registry::default();
    let limits = Limits::new(LimitMetrics::register(&mut registry));
    let mut shadow = limit("shadow", 1, 1);
    shadow.shadow = true;
    for _ in 0..3 {
        assert!(take(&limits, 0, std::slice::from_ref(&shadow)).refused.is_none());
    }
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    let labels = "policy_namespace=\"shop\",policy=\"p\",rule=\"shadow\",outcome";
    for (outcome, count) in [("passed", 1), ("would_limit", 2), ("limited", 0)] {
        let line = format!("undermesh_rate_limit_total{{{labels}=\"{outcome}\"}} {count}");
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[test]
fn budgets_outlive_a_snapshot_that_still_has_their_rule() {
    let limits = Limits::new(LimitMetrics::default());
    let all = [limit("one", 1, 1)];
    assert!(take(&limits, 0, &all).refused.is_none());
    let policy = CompiledPolicy { limits: vec![Arc::new(all[0].clone())], ..Default::default() };
    let name = undermesh_model::NamespacedName::new("shop", "cart");
    let mut snapshot = Snapshot::default();
    snapshot.policies.insert(name, Arc::new(policy));
    limits.retain(&snapshot);
    assert!(take(&limits, 0, &all).refused.is_some());
    assert!(take(&limits, SECOND, &all).refused.is_none(), "time fills it");
    limits.retain(&Snapshot::default());
    assert!(take(&limits, SECOND, &all).refused.is_none(), "it is forgotten with its rule");
}
