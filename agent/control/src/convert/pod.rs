//! Pod.

mod probes;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Component, Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use undermesh_model::{
    Enrolment, FailMode, NamespacedName, PodLocation, Protocol, SourceAddress, Wire, Workload,
};

use super::{address, port, protocol};
use crate::{
    enrolment::{self, Choice},
    names,
    objects::Placed,
    report::{Report, Subject},
};

const NETNS: &str = "undermesh.io/netns";
const CGROUP: &str = "undermesh.io/cgroup";
const WIRE: &str = "undermesh.io/wire";
const OUTBOUND_FAILURE: &str = "undermesh.io/outbound-failure";
const SOURCE_ADDRESS: &str = "undermesh.io/source-address";
/// On the API server's copy of a static pod: the hash that is its uid on the node.
const MIRROR: &str = "kubernetes.io/config.mirror";
const PRIORITY: &str = "undermesh.io/priority";
const WEIGHT: &str = "undermesh.io/weight";
/// Largest weight.
const MAX_WEIGHT: u32 = 1_000;

/// A pod, and what others need of it that the model does not keep.
#[derive(Clone, Debug)]
pub(crate) struct PodRecord {
    pub(crate) workload: Workload,
    /// What its own labels choose.
    pub(crate) choice: Option<Choice>,
    /// Ports of all containers that run as long as the pod.
    pub(crate) ports: Vec<ContainerPort>,
    /// Takes new connections.
    pub(crate) ready: bool,
    /// Is being deleted, and still answers.
    pub(crate) draining: bool,
    /// The class of what runs its containers.
    pub(crate) runtime_class: Option<String>,
    /// The hash under which the kubelet runs it, for a pod that a file on its node describes.
    pub(crate) static_pod: Option<String>,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerPort {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
}

/// Reads a Pod. Its enrolment is decided later, when its namespace is known.
pub(crate) fn pod(pod: &Pod, subject: &Subject<'_>, report: &mut Report) -> Placed<PodRecord> {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let name = NamespacedName::new(&subject.origin.namespace, &subject.origin.name);
    let terminated = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let labels = metadata.labels.clone().unwrap_or_default();
    let choice = enrolment::choice(&labels, subject, report);
    check_priority(&labels, subject, report);
    let workload = Workload {
        origin: subject.origin.clone(),
        service_account: service_account(&spec, subject, report),
        node: spec.node_name.clone().filter(|node| !node.is_empty()),
        addresses: addresses(&status, subject, report),
        labels,
        enrolment: Enrolment::NotEnrolled(String::new()),
        location: location(pod, subject, report),
        outbound_failure: outbound_failure(pod, subject, report),
        source_address: source_address(pod, subject, report),
        weight: weight(pod, subject, report),
        probe_ports: probes::ports(&spec),
        wire: wire(pod, subject, report),
        host_network: spec.host_network.unwrap_or(false),
        terminated,
        workload_name: owner(pod).unwrap_or_else(|| name.name.clone()),
        name,
    };
    let deleted = metadata.deletion_timestamp.is_some();
    let serving = is_ready(&status) && !terminated;
    let record = PodRecord {
        workload,
        choice,
        ports: ports(&spec, subject, report),
        ready: serving && !deleted,
        draining: serving && deleted,
        runtime_class: spec.runtime_class_name.clone().filter(|name| !name.is_empty()),
        static_pod: static_pod(pod),
    };
    Placed::new(record, subject)
}

/// The label is read where load is shed; a value that means nothing is a normal priority.
fn check_priority(labels: &BTreeMap<String, String>, subject: &Subject<'_>, report: &mut Report) {
    let Some(value) = labels.get(PRIORITY) else { return };
    if !["low", "normal", "high"].contains(&value.as_str()) {
        let message = format!("label {PRIORITY} is {value:?}, which means nothing");
        let path = ["metadata", "labels", PRIORITY];
        let remedy = "write \"low\", \"normal\" or \"high\"";
        report.warning(subject, &path, "unknown-label-value", message, remedy);
    }
}

/// The account's name becomes part of an identity.
fn service_account(spec: &PodSpec, subject: &Subject<'_>, report: &mut Report) -> String {
    match spec.service_account_name.as_deref() {
        None | Some("") => "default".to_owned(),
        Some(name) => {
            if !names::is_subdomain(name) {
                let message = format!("spec.serviceAccountName {name:?} is no valid name");
                let path = ["spec", "serviceAccountName"];
                let remedy = "use lower-case letters, digits, '-' and '.'";
                report.error(subject, &path, "invalid-name", message, remedy);
            }
            name.to_owned()
        }
    }
}

/// `podIP` repeats the first of `podIPs`.
fn addresses(status: &PodStatus, subject: &Subject<'_>, report: &mut Report) -> Vec<IpAddr> {
    let listed = status.pod_ips.iter().flatten().enumerate();
    let listed = listed.map(|(index, entry)| (Some(index.to_string()), entry.ip.as_str()));
    let single = status.pod_ip.iter().map(|ip| (None, ip.as_str()));
    let mut found: Vec<IpAddr> = Vec::new();
    for (index, text) in listed.chain(single).filter(|(_, text)| !text.is_empty()) {
        let path = match &index {
            Some(index) => &["status", "podIPs", index, "ip"][..],
            None => &["status", "podIP"],
        };
        let Some(parsed) = address(text, path, subject, report) else { continue };
        if found.contains(&parsed) {
            continue;
        }
        if found.iter().any(|other| other.is_ipv4() == parsed.is_ipv4()) {
            let message = format!("its status has a second address of a family, {parsed}");
            report.error(subject, path, "invalid-address", message, "keep one of each family");
        }
        found.push(parsed);
    }
    found
}

/// The API server's copy of a static pod belongs to the node (Kubernetes, `CreateMirrorPod`).
fn static_pod(pod: &Pod) -> Option<String> {
    let hash = pod.metadata.annotations.as_ref()?.get(MIRROR)?;
    let node = pod.spec.as_ref()?.node_name.as_ref()?;
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.kind == "Node" && owner.name == *node).then(|| hash.clone())
}

