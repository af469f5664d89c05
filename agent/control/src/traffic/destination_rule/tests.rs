//! Manifests in, nouns and findings out.

mod objects;
mod policies;
mod refused;
mod unsupported;

use undermesh_model::traffic::{DestinationRule, TrafficPolicy};

use crate::fixtures::load;

/// A rule in `shop` with this `spec`.
fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: r, namespace: shop}}\nspec: {spec}\n"
    )
}

/// A rule for the Service `cart` with this policy.
fn policy(policy: &str) -> String {
    rule(&format!("{{host: cart, trafficPolicy: {policy}}}"))
}

/// The rule, if nothing is refused, and the findings without place and object.
fn read(text: &str) -> (Option<DestinationRule>, Vec<String>) {
    let loaded = load(text);
    let said = loaded.diagnostics.into_iter();
    let said = said.map(|one| format!("{:?} {}: {}", one.severity, one.code, one.message));
    let rule = loaded.cluster.and_then(|cluster| cluster.destination_rules.into_values().next());
    (rule, said.collect())
}

/// The rule of a text that nothing is said against.
fn quiet(text: &str) -> DestinationRule {
    let (rule, said) = read(text);
    assert_eq!(said, Vec::<String>::new(), "{text}");
    rule.unwrap()
}

/// The policy of a host that nothing is said against.
fn quiet_policy(text: &str) -> TrafficPolicy {
    quiet(&policy(text)).policy
}
