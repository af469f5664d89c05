//! Authorizers that are asked with a request like the one in question.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version,
    header::{AUTHORIZATION, CONTENT_LENGTH, LOCATION, WWW_AUTHENTICATE},
    uri::PathAndQuery,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use undermesh_model::{HttpAuthorizer, TextMatch};

use super::{
    Allowed, Denied, FINAL, NoVerdict, Shown, Verdict,
    changes::{Changes, HeaderChange, How, removals},
};
use crate::{
    http::{Head, remove_hop_by_hop},
    upstream::Body,
};

/// Says whether there is more of the body than is shown.
pub(super) const PARTIAL: &str = "x-envoy-auth-partial-body";
/// Names headers of the request that are to be removed, in an answer that lets it pass.
const REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// The question.
pub(super) fn request(
    shown: &Shown<'_>,
    rule: &HttpAuthorizer,
) -> Result<Request<Body>, NoVerdict> {
    let Head { parts, .. } = shown.head;
    let body = shown.body.as_ref().map(|(body, _)| body.clone()).unwrap_or_default();
    let length = body.len();
    let mut request = Request::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = target(&parts.uri, &rule.path_prefix)?;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    for (name, value) in &parts.headers {
        if *name == AUTHORIZATION || is_any(&rule.request_headers, name) {
            headers.append(name, value.clone());
        }
    }
    remove_hop_by_hop(headers);
    // Only we may say it.
    headers.remove(PARTIAL);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some((_, more)) = shown.body {
        headers.insert(PARTIAL, HeaderValue::from_static(if more { "true" } else { "false" }));
    }
    for (name, value) in &rule.additional_headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    Ok(request)
}

/// The same host and path, behind the prefix.
fn target(uri: &Uri, prefix: &str) -> Result<Uri, NoVerdict> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let mut parts = uri.clone().into_parts();
    let target = PathAndQuery::try_from(format!("{prefix}{path}"));
    parts.path_and_query = Some(target.map_err(|_| no_target())?);
    Uri::from_parts(parts).map_err(|_| no_target())
}

fn no_target() -> NoVerdict {
    NoVerdict::Unusable("the path of the request cannot follow the prefix".to_owned())
}

/// The answer: only 200 lets pass, and 5xx is a failure of the authorizer's own.
pub(super) fn verdict(
    rule: &HttpAuthorizer,
    status: StatusCode,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Verdict, NoVerdict> {
    if status.is_server_error() {
        return Err(NoVerdict::Unreachable(format!("it answers with {}", status.as_u16())));
    }
    if !FINAL.contains(&status.as_u16()) {
        return Err(NoVerdict::Unusable(format!("it answers with {}", status.as_u16())));
    }
    let of = |wanted: &dyn Fn(&HeaderName) -> bool| chosen(headers, wanted);
    if status == StatusCode::OK {
        let removals = removals(
            headers.get_all(REMOVE).iter().filter_map(|value| value.to_str().ok()).flat_map(split),
        )?;
        return Ok(Verdict::Allowed(Allowed {
            remove: removals,
            request: of(&|name| is_any(&rule.upstream_on_allow, name))?,
            answer: of(&|name| is_any(&rule.downstream_on_allow, name))?,
            ..Allowed::default()
        }));
    }
    let always = [LOCATION, WWW_AUTHENTICATE];
    let patterns = &rule.downstream_on_deny;
    let wanted =
        |name: &HeaderName| patterns.is_empty() || always.contains(name) || is_any(patterns, name);
    Ok(Verdict::Denied(Denied { status, headers: of(&wanted)?, body }))
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
}

/// Headers of an answer that are passed on: each replaces what is there, several of one name stay several.
fn chosen(
    headers: &HeaderMap,
    wanted: &dyn Fn(&HeaderName) -> bool,
) -> Result<Vec<HeaderChange>, NoVerdict> {
    let mut own = headers.clone();
    remove_hop_by_hop(&mut own);
    let mut changes = Changes::new();
    for name in own.keys().filter(|name| *name != REMOVE && wanted(name)) {
        for (number, value) in own.get_all(name).iter().enumerate() {
            let how = if number == 0 { How::Set } else { How::Append };
            changes.push(HeaderChange { name: name.clone(), value: value.clone(), how })?;
        }
    }
    Ok(changes.list())
}

fn is_any(patterns: &[TextMatch], name: &HeaderName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name.as_str()))
}
