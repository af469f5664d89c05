//! What Istio's traffic objects have in common, and what its validation refuses of it.
//!
//! Source: Istio, `pkg/config/validation/agent/validation.go`, `pkg/config/labels`.

use std::{collections::BTreeMap, net::IpAddr};

use super::place::Place;
use crate::{names, traffic::common};

/// Longest DNS name, and longest label of one.
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

type Labels = BTreeMap<String, String>;

/// A DNS name of at least one label; a dot may end it.
pub(super) fn is_full_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && are_labels(name)
}

/// The same, where the first label may be `*` or begin with `*-`.
pub(super) fn is_wildcard_name(name: &str) -> bool {
    let (first, rest) = match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    };
    let is_first = first == "*" || is_label(first.strip_prefix("*-").unwrap_or(first));
    name.len() <= MAX_NAME && first.len() <= MAX_LABEL && is_first && rest.is_none_or(are_labels)
}

fn are_labels(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    // Else addresses would be names.
    let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let name = name.strip_suffix('.').unwrap_or(name);
    !is_number && name.split('.').all(is_label)
}

/// Istio allows capitals, which DNS disregards.
fn is_label(label: &str) -> bool {
    names::is_label(&label.to_ascii_lowercase())
}

/// A token, such as the name of a header (RFC 9110, section 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// The full name of a host; an address stays.
pub(super) fn full_host(host: &str, namespace: &str) -> String {
    if host.parse::<IpAddr>().is_ok() {
        return host.to_ascii_lowercase();
    }
    common::full_host(host, namespace)
}

/// Checks `exportTo`. Only a ServiceEntry may be for nobody.
pub(super) fn check_scope(at: &Place<'_>, export_to: &[String], nobody_is_allowed: bool) {
    let at = at.field("exportTo");
    let mut seen = Vec::with_capacity(export_to.len());
    for (index, name) in export_to.iter().enumerate() {
        let at = at.item(index);
        let known = match name.as_str() {
            "*" | "." => true,
            "~" => nobody_is_allowed,
            name => names::is_label(name),
        };
        if !known {
            let what = format!("{name:?} is no name of a namespace");
            at.refuse(what, "write namespaces, \".\" or \"*\"");
        } else if matches!(name.as_str(), "*" | "~") && export_to.len() > 1 {
            at.refuse(format!("{name:?} stands beside others"), "write it alone, or leave it out");
        }
        let name = if name == "." { at.namespace() } else { name };
        if seen.contains(&name) {
            at.refuse(format!("{name} stands there twice"), "remove one of them");
        }
        seen.push(name);
    }
}

/// Checks labels that endpoints are to have.
pub(super) fn check_labels(at: &Place<'_>, labels: &Labels) {
    for (name, value) in labels {
        if !is_label_name(name) {
            at.field(name).refuse(format!("{name:?} is no name of a label"), "correct it");
        }
        if !is_label_value(value) {
            at.field(name).refuse(format!("{value:?} is no value of a label"), "correct it");
        }
    }
}

/// Checks labels that select workloads.
pub(super) fn check_selector(at: &Place<'_>, labels: &Labels) {
    for (name, value) in labels {
        if name.is_empty() || name.contains('*') || value.contains('*') {
            let what = format!("{name}={value} selects nothing: there are no wildcards");
            at.field(name).refuse(what, "write the whole label");
        }
    }
}

fn is_label_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => names::is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

fn is_qualified(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= MAX_LABEL
        && text.bytes().all(inner)
        && end(text.bytes().next())
        && end(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_istio_takes() {
        let long = "a".repeat(64);
        for (name, full, wildcard) in [
            ("cart", true, true),
            ("Cart.shop", true, true),
            ("a.example.com.", true, true),
            ("*", false, true),
            ("*.example.com", false, true),
            ("*-a.example.com", false, true),
            ("a*.example.com", false, false),
            ("a.*.com", false, false),
            ("*.*.com", false, false),
            ("10.0.0.1", false, false),
            ("a_b", false, false),
            ("", false, false),
            ("a..b", false, false),
            (long.as_str(), false, false),
        ] {
            assert_eq!((is_full_name(name), is_wildcard_name(name)), (full, wildcard), "{name:?}");
        }
    }

    #[test]
    fn labels_are_those_of_kubernetes() {
        for (name, good) in [
            ("app", true),
            ("app.kubernetes.io/name", true),
            ("a_b.C", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("-a", false),
            ("a b", false),
        ] {
            assert_eq!(is_label_name(name), good, "{name:?}");
        }
        assert!(is_label_value("") && is_label_value("v2") && !is_label_value("v 2"));
    }

    #[test]
    fn addresses_are_no_short_names() {
        assert_eq!(full_host("10.0.0.1", "shop"), "10.0.0.1");
        assert_eq!(full_host("FD00::1", "shop"), "fd00::1");
        assert_eq!(full_host("cart", "shop"), "cart.shop.svc.cluster.local");
    }
}
