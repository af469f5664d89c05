//! Names that an object is about, and who is to see it.

use std::net::IpAddr;

use undermesh_model::traffic::Parent;

use super::findings::{Findings, Path};
use crate::{names, traffic::common};

/// Longest DNS name.
const MAX_NAME: usize = 255;

/// `spec.hosts`, with full names.
pub(super) fn parents(
    findings: &mut Findings<'_>,
    hosts: &[String],
    for_mesh: bool,
) -> Vec<Parent> {
    let at = Path::root("hosts");
    let mut read: Vec<String> = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.iter().enumerate() {
        let at = at.item(index);
        if host == "*" && for_mesh {
            let what = "* is for gateways and not for the mesh";
            findings.refuse(&at, what, "write names, or a wildcard such as *.example.com");
        } else if !is_wildcard_domain(host) && host.parse::<IpAddr>().is_err() {
            let what = format!("{host:?} is neither a DNS name nor an address");
            findings.refuse(&at, what, "write a Service's name, a full name or *.NAME");
        }
        let host = full(host, findings.namespace());
        if let Some(same) = read.iter().find(|same| covers(same, &host) || covers(&host, same)) {
            let what = format!("{host} and {same} are about the same names");
            findings.refuse(&at, what, "write an object for each");
        }
        read.push(host);
    }
    read.into_iter().map(Parent::Host).collect()
}

/// The full name of a host; an address stays.
pub(super) fn full(host: &str, namespace: &str) -> String {
    if host.parse::<IpAddr>().is_ok() {
        return host.to_ascii_lowercase();
    }
    common::full_host(host, namespace)
}

/// Whether a name, perhaps with a wildcard, is one of those that `host` stands for.
pub(super) fn covers(host: &str, name: &str) -> bool {
    host.eq_ignore_ascii_case(name)
        || host.strip_prefix('*').is_some_and(|end| {
            let name = name.strip_prefix('*').unwrap_or(name).as_bytes();
            let start = name.len().checked_sub(end.len());
            start.is_some_and(|start| name[start..].eq_ignore_ascii_case(end.as_bytes()))
        })
}

/// A DNS name whose first label may be `*`.
pub(super) fn is_wildcard_domain(name: &str) -> bool {
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let ends = |text: &str| text.starts_with('-') || text.ends_with('-');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !ends(label)
    };
    name == "*" || (name.len() <= MAX_NAME && rest.split('.').all(label))
}

/// `spec.exportTo`.
pub(super) fn check_scope(findings: &mut Findings<'_>, export_to: &[String]) {
    let at = Path::root("exportTo");
    for (index, name) in export_to.iter().enumerate() {
        let special = matches!(name.as_str(), "*" | "." | "~");
        if !special && !names::is_label(name) {
            let what = format!("{name:?} is no name of a namespace");
            findings.refuse(&at.item(index), what, "write namespaces, \".\" or \"*\"");
        } else if matches!(name.as_str(), "*" | "~") && export_to.len() > 1 {
            let what = format!("{name} stands beside others");
            findings.refuse(&at.item(index), what, "write it alone, or leave it out");
        }
    }
}
