//! Node.

use k8s_openapi::api::core::v1::Node;
use undermesh_model as model;

use super::address;
use crate::{
    objects::Placed,
    report::{Report, Subject},
};

/// Reads a Node's internal addresses and labels.
pub(crate) fn node(node: &Node, subject: &Subject<'_>, report: &mut Report) -> Placed<model::Node> {
    let declared = node.status.as_ref().and_then(|status| status.addresses.as_deref());
    let mut addresses = Vec::new();
    for (index, entry) in declared.unwrap_or_default().iter().enumerate() {
        if entry.type_ == "InternalIP" {
            let path = ["status", "addresses", &index.to_string(), "address"];
            addresses.extend(address(&entry.address, &path, subject, report));
        }
    }
    let labels = node.metadata.labels.clone().unwrap_or_default();
    Placed::new(model::Node { origin: subject.origin.clone(), addresses, labels }, subject)
}
