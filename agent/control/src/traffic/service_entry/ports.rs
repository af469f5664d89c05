//! Ports of a ServiceEntry.

use std::collections::BTreeSet;

use undermesh_model::traffic::EntryPort;

use super::shapes::{Port, Resolved, Spec};
use crate::{names, traffic::place::Place};

/// Protocols that Istio knows, in upper case.
const PROTOCOLS: [&str; 11] = [
    "TCP",
    "GRPC",
    "GRPC-WEB",
    "HTTP",
    "HTTP_PROXY",
    "HTTP2",
    "HTTPS",
    "TLS",
    "MONGO",
    "REDIS",
    "MYSQL",
];
/// Those with which a host is known by its name.
const NAMING: [&str; 7] = ["GRPC", "GRPC-WEB", "HTTP", "HTTP_PROXY", "HTTP2", "HTTPS", "TLS"];
/// Those that `resolution: DYNAMIC_DNS` is for.
const DYNAMIC: [&str; 4] = ["HTTP", "TLS", "GRPC", "HTTP2"];

/// Reads the ports; those that no TCP connection can come to are left out.
pub(super) fn ports(at: &Place<'_>, spec: &Spec) -> Vec<EntryPort> {
    let at = at.field("ports");
    if spec.ports.is_empty() {
        at.warn("no-effect", "is empty: nobody can connect to the hosts", "write a port");
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut read = Vec::with_capacity(spec.ports.len());
    for (index, port) in spec.ports.iter().enumerate() {
        let at = at.item(index);
        if !names::is_label(&port.name) {
            let what = format!("{:?} is no name of a port", port.name);
            at.field("name").refuse(what, "write lower-case letters, digits and '-'");
        } else if !names.insert(&port.name) {
            let what = format!("{:?} is the name of another port as well", port.name);
            at.field("name").refuse(what, "give every port a name of its own");
        }
        let Some(number) = port.number else {
            at.field("number").refuse("is missing", "write the port that clients dial");
            continue;
        };
        if !numbers.insert(number) {
            at.field("number").refuse(format!("{number} stands there twice"), "write one of them");
        }
        read.extend(self::port(&at, spec, port, number.get()));
    }
    if spec.hosts.len() > 1 {
        check_many_hosts(&at, spec);
    }
    read
}

fn port(item: &Place<'_>, spec: &Spec, port: &Port, number: u16) -> Option<EntryPort> {
    let protocol = port.protocol.to_ascii_uppercase();
    let at = item.field("protocol");
    if protocol == "UDP" {
        let instead = "connections to this port are not captured";
        at.warn("unsupported-protocol", "UDP is not supported", instead);
        return None;
    }
    if !protocol.is_empty() && !PROTOCOLS.contains(&protocol.as_str()) {
        let what = format!("{:?} is no protocol", port.protocol);
        at.refuse(what, "write HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS");
    }
    if spec.resolution == Resolved::DynamicDns && !DYNAMIC.contains(&protocol.as_str()) {
        let what = format!("{:?} is not for resolution: DYNAMIC_DNS", port.protocol);
        at.refuse(what, "write HTTP, HTTP2, GRPC or TLS");
    }
    let moved = Some(port.target_port).filter(|target| ![0, number].contains(target));
    if matches!(spec.resolution, Resolved::None | Resolved::DynamicDns) {
        let instead = "connections go to the port that was dialled, or write resolution: STATIC";
        item.unsupported("targetPort", moved.as_ref(), instead);
    }
    let target = Some(port.target_port).filter(|port| *port != 0);
    Some(EntryPort { number, name: port.name.clone(), protocol, target })
}

/// Hosts that share a port can only be told apart by what the client says, or not at all where the
/// address decides anyway.
fn check_many_hosts(at: &Place<'_>, spec: &Spec) {
    if spec.resolution == Resolved::None {
        return;
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let protocol = port.protocol.to_ascii_uppercase();
        if !NAMING.contains(&protocol.as_str()) {
            let what = format!("{:?} does not tell the entry's hosts apart", port.protocol);
            let remedy = "write an entry for each host, or HTTP or TLS, or resolution: NONE";
            at.item(index).field("protocol").refuse(what, remedy);
        }
    }
}
