//! What NetworkPolicies allow, as Kubernetes defines it (API reference, NetworkPolicySpec). Pure.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use undermesh_model::{Cluster, Workload};

use super::{Direction, TUNNEL_PORT, read::Policy};

type Labels = BTreeMap<String, String>;

/// The label that every namespace has (Kubernetes 1.22).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What policies say about the connections from one pod to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The tunnel passes.
    TunnelAllowed,
    /// Some TCP port passes, and the tunnel's does not.
    TunnelBlocked,
    /// Nothing passes; that is meant so.
    Isolated,
}

/// The policies, and the labels of namespaces.
pub(super) struct Evaluator<'a> {
    policies: Vec<Policy>,
    cluster: &'a Cluster,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(policies: Vec<Policy>, cluster: &'a Cluster) -> Self {
        Self { policies, cluster }
    }

    /// The policies that isolate a pod in one direction.
    pub(super) fn selecting(&self, pod: &Workload, direction: Direction) -> Vec<&Policy> {
        let selects = |policy: &&Policy| {
            let all = LabelSelector::default();
            let selector = policy.spec.pod_selector.as_ref().unwrap_or(&all);
            policy.origin.namespace == pod.name.namespace
                && matches(selector, &pod.labels)
                && isolates(policy, direction)
        };
        self.policies.iter().filter(selects).collect()
    }

    /// What `policies`, which select `pod`, say about its connections from or to `peer`.
    pub(super) fn judge(
        &self,
        policies: &[&Policy],
        direction: Direction,
        pod: &Workload,
        peer: &Workload,
    ) -> Verdict {
        let mut verdict = Verdict::Isolated;
        for policy in policies {
            for (peers, ports) in rules(policy, direction) {
                let namespace = &pod.name.namespace;
                let is_meant = peers.is_none_or(|peers| {
                    peers.is_empty() || peers.iter().any(|one| self.is_peer(one, namespace, peer))
                });
                if !is_meant {
                    continue;
                }
                match ports_pass(ports) {
                    Verdict::TunnelAllowed => return Verdict::TunnelAllowed,
                    Verdict::TunnelBlocked => verdict = Verdict::TunnelBlocked,
                    Verdict::Isolated => {}
                }
            }
        }
        verdict
    }

    /// Whether a rule of a policy in `namespace` means this pod.
    fn is_peer(&self, rule: &NetworkPolicyPeer, namespace: &str, pod: &Workload) -> bool {
        if let Some(block) = &rule.ip_block {
            return pod.addresses.iter().any(|address| is_in(block, *address));
        }
        let in_namespace = match &rule.namespace_selector {
            Some(selector) => matches(selector, &self.labels_of(&pod.name.namespace)),
            None => pod.name.namespace == namespace,
        };
        in_namespace && rule.pod_selector.as_ref().is_none_or(|it| matches(it, &pod.labels))
    }

    fn labels_of(&self, namespace: &str) -> Labels {
        let known = self.cluster.namespaces.get(namespace);
        let mut labels = known.map(|known| known.labels.clone()).unwrap_or_default();
        labels.insert(NAME_LABEL.to_owned(), namespace.to_owned());
        labels
    }
}

/// Without `policyTypes`, a policy is about ingress, and about egress where it has rules for it.
fn isolates(policy: &Policy, direction: Direction) -> bool {
    let has_egress = policy.spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    let named = |name: &str| {
        let types = policy.spec.policy_types.as_ref().filter(|types| !types.is_empty());
        types.map(|types| types.iter().any(|one| one == name))
    };
    match direction {
        Direction::Ingress => named("Ingress").unwrap_or(true),
        Direction::Egress => named("Egress").unwrap_or(has_egress),
    }
}

type Rule<'a> = (Option<&'a Vec<NetworkPolicyPeer>>, Option<&'a Vec<NetworkPolicyPort>>);

fn rules(policy: &Policy, direction: Direction) -> Vec<Rule<'_>> {
    let spec = &policy.spec;
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|rule| (rule.from.as_ref(), rule.ports.as_ref())).collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules.map(|rule| (rule.to.as_ref(), rule.ports.as_ref())).collect()
        }
    }
}

/// What a rule's ports let pass; no list is every port.
fn ports_pass(ports: Option<&Vec<NetworkPolicyPort>>) -> Verdict {
    let Some(ports) = ports.filter(|ports| !ports.is_empty()) else {
        return Verdict::TunnelAllowed;
    };
    let mut tcp = ports
        .iter()
        .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
    if tcp.clone().any(holds_tunnel) {
        Verdict::TunnelAllowed
    } else if tcp.any(is_for_applications) {
        Verdict::TunnelBlocked
    } else {
        Verdict::Isolated
    }
}

/// A named port is one of the application's.
fn holds_tunnel(port: &NetworkPolicyPort) -> bool {
    let tunnel = i32::from(TUNNEL_PORT);
    match (&port.port, port.end_port) {
        (None, _) => true,
        (Some(IntOrString::Int(first)), None) => *first == tunnel,
        (Some(IntOrString::Int(first)), Some(last)) => (*first..=last).contains(&tunnel),
        (Some(IntOrString::String(_)), _) => false,
    }
}

/// DNS over TCP is not what the mesh carries between pods.
fn is_for_applications(port: &NetworkPolicyPort) -> bool {
    !matches!(&port.port, Some(IntOrString::Int(53)))
}

fn is_in(block: &IPBlock, address: IpAddr) -> bool {
    let holds = |cidr: &String| cidr.parse::<IpNet>().is_ok_and(|net| net.contains(&address));
    holds(&block.cidr) && !block.except.iter().flatten().any(holds)
}

/// An empty selector matches everything.
fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    selector.match_labels.iter().flatten().all(equal)
        && selector.match_expressions.iter().flatten().all(|it| fulfils(it, labels))
}

fn fulfils(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|v| v == value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}
