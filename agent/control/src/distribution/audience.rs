//! Whom an object is for, as far as itself says, and what follows for a node.
//!
//! **Invariant**: what may restrict somebody on a node is sent to that node. Kinds that are not named here are sent to all.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::Value;

use super::scope::Scope;

/// Which nodes need objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// All.
    Everywhere,
    /// Those with pods of its namespace, whom it may restrict; all, if it is of the root namespace.
    AtServers,
    /// Those with pods of its namespace, which alone may use it.
    AtClients,
    /// Those whose pods may reach its namespace.
    WhereReached,
    /// The same, and that it is exported to.
    WhereExported,
    /// Those with pods in the mesh, which may reach it or be reached by it; and its own.
    InTheMesh,
    /// Those with pods of its namespace, in the mesh or not, or which may reach it.
    AtHome,
    /// None: it is for the controller.
    Nowhere,
}

fn need(kind: &str) -> Need {
    match kind {
        "AuthorizationPolicy" | "RequestAuthentication" | "RateLimitPolicy" => Need::AtServers,
        "Secret" => Need::AtClients,
        "Service" | "EndpointSlice" | "ConfigMap" | "HTTPRoute" | "GRPCRoute" | "TCPRoute"
        | "TLSRoute" | "BackendTLSPolicy" => Need::WhereReached,
        "VirtualService" | "DestinationRule" | "ServiceEntry" => Need::WhereExported,
        "ServiceAccount" => Need::AtHome,
        "Pod" => Need::InTheMesh,
        "Sidecar" => Need::Nowhere,
        _ => Need::Everywhere,
    }
}

/// What an object itself says about whom it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Audience {
    /// Nothing.
    #[default]
    All,
    /// Clients of these namespaces (`exportTo`).
    Namespaces(Arc<BTreeSet<String>>),
    /// It is a part of others, wherever these are (a VirtualService without hosts).
    Part,
    /// The node that a pod runs on; empty for none yet.
    Node(Arc<str>),
}

impl Audience {
    /// Reads it from an object.
    pub(super) fn of(kind: &str, object: &Value) -> Self {
        let spec = &object["spec"];
        match kind {
            "Pod" => Self::Node(spec["nodeName"].as_str().unwrap_or_default().into()),
            "VirtualService" if spec["hosts"].as_array().is_none_or(Vec::is_empty) => Self::Part,
            "VirtualService" | "DestinationRule" | "ServiceEntry" => {
                exported(&spec["exportTo"], object["metadata"]["namespace"].as_str())
            }
            _ => Self::All,
        }
    }
}

/// What cannot be read is for all, so that agents can say so.
fn exported(to: &Value, own: Option<&str>) -> Audience {
    let Some(list) = to.as_array().filter(|list| !list.is_empty()) else { return Audience::All };
    let mut namespaces = BTreeSet::new();
    for one in list {
        match (one.as_str(), own) {
            (Some("."), Some(own)) => drop(namespaces.insert(own.to_owned())),
            (Some("~"), _) => {}
            (Some("*") | None, _) | (Some("."), None) => return Audience::All,
            (Some(name), _) => drop(namespaces.insert(name.to_owned())),
        }
    }
    Audience::Namespaces(Arc::new(namespaces))
}

/// Whether a node needs the objects of one kind and namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    All,
    None,
    /// It depends on the object.
    Some,
}

/// Whether a node needs what is of this kind in this namespace.
pub(super) fn group_is_seen(scope: &Scope, kind: &str, namespace: &str) -> Seen {
    let all = |seen: bool| if seen { Seen::All } else { Seen::None };
    match need(kind) {
        Need::Everywhere => Seen::All,
        Need::Nowhere => Seen::None,
        Need::AtServers => all(namespace == scope.root || scope.local.contains(namespace)),
        Need::AtClients => all(scope.local.contains(namespace)),
        Need::WhereReached => all(scope.reaches(namespace)),
        Need::AtHome => all(scope.homes.contains(namespace) || scope.reaches(namespace)),
        Need::InTheMesh if scope.local.is_empty() => Seen::Some,
        Need::InTheMesh => Seen::All,
        Need::WhereExported => Seen::Some,
    }
}

