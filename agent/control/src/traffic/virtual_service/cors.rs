//! `corsPolicy`.

use undermesh_model::traffic::{AllowedOrigins, Cors, TextPattern};

use super::{
    findings::{Findings, Path},
    shapes::{self, UnmatchedPreflights},
};

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

/// Reads `corsPolicy`.
pub(super) fn cors(findings: &mut Findings<'_>, at: &Path, shape: &shapes::CorsPolicy) -> Cors {
    let methods = at.field("allowMethods");
    for (index, method) in shape.allow_methods.iter().enumerate() {
        if !METHODS.contains(&method.as_str()) {
            let what = format!("{method:?} is no method of HTTP");
            findings.refuse(&methods.item(index), what, "write one such as GET, or *");
        }
    }
    names(findings, &at.field("allowHeaders"), &shape.allow_headers);
    names(findings, &at.field("exposeHeaders"), &shape.expose_headers);
    let age = at.field("maxAge");
    let max_age = shape.max_age.as_ref().and_then(|text| findings.duration(&age, text));
    if max_age.is_some_and(|time| time.subsec_nanos() != 0) {
        findings.refuse(&age, "has parts of a second", "write whole seconds");
    }
    Cors {
        origins: origins(findings, at, shape),
        methods: shape.allow_methods.clone(),
        headers: shape.allow_headers.clone(),
        expose: shape.expose_headers.clone(),
        max_age,
        credentials: shape.allow_credentials.unwrap_or(false),
        forward_unmatched: shape.unmatched_preflights != UnmatchedPreflights::Ignore,
    }
}

/// `allowOrigins`; where it is empty, the older `allowOrigin`, which knows exact origins only.
fn origins(findings: &mut Findings<'_>, at: &Path, shape: &shapes::CorsPolicy) -> AllowedOrigins {
    let at = at.field("allowOrigins");
    let mut read = Vec::with_capacity(shape.allow_origins.len());
    for (index, origin) in shape.allow_origins.iter().enumerate() {
        let at = at.item(index);
        let shapes::StringMatch { exact, prefix, regex } = origin;
        if [exact, prefix, regex].into_iter().flatten().all(String::is_empty) {
            findings.refuse(&at, "says nothing", "write exact, prefix or regex");
        } else {
            read.extend(findings.text(&at, origin));
        }
    }
    if shape.allow_origins.is_empty() {
        read.extend(shape.allow_origin.iter().cloned().map(TextPattern::Exact));
    }
    AllowedOrigins(read)
}

fn names(findings: &mut Findings<'_>, at: &Path, names: &[String]) {
    for (index, name) in names.iter().enumerate().filter(|(_, name)| *name != "*") {
        findings.header_name(&at.item(index), name);
    }
}
