//! What an agent would say about an object: it is read and compiled as agents do it, beside the Services of its
//! namespaces, so that rules about them are looked at as well.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::{Value, json};
use undermesh_control::{ApiServer, parse_manifests};
use undermesh_model::{Diagnostic, Generation, Severity, TrustDomain};
use undermesh_snapshot::{Options, compile};

use super::review::Verdict;

/// How long the API server may take to say which Services there are; without, less is looked at.
const SERVICES: Duration = Duration::from_secs(1);
/// Namespaces whose Services are looked at.
const MAX_NAMESPACES: usize = 8;
/// Findings that follow from what other objects there are, which may come yet.
const OTHERS: [&str; 18] = [
    "backend-not-found",
    "captured-by-port",
    "ignored-entry",
    "provider-without-service",
    "reference-not-permitted",
    "requests-at-opaque-port",
    "route-overridden",
    "route-without-address",
    "route-without-port",
    "rule-without-address",
    "rule-without-port",
    "unknown-delegate",
    "unknown-parent",
    "unknown-provider",
    "unknown-secret",
    "unknown-target",
    "unresolved-endpoint",
    "unusable-destination",
];

pub(in crate::controller) struct Judge {
    api: ApiServer,
    options: Options,
}

impl Judge {
    pub(in crate::controller) fn new(
        api: ApiServer,
        trust_domain: TrustDomain,
        root_namespace: String,
    ) -> Self {
        let options = Options { trust_domain, root_namespace, ..Options::default() };
        Self { api, options }
    }

    pub(super) async fn judge(&self, object: &Value) -> Verdict {
        let services = async {
            let mut services = Vec::new();
            for namespace in namespaces(object) {
                services.extend(self.api.services(&namespace).await.unwrap_or_default());
            }
            services
        };
        let services = tokio::time::timeout(SERVICES, services).await.unwrap_or_default();
        let (object, options) = (object.clone(), self.options.clone());
        let judged = tokio::task::spawn_blocking(move || verdict(&object, services, &options));
        judged.await.unwrap_or_else(|_| {
            // The code has a mistake; whoever writes an object cannot help it.
            Verdict::allowed(vec!["it could not be looked at".to_owned()])
        })
    }
}

/// Where Services may be that an object is about: its own namespace, and those that it names.
fn namespaces(object: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    found.extend(object["metadata"]["namespace"].as_str().map(str::to_owned));
    let parents = object["spec"]["parentRefs"].as_array().into_iter().flatten();
    found.extend(parents.filter_map(|it| Some(it["namespace"].as_str()?.to_owned())));
    let hosts =
        object["spec"]["hosts"].as_array().into_iter().flatten().chain([&object["spec"]["host"]]);
    for host in hosts.filter_map(Value::as_str) {
        let mut parts = host.split('.').skip(1);
        if let (Some(namespace), Some("svc")) = (parts.next(), parts.next()) {
            found.insert(namespace.to_owned());
        }
    }
    found.into_iter().take(MAX_NAMESPACES).collect()
}

fn verdict(object: &Value, services: Vec<Value>, options: &Options) -> Verdict {
    let alone = parse_manifests(&object.to_string(), Path::new(""));
    let is_about = |found: &Diagnostic| {
        let named = found.object.as_ref();
        named.is_none_or(|it| Some(it.name.as_str()) == object["metadata"]["name"].as_str())
    };
    let mut found: Vec<Diagnostic> = alone.diagnostics.into_iter().filter(&is_about).collect();
    if alone.cluster.is_some() {
        let mut items = services;
        items.push(object.clone());
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let loaded = parse_manifests(&list.to_string(), Path::new(""));
        if let Some(cluster) = loaded.cluster {
            let compiled = compile(&cluster, options, Generation::default()).diagnostics;
            found.extend(compiled.into_iter().filter(is_about));
        }
    }
    let (mut refusals, mut warnings) = (Vec::new(), Vec::new());
    for mut finding in found {
        if OTHERS.contains(&finding.code) {
            continue;
        }
        // Line 1 of nothing.
        finding.position = None;
        let words = finding.to_string();
        let list = match finding.severity {
            Severity::Error => &mut refusals,
            Severity::Warning | Severity::Info => &mut warnings,
        };
        if !list.contains(&words) {
            list.push(words);
        }
    }
    Verdict::new(refusals, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(object: &Value) -> Verdict {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]},
        });
        verdict(object, vec![service], &Options::default())
    }

    fn virtual_service(host: &str, regex: &str) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"hosts": [host], "http": [{
                "match": [{"uri": {"regex": regex}}],
                "route": [{"destination": {"host": host}}],
            }]},
        })
    }

    #[test]
    fn a_good_object_is_allowed_also_before_what_it_names_is_there() {
        for host in ["cart", "later"] {
            let verdict = judged(&virtual_service(host, "/a.*"));
            assert_eq!(verdict, Verdict::allowed(Vec::new()), "{host}");
        }
    }

    #[test]
    fn a_bad_object_is_refused_with_object_field_and_remedy() {
        let verdict = judged(&virtual_service("cart", "/(a"));
        assert!(!verdict.allowed);
        let words = verdict.refusals.join("\n");
        assert!(words.contains("VirtualService shop/cart"), "{words}");
        assert!(words.contains("/(a"), "{words}");
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"action": "MAYBE"},
        });
        let words = judged(&policy).refusals.join("\n");
        assert!(words.contains("AuthorizationPolicy shop/p"), "{words}");
        assert!(words.contains("MAYBE"), "{words}");
    }

    #[test]
    fn what_is_not_meant_so_is_a_warning() {
        let policy = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"action": "DENY", "rules": [{"from": [{"source": {"newThing": ["a"]}}]}]},
        });
        let verdict = judged(&policy);
        assert!(verdict.allowed, "{verdict:?}");
        let words = verdict.warnings.join("\n");
        assert!(words.contains("newThing") && words.contains("[unknown-field]"), "{words}");
    }

    #[test]
    fn namespaces_are_those_that_an_object_names() {
        let object = json!({
            "metadata": {"namespace": "a"},
            "spec": {"hosts": ["x.b.svc.cluster.local", "example.com"], "parentRefs": [{"namespace": "c"}]},
        });
        assert_eq!(namespaces(&object).into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
