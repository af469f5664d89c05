//! What the traffic objects have in common: hosts, scopes, durations, patterns, precedence.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use regex::RegexBuilder;
use undermesh_model::traffic::Scope;

use crate::report::{Report, Subject};

/// Annotation: an integer; the higher wins.
pub(crate) const PRECEDENCE: &str = "undermesh.io/precedence";
/// What a compiled pattern may occupy, in bytes.
const PATTERN_SIZE: usize = 1 << 20;
/// How long a pattern may be, in bytes.
const PATTERN_LENGTH: usize = 1024;
const CLUSTER_DOMAIN: &str = "svc.cluster.local";

/// The annotation `undermesh.io/precedence`; 0 where there is none, or where it is no integer,
/// which is reported.
pub(crate) fn precedence(metadata: &ObjectMeta, subject: &Subject<'_>, report: &mut Report) -> i64 {
    let annotations = metadata.annotations.as_ref();
    let Some(text) = annotations.and_then(|all| all.get(PRECEDENCE)) else { return 0 };
    text.trim().parse().unwrap_or_else(|_| {
        let message = format!("{PRECEDENCE} is {text:?}, which is no integer");
        let path = ["metadata", "annotations", PRECEDENCE];
        report.error(subject, &path, "invalid-precedence", message, "write a whole number");
        0
    })
}

/// `creationTimestamp` in seconds since 1970; 0 where there is none.
pub(crate) fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

/// `exportTo`: `.` is the object's own namespace, `*` all, `~` none; empty is all.
pub(crate) fn scope(export_to: &[String], namespace: &str) -> Scope {
    if export_to.is_empty() || export_to.iter().any(|one| one == "*") {
        return Scope::Everywhere;
    }
    let named = export_to.iter().filter(|one| *one != "~");
    let named = named.map(|one| if one == "." { namespace } else { one });
    Scope::Namespaces(named.map(str::to_owned).collect::<BTreeSet<_>>())
}

/// A host as Istio reads it: a name without a dot is a Service of `namespace`; all others stay.
pub(crate) fn full_host(host: &str, namespace: &str) -> String {
    let host = host.to_ascii_lowercase();
    if host.contains('.') || host.contains('*') { host } else { service_host(&host, namespace) }
}

/// The DNS name of a Service.
pub(crate) fn service_host(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.{CLUSTER_DOMAIN}")
}

/// A duration as both APIs write it: `1h`, `2m30s`, `0.5s`, `100ms`, `0s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = next;
    }
    Some(total)
}

/// Why a pattern cannot be used, if so. Only what the `regex` crate and RE2 have in common is taken,
/// bounded in length and in what it compiles to.
pub(crate) fn pattern_error(pattern: &str) -> Option<String> {
    if pattern.is_empty() {
        return Some("is empty".to_owned());
    }
    if pattern.len() > PATTERN_LENGTH {
        return Some(format!("is longer than {PATTERN_LENGTH} bytes"));
    }
    let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
    compiled.err().map(|error| format!("is no regular expression (RE2): {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, milliseconds) in
            [("1h", 3_600_000), ("2m30s", 150_000), ("0.5s", 500), ("100ms", 100), ("0s", 0)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "1x", "-1s", "1s2", "1..5s", "1e400s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn short_hosts_are_services_of_the_objects_namespace() {
        assert_eq!(full_host("Cart", "shop"), "cart.shop.svc.cluster.local");
        assert_eq!(full_host("cart.shop", "other"), "cart.shop");
        assert_eq!(full_host("*.example.com", "shop"), "*.example.com");
    }

    #[test]
    fn a_scope_is_everywhere_unless_it_names_namespaces() {
        let scope = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            scope(&names, "shop")
        };
        assert!(scope(&[]).includes("any") && scope(&["*"]).includes("any"));
        assert!(scope(&["."]).includes("shop") && !scope(&["."]).includes("any"));
        assert!(!scope(&["~"]).includes("shop"));
    }

    #[test]
    fn patterns_that_nobody_can_use_are_told_why() {
        assert_eq!(pattern_error("a+"), None);
        assert!(pattern_error("a(").is_some_and(|why| why.contains("RE2")));
        assert!(pattern_error("").is_some() && pattern_error(&"a".repeat(2000)).is_some());
        assert!(pattern_error("(a{1000}){1000}").is_some());
    }
}
