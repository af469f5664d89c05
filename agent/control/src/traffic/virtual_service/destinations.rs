//! Where rules lead, by weight, and what headers become on the way.

use undermesh_model::traffic::{Backend, BackendRef, HeaderOps};

use super::{
    findings::{Findings, Path},
    headers, hosts, shapes,
};
use crate::names;

/// The weight of a destination that stands alone.
const WHOLE: u32 = 100;

/// The destinations of a rule.
pub(super) fn backends(
    findings: &mut Findings<'_>,
    at: &Path,
    shapes: &[shapes::RouteDestination],
) -> Vec<Backend> {
    let alone = shapes.len() == 1;
    let weight = |shape: &shapes::RouteDestination| match shape.weight.unwrap_or(0) {
        0 if alone => WHOLE,
        weight => weight,
    };
    if !shapes.is_empty() && shapes.iter().all(|shape| weight(shape) == 0) {
        findings.refuse(at, "no destination has a weight", "write weight for each destination");
    }
    let mut read = Vec::with_capacity(shapes.len());
    for (index, shape) in shapes.iter().enumerate() {
        let at = at.item(index);
        let headers: HeaderOps =
            headers::operations(findings, &at.field("headers"), &shape.headers);
        let to = required(findings, &at, shape.destination.as_ref());
        read.extend(to.map(|to| Backend { to, weight: weight(shape), headers }));
    }
    read
}

/// A destination that has to be there.
pub(super) fn required(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: Option<&shapes::Destination>,
) -> Option<BackendRef> {
    let at = at.field("destination");
    match shape {
        Some(shape) => Some(destination(findings, &at, shape)),
        None => {
            findings.refuse(&at, "is missing", "write destination with a host");
            None
        }
    }
}

/// A destination.
pub(super) fn destination(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: &shapes::Destination,
) -> BackendRef {
    let host = shape.host.as_str();
    if host == "*" || !hosts::is_wildcard_domain(host) {
        let what = if host.is_empty() {
            "is missing".to_owned()
        } else {
            format!("{host:?} is no DNS name")
        };
        findings.refuse(&at.field("host"), what, "write a Service's name or a full name");
    }
    if shape.subset.as_ref().is_some_and(|subset| !names::is_label(subset)) {
        let remedy = "write the name of a subset of a DestinationRule";
        findings.refuse(&at.field("subset"), "is no name of a subset", remedy);
    }
    if shape.port.as_ref().is_some_and(|port| port.number == 0) {
        let remedy = "write a port of the host, from 1 to 65535";
        findings.refuse(&at.field("port").field("number"), "is missing or 0", remedy);
    }
    BackendRef::Host {
        host: hosts::full(host, findings.namespace()),
        port: shape.port.as_ref().map(|port| port.number),
        subset: shape.subset.clone(),
    }
}
