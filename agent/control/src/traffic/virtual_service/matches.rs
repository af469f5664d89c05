//! Which requests a rule is about.

use std::collections::BTreeMap;

use undermesh_model::traffic::{HttpMatch, PathMatch, TextPattern};

use super::{
    findings::{Findings, Path},
    shapes,
};

/// The gateway that stands for all clients in the mesh.
const MESH: &str = "mesh";
/// How Istio writes claims of a request's token as if they were headers.
const CLAIMS: &str = "@request.auth.claims";

/// Whether a list of gateways is about clients in the mesh; an empty one is.
pub(super) fn for_mesh(findings: &mut Findings<'_>, at: &Path, gateways: &[String]) -> bool {
    for (index, name) in gateways.iter().enumerate() {
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() > 2 || parts.iter().any(|part| part.is_empty()) {
            let what = format!("{name:?} is no name of a gateway");
            findings.refuse(&at.item(index), what, "write mesh, NAME or NAMESPACE/NAME");
        }
    }
    gateways.is_empty() || gateways.iter().any(|name| name == MESH)
}

/// The alternatives of a rule that are for the mesh; `None` where there are some and none is.
pub(super) fn http(
    findings: &mut Findings<'_>,
    at: &Path,
    shapes: &[shapes::HttpMatch],
) -> Option<Vec<HttpMatch>> {
    let mut read = Vec::with_capacity(shapes.len());
    for (index, shape) in shapes.iter().enumerate() {
        let at = at.item(index);
        if asks_for_claims(findings, &at, shape) {
            continue;
        }
        let alternative = one(findings, &at, shape);
        if for_mesh(findings, &at.field("gateways"), &shape.gateways) {
            read.push(alternative);
        }
    }
    (shapes.is_empty() || !read.is_empty()).then_some(read)
}

/// Whether a match is about a token's claims: nobody has verified one where routes are chosen, so that the match
/// never holds.
fn asks_for_claims(findings: &mut Findings<'_>, at: &Path, shape: &shapes::HttpMatch) -> bool {
    let fields = [("headers", &shape.headers), ("withoutHeaders", &shape.without_headers)];
    let claims = fields.into_iter().find_map(|(field, names)| {
        names.keys().find(|name| name.starts_with(CLAIMS)).map(|name| at.field(field).field(name))
    });
    let Some(at) = claims else { return false };
    let what = "claims of tokens are known at the destination alone, which verifies them: the match never holds";
    let remedy = "match a header that the client sends, or decide in an AuthorizationPolicy";
    findings.warn(&at, "not-supported", what, remedy);
    true
}

fn one(findings: &mut Findings<'_>, at: &Path, shape: &shapes::HttpMatch) -> HttpMatch {
    let mut filled = |name: &str, pattern: &Option<shapes::StringMatch>| {
        let pattern = pattern.as_ref()?;
        // Nothing said about the value: it is there, as it is in every request.
        findings.filled(&at.field(name), pattern)
    };
    let scheme = filled("scheme", &shape.scheme);
    let method = filled("method", &shape.method);
    let authority = filled("authority", &shape.authority);
    HttpMatch {
        name: shape.name.clone(),
        path: path(findings, &at.field("uri"), shape.uri.as_ref()),
        ignore_path_case: shape.ignore_uri_case,
        scheme,
        method,
        authority,
        headers: headers(findings, &at.field("headers"), &shape.headers),
        without_headers: without_headers(findings, at, &shape.without_headers),
        query: query(findings, &at.field("queryParams"), &shape.query_params),
        port: (shape.port != 0).then_some(shape.port),
        source_labels: labels(findings, &at.field("sourceLabels"), &shape.source_labels),
        source_namespace: findings
            .namespace_name(&at.field("sourceNamespace"), &shape.source_namespace),
    }
}

fn path(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: Option<&shapes::StringMatch>,
) -> Option<PathMatch> {
    match findings.text(at, shape?)? {
        TextPattern::Exact(path) => Some(PathMatch::Exact(path)),
        TextPattern::Prefix(path) => Some(PathMatch::Prefix(path)),
        TextPattern::Regex(pattern) => Some(PathMatch::Regex(pattern)),
        TextPattern::Present => None,
    }
}

type Patterns = BTreeMap<String, Option<shapes::StringMatch>>;

fn headers(
    findings: &mut Findings<'_>,
    at: &Path,
    shapes: &Patterns,
) -> Vec<(String, TextPattern)> {
    let mut read = Vec::with_capacity(shapes.len());
    for (name, shape) in shapes {
        let at = at.field(name);
        findings.header_name(&at, name);
        match shape {
            Some(shape) => {
                let pattern = findings.filled(&at, shape).unwrap_or(TextPattern::Present);
                read.push((name.to_ascii_lowercase(), pattern));
            }
            None => findings.refuse(&at, "is null", "write {} for any value"),
        }
    }
    read
}

fn without_headers(
    findings: &mut Findings<'_>,
    at: &Path,
    shapes: &Patterns,
) -> Vec<(String, TextPattern)> {
    let at = at.field("withoutHeaders");
    let mut read = Vec::with_capacity(shapes.len());
    for (name, shape) in shapes {
        let at = at.field(name);
        findings.header_name(&at, name);
        // `*` is no RE2; Istio reads it as "any value", here alone.
        let shape = shape.as_ref().filter(|shape| shape.regex.as_deref() != Some("*"));
        let pattern = shape.and_then(|shape| findings.filled(&at, shape));
        read.push((name.to_ascii_lowercase(), pattern.unwrap_or(TextPattern::Present)));
    }
    read
}

fn query(findings: &mut Findings<'_>, at: &Path, shapes: &Patterns) -> Vec<(String, TextPattern)> {
    let mut read = Vec::with_capacity(shapes.len());
    for (name, shape) in shapes {
        let pattern = shape.as_ref().and_then(|shape| findings.filled(&at.field(name), shape));
        read.push((name.clone(), pattern.unwrap_or(TextPattern::Present)));
    }
    read
}

/// `sourceLabels`, checked as labels of Kubernetes are.
pub(super) fn labels(
    findings: &mut Findings<'_>,
    at: &Path,
    labels: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for (name, value) in labels {
        let key = name.rsplit_once('/').map_or(name.as_str(), |(_, key)| key);
        if key.is_empty() || !is_label_text(key) || !is_label_text(value) {
            let what = format!("{value:?} is no label of a pod");
            findings.refuse(&at.field(name), what, "write the labels of the client's pod");
        }
    }
    labels.clone()
}

fn is_label_text(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = text.bytes().next().into_iter().chain(text.bytes().last());
    text.len() <= 63
        && text.bytes().all(inner)
        && ends.into_iter().all(|b| b.is_ascii_alphanumeric())
}