/// Whether a node needs an object of which its group does not say it.
pub(super) fn is_seen(scope: &Scope, kind: &str, namespace: &str, audience: &Audience) -> bool {
    match group_is_seen(scope, kind, namespace) {
        Seen::All => true,
        Seen::None => false,
        Seen::Some => match audience {
            Audience::Node(node) => **node == *scope.node,
            Audience::Part => !scope.local.is_empty(),
            Audience::All => scope.reaches(namespace) || is_root(scope, namespace),
            Audience::Namespaces(names) => {
                (scope.reaches(namespace) || is_root(scope, namespace))
                    && scope.local.iter().any(|local| names.contains(local))
            }
        },
    }
}

fn is_root(scope: &Scope, namespace: &str) -> bool {
    namespace == scope.root && !scope.local.is_empty()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope(local: &[&str], reach: Option<&[&str]>) -> Scope {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Scope {
            node: "a".to_owned(),
            root: "istio-system".to_owned(),
            local: set(local),
            homes: set(&[local, &["kube-system"]].concat()),
            reach: reach.map(set),
        }
    }

    fn sees(scope: &Scope, kind: &str, namespace: &str) -> bool {
        is_seen(scope, kind, namespace, &Audience::All)
    }

    #[test]
    fn policies_are_where_they_restrict_somebody_and_secrets_where_they_are_used() {
        let shop = scope(&["shop"], None);
        for kind in ["AuthorizationPolicy", "RequestAuthentication", "RateLimitPolicy"] {
            assert!(sees(&shop, kind, "shop") && sees(&shop, kind, "istio-system"), "{kind}");
            assert!(!sees(&shop, kind, "bank"), "{kind}");
        }
        assert!(sees(&shop, "Secret", "shop"));
        assert!(!sees(&shop, "Secret", "bank") && !sees(&shop, "Secret", "istio-system"));
        // Clients have to know which servers speak plaintext.
        assert!(sees(&shop, "PeerAuthentication", "bank"));
        assert!(sees(&shop, "SomethingNew", "bank"));
        assert!(!sees(&shop, "Sidecar", "shop"));
    }

    #[test]
    fn a_node_without_pods_in_the_mesh_needs_its_own_pods_and_little_else() {
        let none = scope(&[], None);
        let on = |node: &str| Audience::Node(node.into());
        assert!(is_seen(&none, "Pod", "kube-system", &on("a")));
        assert!(!is_seen(&none, "Pod", "kube-system", &on("b")));
        assert!(!is_seen(&none, "Pod", "kube-system", &on("")));
        for kind in ["Service", "EndpointSlice", "VirtualService", "HTTPRoute", "Secret"] {
            assert!(!sees(&none, kind, "shop"), "{kind}");
        }
        assert!(sees(&none, "ServiceAccount", "kube-system"));
        assert!(sees(&none, "Namespace", "") && sees(&none, "MeshConfig", "istio-system"));
        assert!(is_seen(&scope(&["shop"], None), "Pod", "bank", &on("b")));
    }

    #[test]
    fn what_is_reached_may_be_narrower_than_everything() {
        let narrow = scope(&["shop"], Some(&["shop", "stock"]));
        for kind in ["Service", "EndpointSlice", "TCPRoute", "DestinationRule", "ServiceEntry"] {
            assert!(sees(&narrow, kind, "stock") && !sees(&narrow, kind, "bank"), "{kind}");
        }
        // All pods of the mesh: they may come from anywhere.
        assert!(is_seen(&narrow, "Pod", "bank", &Audience::Node("b".into())));
        assert!(is_seen(&narrow, "VirtualService", "bank", &Audience::Part));
        assert!(sees(&narrow, "DestinationRule", "istio-system"));
    }

    #[test]
    fn what_is_exported_to_others_alone_is_not_needed() {
        let object = |to: Value| json!({"metadata": {"namespace": "bank"}, "spec": {"hosts": ["h"], "exportTo": to}});
        let shop = scope(&["shop"], None);
        for (to, expected) in [
            (json!(["."]), false),
            (json!([".", "shop"]), true),
            (json!(["*"]), true),
            (json!([]), true),
            (json!(["~"]), false),
            (json!([7]), true),
            (Value::Null, true),
        ] {
            let audience = Audience::of("ServiceEntry", &object(to.clone()));
            assert_eq!(is_seen(&shop, "ServiceEntry", "bank", &audience), expected, "{to}");
        }
        let delegate = json!({"metadata": {"namespace": "bank"}, "spec": {"exportTo": ["."]}});
        assert_eq!(Audience::of("VirtualService", &delegate), Audience::Part);
    }
}
