//! Pod.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use undermesh_model::{Enrolment, FailMode, NamespacedName, PodLocation, Protocol, Workload};

use super::{address, port, protocol};
use crate::{
    objects::Placed,
    report::{Report, Subject},
};

const NETNS: &str = "undermesh.io/netns";
const CGROUP: &str = "undermesh.io/cgroup";
const OUTBOUND_FAILURE: &str = "undermesh.io/outbound-failure";

/// A pod, and what only the derivation of endpoints needs of it.
#[derive(Clone, Debug)]
pub(crate) struct PodRecord {
    pub(crate) workload: Workload,
    /// Ports of all containers: name, number, protocol.
    pub(crate) ports: Vec<(String, u16, Protocol)>,
    /// Takes new connections.
    pub(crate) ready: bool,
    /// Is being deleted, and still answers.
    pub(crate) draining: bool,
}

/// Reads a Pod. Its enrolment is decided later, when its namespace is known.
pub(crate) fn pod(placed: &Placed<Pod>, report: &mut Report) -> PodRecord {
    let subject = placed.subject();
    let metadata = &placed.object.metadata;
    let spec = placed.object.spec.clone().unwrap_or_default();
    let status = placed.object.status.clone().unwrap_or_default();
    let name = NamespacedName::new(&placed.origin.namespace, &placed.origin.name);
    let phase = status.phase.as_deref().unwrap_or_default();
    let terminated = matches!(phase, "Succeeded" | "Failed");
    let workload = Workload {
        origin: placed.origin.clone(),
        service_account: spec
            .service_account_name
            .clone()
            .filter(|account| !account.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        node: spec.node_name.clone().filter(|node| !node.is_empty()),
        addresses: addresses(&status, &subject, report),
        labels: metadata.labels.clone().unwrap_or_default(),
        enrolment: Enrolment::NotEnrolled(String::new()),
        location: location(placed, &subject, report),
        outbound_failure: outbound_failure(placed, &subject, report),
        host_network: spec.host_network.unwrap_or(false),
        terminated,
        workload_name: owner(&placed.object).unwrap_or_else(|| name.name.clone()),
        name,
    };
    let deleted = metadata.deletion_timestamp.is_some();
    let serving = is_ready(&status) && !terminated;
    PodRecord {
        workload,
        ports: ports(&spec, &subject, report),
        ready: serving && !deleted,
        draining: serving && deleted,
    }
}

fn addresses(status: &PodStatus, subject: &Subject, report: &mut Report) -> Vec<IpAddr> {
    let listed = status.pod_ips.iter().flatten().map(|entry| entry.ip.as_str());
    let mut found: Vec<IpAddr> = Vec::new();
    for text in listed.chain(status.pod_ip.as_deref()).filter(|text| !text.is_empty()) {
        let Some(parsed) = address(text, "status.podIPs", subject, report) else { continue };
        if found.contains(&parsed) {
            continue;
        }
        if found.iter().any(|other| other.is_ipv4() == parsed.is_ipv4()) {
            let message = format!("status.podIPs has a second address of a family, {parsed}");
            report.error(subject, "invalid-address", message, "keep one of each family");
        }
        found.push(parsed);
    }
    found
}

fn location(placed: &Placed<Pod>, subject: &Subject, report: &mut Report) -> Option<PodLocation> {
    let annotations = placed.object.metadata.annotations.as_ref()?;
    match (annotations.get(NETNS), annotations.get(CGROUP)) {
        (Some(_), Some(_)) => {
            let message = format!("annotations {NETNS} and {CGROUP} are both set");
            report.error(subject, "invalid-location", message, "keep one of them");
            None
        }
        (Some(path), None) if !Path::new(path).is_absolute() => {
            let message = format!("annotation {NETNS} is {path:?}, which is no absolute path");
            report.error(subject, "invalid-location", message, "write /run/netns/NAME");
            None
        }
        (Some(path), None) => Some(PodLocation::Netns(PathBuf::from(path))),
        (None, Some(path)) if path.is_empty() || path.split('/').any(|part| part == "..") => {
            let message = format!("annotation {CGROUP} is {path:?}, which is no cgroup");
            report.error(
                subject,
                "invalid-location",
                message,
                "write a path below the cgroup2 mount",
            );
            None
        }
        (None, Some(path)) => Some(PodLocation::Cgroup(PathBuf::from(path))),
        (None, None) => None,
    }
}

fn outbound_failure(
    placed: &Placed<Pod>,
    subject: &Subject,
    report: &mut Report,
) -> Option<FailMode> {
    match placed.object.metadata.annotations.as_ref()?.get(OUTBOUND_FAILURE)?.as_str() {
        "open" => Some(FailMode::Open),
        "closed" => Some(FailMode::Closed),
        other => {
            let message =
                format!("annotation {OUTBOUND_FAILURE} is {other:?}, which means nothing");
            report.error(
                subject,
                "unknown-annotation-value",
                message,
                "write \"open\" or \"closed\"",
            );
            None
        }
    }
}

/// The controller's name; for a ReplicaSet that a Deployment has made, the Deployment's.
///
/// Source: Istio, `pkg/kube/controllers`, `GetDeployMetaFromPod`.
fn owner(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.as_ref()?;
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let hash = pod.metadata.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    let of_deployment = hash
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(of_deployment.unwrap_or(&owner.name).to_owned())
}

/// A pod without a Ready condition is ready: in a manifest nobody keeps conditions up to date.
fn is_ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions
        .find(|condition| condition.type_ == "Ready")
        .is_none_or(|ready| ready.status == "True")
}

fn ports(spec: &PodSpec, subject: &Subject, report: &mut Report) -> Vec<(String, u16, Protocol)> {
    let containers = spec.containers.iter();
    let declared = containers.flat_map(|container| container.ports.iter().flatten());
    declared
        .filter_map(|declared| {
            let number = port(declared.container_port, "containerPort", subject, report)?;
            let protocol = protocol(declared.protocol.as_deref(), subject, report)?;
            Some((declared.name.clone().unwrap_or_default(), number, protocol))
        })
        .collect()
}
