//! Headers to change.

use std::collections::BTreeMap;

use undermesh_model::traffic::HeaderOps;

use super::{
    findings::{Findings, Path, is_token},
    shapes,
};

/// What the authority is called among headers.
const HOST: &str = "host";

/// Headers to change in the request and in the response.
pub(super) fn operations(
    findings: &mut Findings<'_>,
    at: &Path,
    shape: &shapes::Headers,
) -> HeaderOps {
    let shapes::Headers { request, response } = shape;
    let (to, back) = (at.field("request"), at.field("response"));
    let mut request_set = values(findings, &to.field("set"), &request.set, true);
    let request_add = values(findings, &to.field("add"), &request.add, true);
    // There is one authority: to add another is to change it.
    let (authority, request_add) = request_add.into_iter().partition(|(name, _)| name == HOST);
    request_set.extend::<Vec<_>>(authority);
    HeaderOps {
        request_remove: removed(findings, &to, &request.remove),
        request_set,
        request_add,
        response_remove: removed(findings, &back, &response.remove),
        response_set: values(findings, &back.field("set"), &response.set, false),
        response_add: values(findings, &back.field("add"), &response.add, false),
    }
}

/// Istio lets one place at most say what the authority becomes.
pub(super) fn check_authority(
    findings: &mut Findings<'_>,
    at: &Path,
    rewrite: Option<&shapes::Rewrite>,
    headers: &shapes::Headers,
) {
    let shapes::HeaderOperations { set, add, .. } = &headers.request;
    let rewritten = rewrite.is_some_and(|rewrite| !rewrite.authority.is_empty());
    let changed = set.keys().chain(add.keys()).filter(|name| is_authority(name)).count();
    if changed + usize::from(rewritten) > 1 {
        let what = "the authority is changed in more than one place";
        findings.refuse(at, what, "write rewrite.authority alone");
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn removed(findings: &mut Findings<'_>, at: &Path, names: &[String]) -> Vec<String> {
    let at = at.field("remove");
    for (index, name) in names.iter().enumerate() {
        check_name(findings, &at.item(index), name, false);
    }
    names.iter().map(|name| name.to_ascii_lowercase()).collect()
}

fn values(
    findings: &mut Findings<'_>,
    at: &Path,
    values: &BTreeMap<String, String>,
    authority: bool,
) -> Vec<(String, String)> {
    let mut read = Vec::with_capacity(values.len());
    for (name, value) in values {
        let at = at.field(name);
        check_name(findings, &at, name, authority);
        if value.bytes().any(|byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) {
            findings.refuse(&at, "its value has control characters", "leave them out");
        }
        let name = if is_authority(name) { HOST.to_owned() } else { name.to_ascii_lowercase() };
        match literal(value) {
            Some(value) => read.push((name, value)),
            None => {
                let what = "its value has a command of Envoy's, which is not supported";
                let remedy = "the header stays as it is; write %% for a percent sign";
                findings.warn(&at, "not-supported", what, remedy);
            }
        }
    }
    read
}

fn check_name(findings: &mut Findings<'_>, at: &Path, name: &str, authority: bool) {
    if is_authority(name) && !authority {
        let what = format!("{name:?} cannot be changed here");
        findings.refuse(at, what, "write rewrite.authority, or headers.request.set");
    } else if !is_authority(name) && !is_token(name) {
        findings.refuse(at, format!("{name:?} is no name of a header"), "correct it");
    }
}

/// The text that a value stands for; `None` where Envoy would fill something in.
fn literal(value: &str) -> Option<String> {
    let escaped = value.replace("%%", "\0");
    (!escaped.contains('%')).then(|| escaped.replace('\0', "%"))
}
