//! Service.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{Service, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use undermesh_model::{self as model, Distribution, NamespacedName, ServicePort, TargetPort};

use super::{address, port, protocol};
use crate::{
    objects::Placed,
    report::{Report, Subject},
};

/// Reads a Service; `None` for kinds of Service that have no endpoints.
pub(crate) fn service(placed: &Placed<Service>, report: &mut Report) -> Option<model::Service> {
    let subject = placed.subject();
    let spec = placed.object.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let message = "type ExternalName is not read by this version";
        report.warning(&subject, "unread-service-type", message, "it has no effect");
        return None;
    }
    let (cluster_ips, headless) = cluster_ips(&spec, &subject, report);
    if cluster_ips.is_empty() && !headless {
        report.warning(
            &subject,
            "service-without-address",
            "has no clusterIP, and nothing assigns one here",
            "set spec.clusterIP to an address, or to None",
        );
    }
    Some(model::Service {
        origin: placed.origin.clone(),
        name: NamespacedName::new(&placed.origin.namespace, &placed.origin.name),
        cluster_ips,
        headless,
        ports: ports(&spec, &subject, report),
        selector: spec.selector.clone().unwrap_or_default(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        affinity: affinity(&spec, &subject, report),
        distribution: distribution(&spec, &subject, report),
    })
}

fn affinity(spec: &ServiceSpec, subject: &Subject, report: &mut Report) -> bool {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => false,
        Some("ClientIP") => true,
        Some(other) => {
            let message = format!("sessionAffinity {other:?} does not exist");
            report.error(subject, "unknown-value", message, "write None or ClientIP");
            false
        }
    }
}

/// `internalTrafficPolicy: Local` is strict and beats `trafficDistribution`, as in Kubernetes.
fn distribution(spec: &ServiceSpec, subject: &Subject, report: &mut Report) -> Distribution {
    match spec.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => {}
        Some("Local") => return Distribution::OnlySameNode,
        Some(other) => {
            let message = format!("internalTrafficPolicy {other:?} does not exist");
            report.error(subject, "unknown-value", message, "write Cluster or Local");
        }
    }
    match spec.traffic_distribution.as_deref() {
        None | Some("") => Distribution::Anywhere,
        Some("PreferClose" | "PreferSameZone") => Distribution::PreferSameZone,
        Some("PreferSameNode") => Distribution::PreferSameNode,
        Some(other) => {
            let message = format!("trafficDistribution {other:?} is not known; it has no effect");
            let remedy = "write PreferSameZone, PreferSameNode or PreferClose";
            report.warning(subject, "unknown-value", message, remedy);
            Distribution::Anywhere
        }
    }
}

fn cluster_ips(spec: &ServiceSpec, subject: &Subject, report: &mut Report) -> (Vec<IpAddr>, bool) {
    let listed = spec.cluster_ips.iter().flatten().map(String::as_str);
    let mut found = Vec::new();
    for text in listed.chain(spec.cluster_ip.as_deref()).filter(|text| !text.is_empty()) {
        if text == "None" {
            return (Vec::new(), true);
        }
        match address(text, "clusterIP", subject, report) {
            Some(parsed) if !found.contains(&parsed) => found.push(parsed),
            _ => {}
        }
    }
    (found, false)
}

fn ports(spec: &ServiceSpec, subject: &Subject, report: &mut Report) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for declared in spec.ports.iter().flatten() {
        let (Some(number), Some(protocol)) = (
            port(declared.port, "port", subject, report),
            protocol(declared.protocol.as_deref(), subject, report),
        ) else {
            continue;
        };
        let target_port = match &declared.target_port {
            None => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => match port(*target, "targetPort", subject, report) {
                Some(target) => TargetPort::Number(target),
                None => continue,
            },
            Some(IntOrString::String(name)) => {
                name.parse().map_or_else(|_| TargetPort::Name(name.clone()), TargetPort::Number)
            }
        };
        let name = declared.name.clone().unwrap_or_default();
        if ports.iter().any(|other| other.name == name) {
            let message = format!("two ports are named {name:?}");
            report.error(
                subject,
                "duplicate-port-name",
                message,
                "give every port a name of its own",
            );
        }
        let app_protocol = declared.app_protocol.clone();
        ports.push(ServicePort { name, port: number, target_port, protocol, app_protocol });
    }
    ports
}