fn location(pod: &Pod, subject: &Subject<'_>, report: &mut Report) -> Option<PodLocation> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let mut wrong = |annotation: &str, message: String, remedy: &str| {
        let path = ["metadata", "annotations", annotation];
        report.error(subject, &path, "invalid-location", message, remedy);
        None
    };
    match (annotations.get(NETNS), annotations.get(CGROUP)) {
        (Some(_), Some(_)) => {
            let message = format!("annotations {NETNS} and {CGROUP} are both set");
            wrong(CGROUP, message, "keep one of them")
        }
        (Some(path), None) if !Path::new(path).is_absolute() || !goes_down(path) => {
            let message = format!("annotation {NETNS} is {path:?}, which is no absolute path");
            wrong(NETNS, message, "write /run/netns/NAME")
        }
        (Some(path), None) => Some(PodLocation::Netns(PathBuf::from(path))),
        (None, Some(path)) if path.is_empty() || !goes_down(path) => {
            let message = format!("annotation {CGROUP} is {path:?}, which is no cgroup");
            wrong(CGROUP, message, "write a path below the cgroup2 mount")
        }
        (None, Some(path)) => Some(PodLocation::Cgroup(PathBuf::from(path))),
        (None, None) => None,
    }
}

/// Whether a path can be opened and never turns back.
fn goes_down(path: &str) -> bool {
    !path.contains('\0') && !Path::new(path).components().any(|part| part == Component::ParentDir)
}

fn outbound_failure(pod: &Pod, subject: &Subject<'_>, report: &mut Report) -> Option<FailMode> {
    let modes = [("open", FailMode::Open), ("closed", FailMode::Closed)];
    one_of(pod, OUTBOUND_FAILURE, modes, subject, report)
}

fn source_address(pod: &Pod, subject: &Subject<'_>, report: &mut Report) -> Option<SourceAddress> {
    let modes =
        [("translated", SourceAddress::Translated), ("transparent", SourceAddress::Transparent)];
    one_of(pod, SOURCE_ADDRESS, modes, subject, report)
}

/// An annotation that has one of two values; others are reported and mean nothing.
fn one_of<T: Copy>(
    pod: &Pod,
    annotation: &str,
    values: [(&str, T); 2],
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<T> {
    let text = pod.metadata.annotations.as_ref()?.get(annotation)?;
    let found = values.iter().find(|(name, _)| name == text);
    if found.is_none() {
        let message = format!("annotation {annotation} is {text:?}, which means nothing");
        let path = ["metadata", "annotations", annotation];
        let remedy = format!("write {:?} or {:?}", values[0].0, values[1].0);
        report.error(subject, &path, "unknown-annotation-value", message, &remedy);
    }
    found.map(|(_, value)| *value)
}

fn weight(pod: &Pod, subject: &Subject<'_>, report: &mut Report) -> u32 {
    let annotations = pod.metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(WEIGHT)) else { return 1 };
    match text.parse() {
        Ok(weight @ 1..=MAX_WEIGHT) => weight,
        _ => {
            let message = format!("annotation {WEIGHT} is {text:?}, which is no weight");
            let path = ["metadata", "annotations", WEIGHT];
            let remedy = "write a number from 1 to 1000, in quotes";
            report.error(subject, &path, "unknown-annotation-value", message, remedy);
            1
        }
    }
}

fn wire(pod: &Pod, subject: &Subject<'_>, report: &mut Report) -> Wire {
    let wires = [("native", Wire::Native), ("hbone", Wire::Hbone)];
    one_of(pod, WIRE, wires, subject, report).unwrap_or_default()
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

fn ports(spec: &PodSpec, subject: &Subject<'_>, report: &mut Report) -> Vec<ContainerPort> {
    let mut found = Vec::new();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    for (field, containers) in
        [("containers", spec.containers.as_slice()), ("initContainers", init)]
    {
        for (at, container) in containers.iter().enumerate() {
            if field == "containers" || is_sidecar(container) {
                container_ports(container, (field, at), &mut found, subject, report);
            }
        }
    }
    found
}

/// An init container that keeps running; its ports count (Kubernetes, `FindPort`).
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn container_ports(
    container: &Container,
    (field, at): (&str, usize),
    found: &mut Vec<ContainerPort>,
    subject: &Subject<'_>,
    report: &mut Report,
) {
    let at = at.to_string();
    for (index, declared) in container.ports.iter().flatten().enumerate() {
        let index = index.to_string();
        let path = ["spec", field, &at, "ports", &index, "containerPort"];
        let number = port(declared.container_port, &path, subject, report);
        let path = ["spec", field, &at, "ports", &index, "protocol"];
        let protocol = protocol(declared.protocol.as_deref(), &path, subject, report);
        if let (Some(number), Some(protocol)) = (number, protocol) {
            let name = declared.name.clone().unwrap_or_default();
            found.push(ContainerPort { name, number, protocol });
        }
    }
}
