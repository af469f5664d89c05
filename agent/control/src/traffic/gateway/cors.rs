//! The CORS filter.
//!
//! Source: `HTTPCORSFilter`, GEP-1767.

use std::{collections::BTreeSet, num::NonZeroU16, time::Duration};

use serde::Deserialize;
use undermesh_model::traffic::{AllowedOrigins, Cors, TextPattern};

use super::{cursor::Cursor, values};

const MAX_ORIGINS: usize = 64;
const MAX_METHODS: usize = 9;
const MAX_HEADERS: usize = 64;
const MAX_ORIGIN: usize = 253;
/// Seconds, where `maxAge` says nothing.
const DEFAULT_AGE: u32 = 5;
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];

/// `HTTPCORSFilter`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CorsFilter {
    allow_origins: Vec<String>,
    allow_credentials: bool,
    allow_methods: Vec<String>,
    allow_headers: Vec<String>,
    expose_headers: Vec<String>,
    max_age: Option<u32>,
}

impl CorsFilter {
    /// Reads the filter.
    pub(super) fn read(&self, cursor: &mut Cursor<'_, '_>) -> Cors {
        for (field, list, alone) in [
            ("allowOrigins", &self.allow_origins, true),
            ("allowMethods", &self.allow_methods, true),
            ("allowHeaders", &self.allow_headers, true),
            ("exposeHeaders", &self.expose_headers, false),
        ] {
            check_list(field, list, alone, cursor);
        }
        let age = self.max_age.unwrap_or(DEFAULT_AGE);
        if age == 0 || i32::try_from(age).is_err() {
            cursor.error(&["maxAge"], &format!("{age} is no age"), "write 1 or more seconds");
        }
        let methods = cursor.each("allowMethods", &self.allow_methods, MAX_METHODS, method);
        Cors {
            origins: AllowedOrigins(cursor.each(
                "allowOrigins",
                &self.allow_origins,
                MAX_ORIGINS,
                origin,
            )),
            methods,
            headers: cursor.each(
                "allowHeaders",
                &self.allow_headers,
                MAX_HEADERS,
                |cursor, name| values::header_name(name, &[], cursor),
            ),
            expose: cursor.each(
                "exposeHeaders",
                &self.expose_headers,
                MAX_HEADERS,
                |cursor, name| values::header_name(name, &[], cursor),
            ),
            max_age: Some(Duration::from_secs(u64::from(age))),
            credentials: self.allow_credentials,
            forward_unmatched: false,
        }
    }
}

/// Nothing twice; `*` stands alone, but for `exposeHeaders`.
fn check_list(field: &str, list: &[String], alone: bool, cursor: &mut Cursor<'_, '_>) {
    if list.iter().collect::<BTreeSet<_>>().len() < list.len() {
        cursor.error(&[field], "has an entry twice", "write every entry once");
    }
    if alone && list.len() > 1 && list.iter().any(|one| one == "*") {
        cursor.error(&[field], "has \"*\" and other entries", "write \"*\" alone, or remove it");
    }
}

fn method(cursor: &mut Cursor<'_, '_>, method: &String) -> String {
    if !METHODS.contains(&method.as_str()) {
        let message = format!("{method:?} is no method");
        cursor.error(&[], &message, "write a method in capitals, or \"*\"");
    }
    method.clone()
}

fn origin(cursor: &mut Cursor<'_, '_>, text: &String) -> TextPattern {
    origin_pattern(text).unwrap_or_else(|| {
        let message = format!("{text:?} is no origin");
        let remedy =
            "write http:// or https://, a host (perhaps with a leading \"*.\"), and a port";
        cursor.error(&[], &message, remedy);
        TextPattern::Exact(text.clone())
    })
}

/// Browsers leave out the port of the scheme, so it is left out here; `*` is any number of labels.
fn origin_pattern(text: &str) -> Option<TextPattern> {
    if text == "*" {
        return Some(TextPattern::Present);
    }
    if text.len() > MAX_ORIGIN {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let (host, port) = match rest.split_once(':') {
        Some((host, port)) => (host, Some(port.parse::<NonZeroU16>().ok()?.get())),
        None => (rest, None),
    };
    let port = port.filter(|port| *port != default).map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    if host == "*" {
        let any = r"(?:\[[^\]]+\]|[^:/\[\]]+)";
        return Some(TextPattern::Regex(format!("{scheme}://{any}{port}")));
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !name.split('.').all(|label| !label.is_empty() && label.bytes().all(letter)) {
        return None;
    }
    // Origins have hosts in lower case (RFC 6454).
    let lower = name.to_ascii_lowercase();
    Some(if name.len() == host.len() {
        TextPattern::Exact(format!("{scheme}://{lower}{port}"))
    } else {
        let escaped = lower.replace('.', r"\.");
        TextPattern::Regex(format!(r"{scheme}://[^:/\[\]]+\.{escaped}{port}"))
    })
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn wildcards_of_origins_are_any_number_of_labels_on_the_schemes_port() {
        for (pattern, origin, expected) in [
            ("*", "http://a", true),
            ("https://a.example", "https://a.example", true),
            ("https://A.example:443", "https://a.example", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example:8443", "https://a.example", false),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://a.example:8443", false),
            ("https://*.example", "https://a/.example", false),
            ("https://*.example", "https://axexample", false),
            ("https://*:8443", "https://a.b:8443", true),
            ("http://*", "http://[::1]", true),
            ("http://*", "http://a:81", false),
        ] {
            let matched = match origin_pattern(pattern).unwrap() {
                TextPattern::Present => true,
                TextPattern::Exact(text) => text == origin,
                TextPattern::Regex(regex) => {
                    Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(origin)
                }
                TextPattern::Prefix(_) => unreachable!(),
            };
            assert_eq!(matched, expected, "{pattern} {origin}");
        }
        for text in
            ["", "a.example", "ftp://a", "http://", "http://a..b", "http://a:0", "http://a*"]
        {
            assert_eq!(origin_pattern(text), None, "{text}");
        }
    }
}
