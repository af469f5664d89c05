//! What a policy means that cannot be read, and never could: what it would mean at its strictest. An object
//! of the same kind says so, which is read like any other.

use serde_json::{Value, json};

/// Issuer of tokens that nobody has: with it, no token is good.
const NOBODY: &str = "urn:undermesh:unreadable";

/// The strictest reading of a policy; `None` for objects that restrict nothing.
pub(super) fn strictest(kind: &str, object: &Value) -> Option<Value> {
    let spec = &object["spec"];
    let spec = match kind {
        "PeerAuthentication" => json!({"mtls": {"mode": "STRICT"}}),
        // It is about a gateway, and so about no pod.
        "AuthorizationPolicy" | "RequestAuthentication" if has_target(spec) => return None,
        // It refuses nothing.
        "AuthorizationPolicy" if spec["action"] == "AUDIT" => return None,
        // Allows nothing, and so denies everything.
        "AuthorizationPolicy" => json!({"action": "ALLOW"}),
        "RequestAuthentication" => {
            json!({"jwtRules": [{"issuer": NOBODY, "jwks": "{\"keys\":[]}"}]})
        }
        _ => return None,
    };
    let mut strict = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": {
            "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
        },
        "spec": spec,
    });
    if let Some(labels) = selector(&object["spec"]["selector"]["matchLabels"]) {
        strict["spec"]["selector"] = json!({"matchLabels": labels});
    }
    Some(strict)
}

fn has_target(spec: &Value) -> bool {
    let refs = spec["targetRefs"].as_array();
    !spec["targetRef"].is_null() || refs.is_some_and(|list| !list.is_empty())
}

/// Labels that can be read. Where they cannot be, the policy is about all of its scope.
fn selector(labels: &Value) -> Option<&Value> {
    labels.as_object().filter(|labels| labels.values().all(Value::is_string)).map(|_| labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: Value) -> Value {
        json!({"apiVersion": "x", "kind": "y", "metadata": {"name": "p", "namespace": "shop"}, "spec": spec})
    }

    #[test]
    fn a_policy_keeps_its_selector_as_far_as_that_can_be_read() {
        let good = policy(json!({"selector": {"matchLabels": {"app": "cart"}}, "rules": 7}));
        let strict = strictest("AuthorizationPolicy", &good).unwrap();
        assert_eq!(
            strict["spec"],
            json!({"action": "ALLOW", "selector": {"matchLabels": {"app": "cart"}}})
        );
        let bad = policy(json!({"selector": {"matchLabels": {"app": 7}}}));
        assert_eq!(
            strictest("PeerAuthentication", &bad).unwrap()["spec"],
            json!({"mtls": {"mode": "STRICT"}})
        );
    }

    #[test]
    fn what_refuses_nothing_has_no_strictest_reading() {
        for (kind, spec) in [
            ("AuthorizationPolicy", json!({"action": "AUDIT", "rules": 7})),
            ("AuthorizationPolicy", json!({"targetRefs": [{"kind": "Gateway"}]})),
            ("VirtualService", json!({})),
        ] {
            assert_eq!(strictest(kind, &policy(spec)), None, "{kind}");
        }
    }
}
