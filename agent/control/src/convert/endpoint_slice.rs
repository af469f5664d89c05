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
    placed: &Placed<EndpointSlice>,
    report: &mut Report,
) -> Option<model::EndpointSlice> {
    let subject = placed.subject();
    let slice = &placed.object;
    let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME))
    else {
        let message = format!("has no label {SERVICE_NAME}, so it belongs to no Service");
        report.warning(&subject, "endpoints-without-service", message, "set the label");
        return None;
    };
    if slice.address_type == "FQDN" {
        let message = "addressType FQDN is not read by this version";
        report.warning(&subject, "unread-address-type", message, "it has no effect");
        return None;
    }
    let ports = slice.ports.iter().flatten().filter_map(|declared| {
        Some(EndpointPort {
            name: declared.name.clone().unwrap_or_default(),
            port: port(declared.port?, "ports.port", &subject, report)?,
            protocol: protocol(declared.protocol.as_deref(), &subject, report)?,
        })
    });
    let ports = ports.collect();
    let mut endpoints = Vec::new();
    for declared in &slice.endpoints {
        endpoints.extend(endpoint(declared, &placed.origin.namespace, &subject, report));
    }
    Some(model::EndpointSlice {
        origin: placed.origin.clone(),
        service: NamespacedName::new(&placed.origin.namespace, service),
        ports,
        endpoints,
    })
}

fn endpoint(
    declared: &Endpoint,
    namespace: &str,
    subject: &Subject,
    report: &mut Report,
) -> Vec<model::Endpoint> {
    let conditions = declared.conditions.clone().unwrap_or_default();
    let terminating = conditions.terminating.unwrap_or(false);
    let ready = conditions.ready.unwrap_or(true) && !terminating;
    let draining = terminating && conditions.serving.unwrap_or(true);
    let target = declared.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod")).and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(namespace);
        Some(NamespacedName::new(namespace, target.name.clone()?))
    });
    let addresses = declared.addresses.iter();
    addresses
        .filter_map(|text| address(text, "endpoints.addresses", subject, report))
        .map(|address| model::Endpoint {
            address,
            ready,
            draining,
            pod: pod.clone(),
            node: declared.node_name.clone(),
        })
        .collect()
}
