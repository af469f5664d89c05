//! Redirects, direct responses and rewrites.

use undermesh_model::traffic::{
    DirectResponse, PathRewrite, Redirect, RedirectPath, RedirectPort, Rewrite,
};

use super::{
    findings::{Findings, Path},
    shapes,
};

/// The largest body of a direct response, in bytes.
const MAX_BODY: usize = 1 << 20;
/// A body that is large enough to be worth a word.
const LARGE_BODY: usize = 100 << 10;
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// `redirect`.
pub(super) fn redirect(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: &shapes::Redirect,
) -> Redirect {
    let shapes::Redirect { uri, authority, port, derive_port, scheme, redirect_code } = shape;
    let says_port = port.is_some() || derive_port.is_some();
    if uri.is_empty() && authority.is_empty() && scheme.is_empty() && !says_port {
        findings.refuse(at, "says nothing", "write uri, authority, scheme or port");
    }
    if port.is_some() && derive_port.is_some() {
        findings.refuse(at, "has both port and derivePort", "write one of them");
    }
    if *port == Some(0) {
        findings.refuse(&at.field("port"), "is 0", "write a port from 1 to 65535");
    }
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        let what = format!("{scheme:?} is no scheme");
        findings.refuse(&at.field("scheme"), what, "write http or https");
    }
    let code = if *redirect_code == 0 { 301 } else { *redirect_code };
    if !REDIRECTS.contains(&code) {
        let what = format!("{code} is no status of a redirect");
        findings.refuse(&at.field("redirectCode"), what, "write 301, 302, 303, 307 or 308");
    }
    let derived = derive_port.map(|port| match port {
        shapes::DerivePort::FromProtocolDefault => RedirectPort::OfScheme,
        shapes::DerivePort::FromRequestPort => RedirectPort::OfRequest,
    });
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    Redirect {
        code,
        scheme: said(scheme),
        authority: said(authority),
        port: port.map(RedirectPort::Number).or(derived),
        path: said(uri).map(RedirectPath::Full),
    }
}

/// `directResponse`.
pub(super) fn direct(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: &shapes::DirectResponse,
) -> DirectResponse {
    status(findings, &at.field("status"), shape.status);
    let at = at.field("body");
    let body = match &shape.body {
        None => Vec::new(),
        Some(shapes::Body { string: Some(_), bytes: Some(_) }) => {
            findings.refuse(&at, "has both string and bytes", "write one of them");
            Vec::new()
        }
        Some(shapes::Body { string: Some(text), .. }) => text.clone().into_bytes(),
        Some(shapes::Body { bytes, .. }) => bytes.clone().unwrap_or_default().0,
    };
    if body.len() > MAX_BODY {
        let what = format!("is longer than {MAX_BODY} bytes");
        findings.refuse(&at, what, "let a service answer");
    } else if body.len() > LARGE_BODY {
        let what = format!("has {} bytes, which every node keeps", body.len());
        findings.warn(&at, "large-body", what, "let a service answer");
    }
    DirectResponse { status: shape.status, body }
}

/// A status of HTTP.
pub(super) fn status(findings: &mut Findings<'_>, at: &Path, status: u16) {
    if !(200..600).contains(&status) {
        let what = format!("{status} is no status of an answer");
        findings.refuse(at, what, "write a number from 200 to 599");
    }
}

/// `rewrite`.
pub(super) fn rewrite(findings: &mut Findings<'_>, at: &Path, shape: &shapes::Rewrite) -> Rewrite {
    let shapes::Rewrite { uri, authority, uri_regex_rewrite } = shape;
    if uri.is_empty() && authority.is_empty() && uri_regex_rewrite.is_none() {
        findings.refuse(at, "says nothing", "write uri, uriRegexRewrite or authority");
    }
    if !uri.is_empty() && uri_regex_rewrite.is_some() {
        findings.refuse(at, "has both uri and uriRegexRewrite", "write one of them");
    }
    let path = match uri_regex_rewrite {
        Some(shape) => Some(regex_rewrite(findings, &at.field("uriRegexRewrite"), shape)),
        None => (!uri.is_empty()).then(|| PathRewrite::Matched(uri.clone())),
    };
    Rewrite { path, authority: (!authority.is_empty()).then(|| authority.clone()) }
}

fn regex_rewrite(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: &shapes::RegexRewrite,
) -> PathRewrite {
    let shapes::RegexRewrite { pattern, rewrite } = shape;
    if pattern.is_empty() || rewrite.is_empty() {
        findings.refuse(at, "lacks match or rewrite", "write both");
    } else {
        findings.regex(&at.field("match"), pattern);
        if let Some(group) = missing_group(pattern, rewrite) {
            let what = format!("\\{group} is no group of the pattern");
            findings.refuse(&at.field("rewrite"), what, "write \\0 to \\9, and \\\\ for \\");
        }
    }
    PathRewrite::Regex { pattern: pattern.clone(), replacement: rewrite.clone() }
}

/// What stands after a backslash and is neither another nor a group of the pattern.
fn missing_group(pattern: &str, replacement: &str) -> Option<String> {
    let groups = regex::Regex::new(pattern).ok()?.captures_len();
    let mut rest = replacement.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            continue;
        }
        match rest.next() {
            Some('\\') => {}
            Some(digit) if digit.to_digit(10).is_some_and(|one| (one as usize) < groups) => {}
            other => return Some(other.map(String::from).unwrap_or_default()),
        }
    }
    None
}
