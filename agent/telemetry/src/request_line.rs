//! A request's line of the access log. Field names are API (docs/reference/access-log.md).

use std::borrow::Cow;

use serde::Serialize;
use undermesh_model::ResourceRef;

use crate::{
    ClusterName, ConnectionInfo, RequestInfo,
    record::{Line, Shown, cut, milliseconds},
};

/// Longest text of a client's, in characters.
const MAX_PATH: usize = 1024;
const MAX_TEXT: usize = 256;

#[derive(Serialize)]
pub(crate) struct RequestLine<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    method: Cow<'a, str>,
    authority: Cow<'a, str>,
    path: Cow<'a, str>,
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Shown<&'a ResourceRef>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<Shown<&'a ResourceRef>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    route_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Shown<ClusterName<'a>>>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
}

impl<'a> RequestLine<'a> {
    pub(crate) fn new(
        connection: u64,
        info: &'a ConnectionInfo,
        request: &'a RequestInfo<'a>,
    ) -> Self {
        Self {
            line: Line::of_request(connection, info, request),
            method: cut(request.method, MAX_TEXT),
            authority: cut(request.authority, MAX_TEXT),
            path: match without_values(request.path) {
                Cow::Borrowed(path) => cut(path, MAX_PATH),
                Cow::Owned(path) => cut(&path, MAX_PATH).into_owned().into(),
            },
            protocol: request.protocol,
            status: request.status,
            grpc_status: request.grpc_status,
            policy: request.policy.map(Shown),
            request_id: request.request_id.map(|id| cut(id, MAX_TEXT)),
            trace_id: request.trace_id.map(|id| cut(id, MAX_TEXT)),
            route: request.route.map(Shown),
            route_name: request.route_name,
            cluster: request.cluster.map(Shown),
            attempts: request.attempts,
            upstream_ms: request.upstream_time.map(milliseconds),
            user_agent: request.user_agent.map(|agent| cut(agent, MAX_TEXT)),
        }
    }
}

/// A path as it may be written down: values in its query and in parameters of its segments may be tokens,
/// passwords, or addresses of people, and logs go further than requests do. What has no name may be one, too.
pub(crate) fn without_values(path: &str) -> Cow<'_, str> {
    if !path.contains(['?', ';']) {
        return Cow::Borrowed(path);
    }
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let segment = |segment: &str| match segment.split_once(';') {
        Some((name, parameters)) => format!("{name};{}", names(parameters, ';')),
        None => segment.to_owned(),
    };
    let path = path.split('/').map(segment).collect::<Vec<_>>().join("/");
    Cow::Owned(match query {
        Some(query) => format!("{path}?{}", names(query, '&')),
        None => path,
    })
}

/// `a=1&b=2&3` as `a=*&b=*&*`.
fn names(pairs: &str, separator: char) -> String {
    let name = |pair: &str| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=*"),
        None if pair.is_empty() => String::new(),
        None => "*".to_owned(),
    };
    pairs.split(separator).map(name).collect::<Vec<_>>().join(&separator.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_written_down() {
        for (path, written) in [
            ("/a/b", "/a/b"),
            ("/a?token=secret&user=me", "/a?token=*&user=*"),
            ("/a?secret", "/a?*"),
            ("/a?x=1=2&&y", "/a?x=*&&*"),
            ("/a?", "/a?"),
            ("/a;jsessionid=secret/b;v=1;secret?c=d", "/a;jsessionid=*/b;v=*;*?c=*"),
            ("/a?b=c?d=secret", "/a?b=*"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(without_values(path), written, "{path}");
        }
    }
}
