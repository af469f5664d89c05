//! What only the whole configuration shows.

use std::collections::BTreeMap;

use undermesh_model::{
    Cluster, Diagnostic, MtlsMode, NamespacedName, ResourceRef, Service, ServicePort, Severity,
    Workload, traffic::DestinationRule,
};

use super::{templates::Templates, warning};
use crate::network_policy::{BlockedTunnel, TUNNEL_PORT};

type Labels = BTreeMap<String, String>;

/// Name prefixes and values of `appProtocol` that say HTTP, and those that say that it is none.
const REQUESTS: [&str; 4] = ["http", "http2", "grpc", "grpc-web"];
const OPAQUE: [&str; 7] = ["tcp", "tls", "https", "mongo", "mysql", "redis", "kafka"];
/// Pods that a finding names.
const NAMED: usize = 3;

/// Runs every check.
pub(super) fn run(cluster: &Cluster, templates: &Templates) -> Vec<Diagnostic> {
    let pods = Pods::of(cluster, templates);
    let mut found = Vec::new();
    selectors(cluster, &pods, &mut found);
    services(cluster, &pods, &mut found);
    subsets(cluster, &pods, &mut found);
    strict(cluster, &mut found);
    found
}

/// Labels of all pods that there are or will be, by namespace.
struct Pods<'a>(BTreeMap<&'a str, Vec<&'a Labels>>);

impl<'a> Pods<'a> {
    fn of(cluster: &'a Cluster, templates: &'a Templates) -> Self {
        let mut pods: BTreeMap<&str, Vec<&Labels>> = BTreeMap::new();
        for pod in cluster.workloads.values() {
            pods.entry(&pod.name.namespace).or_default().push(&pod.labels);
        }
        for (namespace, labels) in &templates.0 {
            pods.entry(namespace).or_default().push(labels);
        }
        // Selectors of policies hold for virtual machines as well.
        for entry in cluster.workload_entries.values() {
            pods.entry(&entry.name.namespace).or_default().push(&entry.endpoint.labels);
        }
        Self(pods)
    }

    /// Whether nothing in `namespace` (anywhere, if none is given) has these labels; never where nothing
    /// of it is known.
    fn lack(&self, namespace: Option<&str>, selector: &Labels) -> bool {
        let of = |pods: &[&Labels]| pods.iter().any(|labels| is_part(selector, labels));
        match namespace {
            Some(namespace) => self.0.get(namespace).is_some_and(|pods| !of(pods)),
            None => !self.0.is_empty() && !self.0.values().any(|pods| of(pods)),
        }
    }
}

