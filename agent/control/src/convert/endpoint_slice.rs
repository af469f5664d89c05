//! EndpointSlice.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use undermesh_model::{self as model, EndpointPort, NamespacedName};

use super::{address, port, protocol};
use crate::{
    objects::Placed,
    report::{Report, Subject},
};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Reads an EndpointSlice; `None` where it belongs to no service.
pub(crate) fn endpoint_slice(
    slice: &EndpointSlice,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<model::EndpointSlice>> {
    let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME))
    else {
        let message = format!("has no label {SERVICE_NAME}, so it belongs to no Service");
        let path = ["metadata", "labels"];
        report.warning(subject, &path, "endpoints-without-service", message, "set the label");
        return None;
    };
    if slice.address_type == "FQDN" {
        let message = "addressType FQDN is not read by this version";
        let code = "unread-address-type";
        report.warning(subject, &["addressType"], code, message, "it has no effect");
        return None;
    }
    let mut endpoints = Vec::new();
    for (index, declared) in slice.endpoints.iter().enumerate() {
        endpoints.extend(endpoint(declared, index, subject, report));
    }
    let slice = model::EndpointSlice {
        origin: subject.origin.clone(),
        service: NamespacedName::new(&subject.origin.namespace, service),
        ports: ports(slice, subject, report),
        endpoints,
    };
    Some(Placed::new(slice, subject))
}

fn ports(slice: &EndpointSlice, subject: &Subject<'_>, report: &mut Report) -> Vec<EndpointPort> {
    let mut ports = Vec::new();
    for (index, declared) in slice.ports.iter().flatten().enumerate() {
        let index = index.to_string();
        let Some(number) = declared.port else {
            let message = "a port without a number means all ports, which this version cannot lead";
            let path = ["ports", &index];
            report.warning(subject, &path, "unread-port", message, "write its number");
            continue;
        };
        let number = port(number, &["ports", &index, "port"], subject, report);
        let path = ["ports", &index, "protocol"];
        let protocol = protocol(declared.protocol.as_deref(), &path, subject, report);
        if let (Some(port), Some(protocol)) = (number, protocol) {
            let name = declared.name.clone().unwrap_or_default();
            ports.push(EndpointPort { name, port, protocol });
        }
    }
    ports
}

/// Unset conditions mean ready, serving and not terminating (Kubernetes, `EndpointConditions`).
fn endpoint(
    declared: &Endpoint,
    index: usize,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Vec<model::Endpoint> {
    let conditions = declared.conditions.clone().unwrap_or_default();
    let terminating = conditions.terminating.unwrap_or(false);
    let ready = conditions.ready.unwrap_or(true) && !terminating;
    let draining = terminating && conditions.serving.unwrap_or(true);
    let target = declared.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod")).and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(&subject.origin.namespace);
        Some(NamespacedName::new(namespace, target.name.clone()?))
    });
    let index = index.to_string();
    let mut endpoints = Vec::new();
    for (position, text) in declared.addresses.iter().enumerate() {
        let path = ["endpoints", &index, "addresses", &position.to_string()];
        endpoints.extend(address(text, &path, subject, report).map(|address| model::Endpoint {
            address,
            ready,
            draining,
            pod: pod.clone(),
            node: declared.node_name.clone(),
        }));
    }
    endpoints
}
