//! Service.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort as KubePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use undermesh_model::{
    self as model, Distribution, ExternalName, NamespacedName, ServicePort, TargetPort,
};

use super::{address, port, protocol};
use crate::{
    names,
    objects::Placed,
    report::{Report, Subject},
};

/// The proxy looks at connections to the Service.
const L7: &str = "undermesh.io/l7";
/// A Service that nothing gives an address: no API server does it here.
pub(crate) const SERVICE_WITHOUT_ADDRESS: &str = "service-without-address";

/// What a Service is to the mesh.
#[derive(Clone, Debug)]
pub(crate) enum ServiceRecord {
    Service(model::Service),
    /// Another name for a host elsewhere.
    External(ExternalName),
}

/// Reads a Service.
pub(crate) fn service(
    service: &Service,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Placed<ServiceRecord> {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let external = external_name(&spec, subject, report);
        return Placed::new(ServiceRecord::External(external), subject);
    }
    let (cluster_ips, headless) = cluster_ips(&spec, subject, report);
    if cluster_ips.is_empty() && !headless {
        report.warning(
            subject,
            &["spec"],
            SERVICE_WITHOUT_ADDRESS,
            "has no clusterIP, and nothing assigns one here",
            "set spec.clusterIP to an address, or to None",
        );
    }
    let service = model::Service {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        cluster_ips,
        headless,
        ports: ports(&spec, subject, report),
        selector: spec.selector.clone().unwrap_or_default(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        affinity: affinity(&spec, subject, report),
        distribution: distribution(&spec, subject, report),
        l7: l7(service, subject, report),
    };
    Placed::new(ServiceRecord::Service(service), subject)
}

fn external_name(spec: &ServiceSpec, subject: &Subject<'_>, report: &mut Report) -> ExternalName {
    let text = spec.external_name.as_deref().unwrap_or_default();
    let host = text.trim_end_matches('.').to_ascii_lowercase();
    if !names::is_host(&host) {
        let message = format!("externalName {text:?} is no DNS name");
        let remedy = "write the full name of a host";
        let path = ["spec", "externalName"];
        report.error(subject, &path, "invalid-external-name", message, remedy);
    }
    ExternalName {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        host,
        ports: ports(spec, subject, report),
    }
}

fn l7(service: &Service, subject: &Subject<'_>, report: &mut Report) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    match annotations.and_then(|all| all.get(L7)).map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let message = format!("annotation {L7} is {other:?}, which means nothing");
            let path = ["metadata", "annotations", L7];
            let remedy = "write \"true\" or \"false\"";
            report.error(subject, &path, "unknown-annotation-value", message, remedy);
            false
        }
    }
}

fn affinity(spec: &ServiceSpec, subject: &Subject<'_>, report: &mut Report) -> bool {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => false,
        Some("ClientIP") => true,
        Some(other) => {
            let message = format!("sessionAffinity {other:?} does not exist");
            let path = ["spec", "sessionAffinity"];
            report.error(subject, &path, "unknown-value", message, "write None or ClientIP");
            false
        }
    }
}

/// `internalTrafficPolicy: Local` is strict and beats `trafficDistribution`, as in Kubernetes.
fn distribution(spec: &ServiceSpec, subject: &Subject<'_>, report: &mut Report) -> Distribution {
    match spec.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => {}
        Some("Local") => return Distribution::OnlySameNode,
        Some(other) => {
            let message = format!("internalTrafficPolicy {other:?} does not exist");
            let path = ["spec", "internalTrafficPolicy"];
            report.error(subject, &path, "unknown-value", message, "write Cluster or Local");
        }
    }
    match spec.traffic_distribution.as_deref() {
        None | Some("") => Distribution::Anywhere,
        Some("PreferClose" | "PreferSameZone") => Distribution::PreferSameZone,
        Some("PreferSameNode") => Distribution::PreferSameNode,
        Some(other) => {
            let message = format!("trafficDistribution {other:?} is not known; it has no effect");
            let remedy = "write PreferSameZone, PreferSameNode or PreferClose";
            let path = ["spec", "trafficDistribution"];
            report.warning(subject, &path, "unknown-value", message, remedy);
            Distribution::Anywhere
        }
    }
}

/// `clusterIP` repeats the first of `clusterIPs`.
fn cluster_ips(
    spec: &ServiceSpec,
    subject: &Subject<'_>,
    report: &mut Report,
) -> (Vec<IpAddr>, bool) {
    let listed = spec.cluster_ips.iter().flatten().enumerate();
    let listed = listed.map(|(index, ip)| (Some(index.to_string()), ip.as_str()));
    let single = spec.cluster_ip.iter().map(|ip| (None, ip.as_str()));
    let mut found = Vec::new();
    for (index, text) in listed.chain(single).filter(|(_, text)| !text.is_empty()) {
        if text == "None" {
            return (Vec::new(), true);
        }
        let path = match &index {
            Some(index) => &["spec", "clusterIPs", index][..],
            None => &["spec", "clusterIP"],
        };
        match address(text, path, subject, report) {
            Some(parsed) if !found.contains(&parsed) => found.push(parsed),
            _ => {}
        }
    }
    (found, false)
}

fn ports(spec: &ServiceSpec, subject: &Subject<'_>, report: &mut Report) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, declared) in spec.ports.iter().flatten().enumerate() {
        let index = index.to_string();
        let Some(read) = service_port(declared, &index, subject, report) else { continue };
        let path = ["spec", "ports", &index];
        if ports.iter().any(|other| other.name == read.name) {
            let message = format!("two ports are named {:?}", read.name);
            let remedy = "give every port a name of its own";
            report.error(subject, &path, "duplicate-port-name", message, remedy);
        }
        let same = |other: &ServicePort| {
            (other.port, other.protocol) == (read.port, read.protocol) && other.name != read.name
        };
        if ports.iter().any(same) {
            let message = format!("two ports have the number {}", read.port);
            let remedy = "give every port of a protocol a number of its own";
            report.error(subject, &path, "duplicate-port", message, remedy);
        }
        ports.push(read);
    }
    ports
}

fn service_port(
    declared: &KubePort,
    index: &str,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<ServicePort> {
    let number = port(declared.port, &["spec", "ports", index, "port"], subject, report);
    let path = ["spec", "ports", index, "protocol"];
    let protocol = protocol(declared.protocol.as_deref(), &path, subject, report);
    let path = ["spec", "ports", index, "targetPort"];
    let target_port = match &declared.target_port {
        // What Kubernetes' defaults make of an unset port.
        None | Some(IntOrString::Int(0)) => number.map(TargetPort::Number),
        Some(IntOrString::String(name)) if name.is_empty() => number.map(TargetPort::Number),
        Some(IntOrString::Int(target)) => {
            port(*target, &path, subject, report).map(TargetPort::Number)
        }
        Some(IntOrString::String(name)) => match name.parse() {
            Ok(target) => port(target, &path, subject, report).map(TargetPort::Number),
            Err(_) => Some(TargetPort::Name(name.clone())),
        },
    };
    Some(ServicePort {
        name: declared.name.clone().unwrap_or_default(),
        port: number?,
        target_port: target_port?,
        protocol: protocol?,
        app_protocol: declared.app_protocol.clone(),
    })
}
