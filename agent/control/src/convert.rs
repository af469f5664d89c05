//! From Kubernetes objects to nouns of the model, one file per kind. Knows nothing of files: any
//! source of Kubernetes objects can use it.

mod config_map;
mod endpoint_slice;
mod namespace;
mod node;
mod pod;
mod runtime_class;
mod secret;
mod service;
mod service_account;

pub(crate) use config_map::{Roots, config_map};
pub(crate) use endpoint_slice::endpoint_slice;
pub(crate) use namespace::{NamespaceRecord, namespace};
pub(crate) use node::node;
pub(crate) use pod::{PodRecord, pod};
pub(crate) use runtime_class::{RuntimeClass, obstacle, runtime_class};
pub(crate) use secret::secret;
pub(crate) use service::{SERVICE_WITHOUT_ADDRESS, ServiceRecord, service};
pub(crate) use service_account::service_account;

use std::net::IpAddr;

use undermesh_model::Protocol;

use crate::{
    field,
    report::{Report, Subject},
};

/// Reads a Kubernetes port number.
fn port(number: i32, path: &[&str], subject: &Subject<'_>, report: &mut Report) -> Option<u16> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("{} is {number}, which is no port", field::name(path));
            let remedy = "write a number from 1 to 65535";
            report.error(subject, path, "invalid-port", message, remedy);
            None
        }
    }
}

/// Reads a Kubernetes protocol; unset is TCP.
fn protocol(
    name: Option<&str>,
    path: &[&str],
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(other) => {
            let message = format!("{} {other:?} does not exist", field::name(path));
            report.error(subject, path, "invalid-protocol", message, "write TCP, UDP or SCTP");
            None
        }
    }
}

/// Reads an address; IPv4-mapped ones become IPv4.
fn address(
    text: &str,
    path: &[&str],
    subject: &Subject<'_>,
    report: &mut Report,
) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical()),
        Err(_) => {
            let message = format!("{} {text:?} is not an IP address", field::name(path));
            let remedy = "write an IPv4 or IPv6 address";
            report.error(subject, path, "invalid-address", message, remedy);
            None
        }
    }
}

#[cfg(test)]
mod tests;
