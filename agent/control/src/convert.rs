//! From Kubernetes objects to nouns of the model, one file per kind. Knows nothing of files: any
//! source of Kubernetes objects can use it.

mod endpoint_slice;
mod node;
mod pod;
mod service;

pub(crate) use endpoint_slice::endpoint_slice;
pub(crate) use node::node;
pub(crate) use pod::{PodRecord, pod};
pub(crate) use service::service;

use std::net::IpAddr;

use undermesh_model::Protocol;

use crate::report::{Report, Subject};

/// Reads a Kubernetes port number.
fn port(number: i32, field: &str, subject: &Subject, report: &mut Report) -> Option<u16> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let message = format!("{field} is {number}, which is no port");
            report.error(subject, "invalid-port", message, "write a number from 1 to 65535");
            None
        }
    }
}

/// Reads a Kubernetes protocol; unset is TCP.
fn protocol(name: Option<&str>, subject: &Subject, report: &mut Report) -> Option<Protocol> {
    match name {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(other) => {
            let message = format!("protocol {other:?} does not exist");
            report.error(subject, "invalid-protocol", message, "write TCP, UDP or SCTP");
            None
        }
    }
}

/// Reads an address; IPv4-mapped ones become IPv4.
fn address(text: &str, field: &str, subject: &Subject, report: &mut Report) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(address) => Some(address.to_canonical()),
        Err(_) => {
            let message = format!("{field} {text:?} is not an IP address");
            report.error(subject, "invalid-address", message, "write an IPv4 or IPv6 address");
            None
        }
    }
}
