//! Node.

use k8s_openapi::api::core::v1::Node;
use undermesh_model as model;

use super::address;
use crate::{objects::Placed, report::Report};

/// Reads a Node's internal addresses and labels.
pub(crate) fn node(placed: &Placed<Node>, report: &mut Report) -> model::Node {
    let subject = placed.subject();
    let status = placed.object.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    model::Node {
        origin: placed.origin.clone(),
        addresses: addresses
            .iter()
            .filter(|entry| entry.type_ == "InternalIP")
            .filter_map(|entry| address(&entry.address, "status.addresses", &subject, report))
            .collect(),
        labels: placed.object.metadata.labels.clone().unwrap_or_default(),
    }
}
