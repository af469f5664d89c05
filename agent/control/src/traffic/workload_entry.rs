//! WorkloadEntry, and the endpoints of a ServiceEntry, which have the same fields.
//!
//! Source: Istio, `networking/v1/workload_entry.proto`; `validateWorkloadEntry`.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use undermesh_model::{
    NamespacedName,
    traffic::{self as model, EntryAddress, EntryEndpoint, Locality},
};

use super::{
    istio,
    place::{self, Place},
};
use crate::{
    fields::{self, Known},
    names,
    objects::Placed,
    report::{Report, Subject},
};

/// The fields of an endpoint.
pub(super) const KNOWN: &[&str] =
    &["address", "ports", "labels", "network", "locality", "weight", "serviceAccount"];

const OBJECT: &[Known] =
    &[("", &["apiVersion", "kind", "metadata", "spec", "status"]), ("spec", KNOWN)];
/// How many ports and labels an endpoint may have.
const MAX_PORTS: usize = 128;
const MAX_LABELS: usize = 256;
const UNIX: &str = "unix://";

/// The object.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WorkloadEntry {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Endpoint,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Endpoint {
    address: String,
    ports: BTreeMap<String, NonZeroU16>,
    labels: BTreeMap<String, String>,
    network: Option<String>,
    locality: Option<String>,
    weight: u32,
    service_account: Option<String>,
}

/// Where an endpoint may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    /// At an address.
    Ip,
    /// At an address, or wherever a name leads.
    IpOrName,
}

/// Reads a WorkloadEntry; `None` where nobody could connect to it.
pub(crate) fn workload_entry(
    object: &WorkloadEntry,
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Placed<model::WorkloadEntry>> {
    fields::check(OBJECT, subject, report);
    let WorkloadEntry { metadata, spec } = object;
    let endpoint = place::read(subject, report, "invalid-workload-entry", |object| {
        endpoint(&object.field("spec"), spec, Addresses::IpOrName)
    })?;
    // A ServiceEntry selects by the labels of the object as well, and these win.
    let mut labels = endpoint.labels.clone();
    labels.extend(metadata.labels.clone().unwrap_or_default());
    let read = model::WorkloadEntry {
        origin: subject.origin.clone(),
        name: NamespacedName::new(&subject.origin.namespace, &subject.origin.name),
        endpoint: EntryEndpoint { labels, ..endpoint },
    };
    Some(Placed::new(read, subject))
}

/// Reads an endpoint; `None` where nobody could connect to it.
pub(super) fn endpoint(
    at: &Place<'_>,
    shape: &Endpoint,
    addresses: Addresses,
) -> Option<EntryEndpoint> {
    for (name, length, most) in
        [("ports", shape.ports.len(), MAX_PORTS), ("labels", shape.labels.len(), MAX_LABELS)]
    {
        if length > most {
            let what = format!("has {length} items, and {most} are allowed");
            at.field(name).refuse(what, "remove some");
        }
    }
    for name in shape.ports.keys().filter(|name| !names::is_label(name)) {
        let what = format!("{name:?} is no name of a port");
        at.field("ports").field(name).refuse(what, "write lower-case letters, digits and '-'");
    }
    istio::check_labels(&at.field("labels"), &shape.labels);
    let network = shape.network.as_ref().filter(|network| !network.is_empty());
    let address = address(at, shape, addresses)?;
    let instead = "its address is dialled directly; only failoverPriority looks at the network";
    at.unsupported("network", network, instead);
    Some(EntryEndpoint {
        address,
        ports: shape.ports.iter().map(|(name, port)| (name.clone(), port.get())).collect(),
        labels: shape.labels.clone(),
        network: network.cloned().unwrap_or_default(),
        locality: locality(shape),
        weight: shape.weight,
        service_account: shape.service_account.clone().filter(|account| !account.is_empty()),
    })
}

impl Endpoint {
    /// Names of its ports.
    pub(super) fn port_names(&self) -> impl Iterator<Item = &str> {
        self.ports.keys().map(String::as_str)
    }

    /// Whether it is the path of a socket.
    pub(super) fn is_unix(&self) -> bool {
        self.address.starts_with(UNIX)
    }
}

fn address(at: &Place<'_>, shape: &Endpoint, addresses: Addresses) -> Option<EntryAddress> {
    let text = shape.address.as_str();
    let place = at.field("address");
    if text.is_empty() {
        if shape.network.as_ref().is_none_or(String::is_empty) {
            place.refuse("is missing", "write an address");
        } else {
            let instead = "gateways of networks are not known: nobody connects to this endpoint";
            at.unsupported("network", shape.network.as_ref(), instead);
        }
        return None;
    }
    if let Some(path) = text.strip_prefix(UNIX) {
        unix(at, path, shape);
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(EntryAddress::Ip(address.to_canonical()));
    }
    match addresses {
        Addresses::IpOrName if istio::is_full_name(text) => {}
        Addresses::IpOrName => {
            let what = format!("{text:?} is neither an address nor a full name");
            place.refuse(what, "write one of them");
        }
        Addresses::Ip => {
            let remedy = "write an IPv4 or IPv6 address, or resolution: DNS";
            place.refuse(format!("{text:?} is no address"), remedy);
        }
    }
    Some(EntryAddress::Host(text.to_ascii_lowercase()))
}

/// The path of a socket.
fn unix(at: &Place<'_>, path: &str, shape: &Endpoint) {
    let place = at.field("address");
    if !path.starts_with(['/', '@']) || path.ends_with('/') {
        place.refuse(format!("{path:?} is no path of a socket"), "write unix:///PATH");
    }
    if !shape.ports.is_empty() {
        let what = "stands beside the path of a socket, which has no ports";
        at.field("ports").refuse(what, "remove it");
    }
    let instead = "nobody connects to this endpoint; write an address";
    place.warn("unsupported-field", "sockets of a node are not supported", instead);
}

/// `region/zone/subzone`, or a beginning of it. The label that says it where the field does not has
/// dots instead, unless it has slashes.
fn locality(shape: &Endpoint) -> Locality {
    let label = || shape.labels.get("istio-locality").map(|label| label.replace('.', "/"));
    let field = shape.locality.clone().filter(|text| !text.is_empty());
    let text = field.or_else(label).unwrap_or_default();
    let mut parts = text.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default().to_owned();
    Locality { region: part(), zone: part(), subzone: part() }
}

#[cfg(test)]
mod tests;
