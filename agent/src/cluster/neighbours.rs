//! Other meshes, and network plugins that do a part of the same work.

use serde_json::Value;
use undermesh_control::{ApiError, ApiServer};

use super::findings::Finding;

/// What shows by its DaemonSet that pods with the same label would be in two meshes.
const AMBIENT: &str = "ztunnel";
/// Labels by which a namespace has sidecars injected, and what those are.
const INJECTION: [(&str, &str, &str); 3] = [
    ("istio-injection", "enabled", "Istio's sidecars"),
    ("linkerd.io/inject", "enabled", "Linkerd's sidecars"),
    ("kuma.io/sidecar-injection", "enabled", "Kuma's sidecars"),
];
const MODE: &str = "istio.io/dataplane-mode";

pub(super) async fn check(api: &ApiServer) -> Result<Vec<Finding>, ApiError> {
    let sets = api.objects("/apis/apps/v1/daemonsets", "").await?;
    let mut findings = Vec::new();
    for set in &sets {
        let (namespace, name) = place(set);
        if name == AMBIENT {
            findings.push(Finding::error(
                "neighbours",
                format!("DaemonSet {namespace}/{name}: Istio's ambient mesh takes the same pods, by the same label"),
                "remove one of the two; both at once would encrypt twice, or not at all",
            ));
        }
        if name == "linkerd-cni" || name == "kuma-cni-node" {
            findings.push(Finding::warning(
                "neighbours",
                format!("DaemonSet {namespace}/{name}: another mesh redirects pods with sidecars"),
                "let no pod be in both",
            ));
        }
    }
    findings.extend(cilium(api).await?);
    findings.extend(injected(api).await?);
    if findings.is_empty() {
        findings.push(Finding::ok("neighbours", "no other mesh"));
    }
    Ok(findings)
}

fn place(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

/// Where Cilium translates addresses of services in the same hook, before or after us.
async fn cilium(api: &ApiServer) -> Result<Option<Finding>, ApiError> {
    let maps = api.objects("/api/v1/namespaces/kube-system/configmaps", "").await?;
    let Some(config) = maps.iter().find(|map| place(map).1 == "cilium-config") else {
        return Ok(None);
    };
    let is = |field: &str, value: &str| config["data"][field] == value;
    let replaces = is("kube-proxy-replacement", "true") || is("kube-proxy-replacement", "strict");
    if !replaces || is("bpf-lb-sock-hostns-only", "true") {
        return Ok(None);
    }
    Ok(Some(Finding::warning(
        "neighbours",
        "Cilium translates addresses of Services in pods (kube-proxy-replacement), so that routes by Service may not be seen",
        "set Cilium's socketLB.hostNamespaceOnly=true",
    )))
}

/// Namespaces that would have both.
async fn injected(api: &ApiServer) -> Result<Vec<Finding>, ApiError> {
    let namespaces = api.objects("/api/v1/namespaces", "").await?;
    let found = namespaces.iter().flat_map(|namespace| {
        let labels = &namespace["metadata"]["labels"];
        let both = INJECTION.iter().filter(|(label, value, _)| labels[label] == *value);
        let name = place(namespace).1.to_owned();
        let meshed = labels[MODE] == "ambient";
        both.filter(move |_| meshed).map(move |(label, _, what)| {
            Finding::warning(
                "neighbours",
                format!("namespace {name} is to be in the mesh, and has {what}"),
                &format!("kubectl label namespace {name} {label}-, then restart its pods"),
            )
        })
    });
    Ok(found.collect())
}
