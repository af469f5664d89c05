//! Small values of the API, and what it refuses of them.

use std::{collections::BTreeSet, time::Duration};

use super::cursor::Cursor;
use crate::{names, traffic::common};

/// Longest name of a host.
const MAX_HOST: usize = 253;
/// Longest name of a header.
const MAX_HEADER: usize = 256;
/// Longest value of a header.
const MAX_VALUE: usize = 4096;

/// The core group, which has no name.
pub(super) fn is_core(group: &str) -> bool {
    matches!(group, "" | "core")
}

/// Checks `name` of a rule, which is unique in its route.
pub(super) fn rule_name(
    name: Option<&String>,
    seen: &mut BTreeSet<String>,
    cursor: &mut Cursor<'_, '_>,
) -> String {
    let Some(name) = name else { return String::new() };
    if !names::is_subdomain(name) {
        let message = format!("{name:?} is no name of a rule");
        cursor.error(&["name"], &message, "use lower-case letters, digits, '-' and '.'");
    }
    if !seen.insert(name.clone()) {
        let message = format!("{name:?} is the name of another rule as well");
        cursor.error(&["name"], &message, "give every rule a name of its own");
    }
    name.clone()
}

/// Checks the name of a host: full, or with a leading `*.` where `wildcard` allows it.
pub(super) fn host(text: &str, wildcard: bool, field: &[&str], cursor: &mut Cursor<'_, '_>) {
    let rest = if wildcard { text.strip_prefix("*.").unwrap_or(text) } else { text };
    if text.len() > MAX_HOST
        || !rest.split('.').all(names::is_label)
        || text.parse::<std::net::IpAddr>().is_ok()
    {
        let message = format!("{text:?} is no name of a host");
        let remedy = "write a DNS name in lower case, without a dot at its end";
        cursor.error(field, &message, remedy);
    }
}

/// Checks the name of a header (RFC 9110, token), and gives it in lower case.
pub(super) fn header_name(name: &str, field: &[&str], cursor: &mut Cursor<'_, '_>) -> String {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_HEADER || !name.bytes().all(good) {
        let message = format!("{name:?} is no name of a header");
        cursor.error(field, &message, "use letters, digits and '-'");
    }
    name.to_ascii_lowercase()
}

/// Checks the value of a header.
pub(super) fn header_value(value: &str, cursor: &mut Cursor<'_, '_>) {
    let good = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
    if value.is_empty() || value.len() > MAX_VALUE || !value.bytes().all(good) {
        let message = format!("has to have 1 to {MAX_VALUE} printable ASCII characters");
        cursor.error(&["value"], &message, "correct the value");
    }
}

/// A duration as GEP-2257 allows it: up to four numbers of up to five digits, each with `h`, `m`,
/// `s` or `ms`.
pub(super) fn duration(
    text: Option<&String>,
    field: &str,
    cursor: &mut Cursor<'_, '_>,
) -> Option<Duration> {
    let text = text?;
    let mut digits = 0_usize;
    let mut parts = 0_usize;
    let mut good = true;
    let mut last_was_digit = false;
    for byte in text.bytes() {
        if byte.is_ascii_digit() {
            digits = if last_was_digit { digits + 1 } else { 1 };
            parts += usize::from(!last_was_digit);
        }
        last_was_digit = byte.is_ascii_digit();
        good &= digits <= 5 && byte.is_ascii_alphanumeric();
    }
    // The units `us` and `ns` are Go's and Istio's, not this API's.
    let foreign = text.contains("us") || text.contains("ns");
    let read = common::duration(text).filter(|_| good && !foreign && parts <= 4);
    if read.is_none() {
        let message = format!("{text:?} is no duration");
        cursor.error(&[field], &message, "write for example 1h, 1m30s, 5s or 100ms");
    }
    read
}

#[cfg(test)]
mod tests {
    use undermesh_model::ResourceRef;

    use super::*;
    use crate::report::{Report, Subject};

    #[test]
    fn durations_are_those_of_gep_2257() {
        let origin = ResourceRef::namespaced("HTTPRoute", "shop", "r");
        let subject = Subject { origin, position: None, document: None };
        let mut report = Report::default();
        let mut read = |text: &str| {
            duration(Some(&text.to_owned()), "x", &mut Cursor::new(&subject, &mut report))
        };
        for (text, milliseconds) in
            [("1h", 3_600_000), ("1m30s", 90_000), ("99999ms", 99_999), ("0s", 0)]
        {
            assert_eq!(read(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", "5", "1.5s", "1us", "1ns", "-1s", "100000ms", "1h1m1s1ms1s", "1 s", "1\u{b5}s"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