fn is_part(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn written(selector: &Labels) -> String {
    let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

/// Policies that are about no pod.
fn selectors(cluster: &Cluster, pods: &Pods<'_>, found: &mut Vec<Diagnostic>) {
    let peers = cluster.peer_authentications.values();
    let tokens = cluster.request_authentications.values();
    let access = cluster.authorization_policies.values();
    let limits = cluster.rate_limits.values();
    let rules = cluster.destination_rules.values();
    let all = peers
        .map(|one| (&one.origin, &one.selector))
        .chain(tokens.map(|one| (&one.origin, &one.selector)))
        .chain(access.map(|one| (&one.origin, &one.selector)))
        .chain(limits.map(|one| (&one.origin, &one.selector)))
        .chain(rules.map(|one| (&one.origin, &one.selector)));
    for (origin, selector) in all.filter(|(_, selector)| !selector.is_empty()) {
        // A policy of the root namespace is about pods of all.
        let anywhere = !pods.0.contains_key(origin.namespace.as_str());
        let namespace = (!anywhere).then_some(origin.namespace.as_str());
        if pods.lack(namespace, selector) {
            let message = format!("selects no pod: none has {}", written(selector));
            let remedy = "correct the selector, or the labels of the pods";
            found.push(warning("selects-nothing", origin, message, remedy));
        }
    }
}

/// Services without pods, and ports that say two things.
fn services(cluster: &Cluster, pods: &Pods<'_>, found: &mut Vec<Diagnostic>) {
    for service in cluster.services.values() {
        let namespace = Some(service.name.namespace.as_str());
        if !service.selector.is_empty() && pods.lack(namespace, &service.selector) {
            let message = format!("selects no pod: none has {}", written(&service.selector));
            let remedy = "correct the selector, or the labels of the pods";
            found.push(warning("service-without-pods", &service.origin, message, remedy));
        }
        for port in &service.ports {
            contradiction(service, port, found);
        }
    }
}

/// A port's name that says another protocol than its `appProtocol`, which is the one that counts.
fn contradiction(service: &Service, port: &ServicePort, found: &mut Vec<Diagnostic>) {
    let Some(said) = port.app_protocol.as_deref() else { return };
    let said = said.rsplit('/').next().unwrap_or(said).to_ascii_lowercase();
    let name = port.name.split('-').next().unwrap_or_default();
    let of = |word: &str| match word {
        word if REQUESTS.contains(&word) || word == "h2c" => Some(true),
        word if OPAQUE.contains(&word) => Some(false),
        _ => None,
    };
    if let (Some(by_name), Some(by_field)) = (of(name), of(&said))
        && by_name != by_field
    {
        let message = format!(
            "port {} is named {:?}, and its appProtocol {said:?} says otherwise and counts",
            port.port, port.name
        );
        let remedy = "correct the port's name, or its appProtocol";
        found.push(warning("port-name-against-protocol", &service.origin, message, remedy));
    }
}

/// Subsets that no endpoint is in: requests for them are refused.
fn subsets(cluster: &Cluster, pods: &Pods<'_>, found: &mut Vec<Diagnostic>) {
    for rule in cluster.destination_rules.values() {
        let Some(service) = service_of(cluster, rule) else { continue };
        for subset in rule.subsets.iter().filter(|_| !service.selector.is_empty()) {
            let mut wanted = service.selector.clone();
            wanted.extend(subset.labels.clone());
            let namespace = service.name.namespace.as_str();
            // Two values of one label: nothing can have both.
            let excluded = wanted.len() < service.selector.len() + subset.labels.len()
                && !is_part(&service.selector, &wanted);
            if excluded || pods.lack(Some(namespace), &wanted) {
                let message = format!(
                    "subset {:?} has no pod: none of Service {} has {}",
                    subset.name,
                    service.name,
                    written(&subset.labels)
                );
                let remedy = "correct the subset's labels, or start the pods";
                found.push(warning("subset-without-pods", &rule.origin, message, remedy));
            }
        }
    }
}

fn service_of<'a>(cluster: &'a Cluster, rule: &DestinationRule) -> Option<&'a Service> {
    let (name, rest) = rule.host.split_once('.')?;
    let (namespace, _) = rest.split_once(".svc")?;
    cluster.services.get(&NamespacedName::new(namespace, name))
}

/// STRICT beside pods that are not in the mesh: these reach nobody whom it is about.
fn strict(cluster: &Cluster, found: &mut Vec<Diagnostic>) {
    let outside =
        |pod: &&Workload| !pod.enrolment.is_enrolled() && !pod.host_network && !pod.terminated;
    for policy in cluster.peer_authentications.values() {
        let says = |mode: &Option<MtlsMode>| *mode == Some(MtlsMode::Strict);
        if !says(&policy.mode) && !policy.ports.values().any(says) {
            continue;
        }
        let of_namespace =
            |pod: &&Workload| pod.name.namespace == policy.name.namespace && outside(pod);
        let mut all = cluster.workloads.values().filter(of_namespace).map(|pod| &pod.origin);
        let named: Vec<&ResourceRef> = all.by_ref().take(NAMED).collect();
        if named.is_empty() {
            continue;
        }
        let more = match all.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named: Vec<String> = named.iter().map(ToString::to_string).collect();
        let message = format!(
            "is STRICT, and {}{more} of its namespace are not in the mesh: their connections are refused",
            named.join(", ")
        );
        let remedy = "enrol them with the label istio.io/dataplane-mode: ambient, or say PERMISSIVE until they are";
        found.push(warning("strict-beside-unmeshed", &policy.origin, message, remedy));
    }
}

/// A NetworkPolicy that keeps out what carries the connections that it lets in.
pub(super) fn blocked(tunnel: &BlockedTunnel) -> Diagnostic {
    let remedy = format!("allow TCP port {TUNNEL_PORT} between the nodes' pods as well");
    Diagnostic {
        severity: Severity::Warning,
        code: "network-policy-blocks-tunnel",
        object: tunnel.policies.first().cloned(),
        position: None,
        message: format!("{tunnel}, over which the mesh carries them"),
        remedy,
    }
}
