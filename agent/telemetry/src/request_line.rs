//! A request's line of the access log. Field names are API (docs/reference/access-log.md).

use std::{borrow::Cow, net::SocketAddr};

use undermesh_model::{ResourceRef, object_words};

use crate::{
    RequestInfo,
    line::{self, Ends, cut},
};

/// Longest text of a client's, in characters.
const MAX_PATH: usize = 1024;
const MAX_TEXT: usize = 256;

/// Writes the line of a request between these ends, of which `upstream` is the destination's address where the
/// request knows no better.
pub(crate) fn write(
    text: &mut String,
    ends: &Ends,
    upstream: Option<SocketAddr>,
    request: &RequestInfo<'_>,
) {
    let mut line = ends.begin(text, "request", request.endpoint.or(upstream));
    line.number("generation", request.generation);
    line::carried(&mut line, request.sent, request.received, request.duration);
    line::because(&mut line, request.reason, request.flags, request.detail);
    line.text("method", cut(request.method, MAX_TEXT));
    line.text("authority", cut(request.authority, MAX_TEXT));
    line.text("path", cut(&without_values(request.path), MAX_PATH));
    line.text("protocol", request.protocol);
    if let Some(status) = request.status {
        line.number("status", status.into());
    }
    if let Some(status) = request.grpc_status {
        line.number("grpc_status", status.into());
    }
    if let Some(policy) = request.policy {
        line.joined("policy", &object(policy));
    }
    if let Some(id) = request.request_id {
        line.text("request_id", cut(id, MAX_TEXT));
    }
    if let Some(id) = request.trace_id {
        line.text("trace_id", cut(id, MAX_TEXT));
    }
    if let Some(route) = request.route {
        line.joined("route", &object(route));
    }
    line.filled("route_name", request.route_name);
    if let Some(cluster) = request.cluster {
        line.joined("cluster", &cluster.words(&mut itoa::Buffer::new()));
    }
    line.number("attempts", request.attempts.into());
    if let Some(time) = request.upstream_time {
        line.milliseconds("upstream_ms", time);
    }
    if let Some(agent) = request.user_agent {
        line.text("user_agent", cut(agent, MAX_TEXT));
    }
    line.close();
}

/// As it is displayed, in its parts: what is written for every request is not formatted.
fn object(object: &ResourceRef) -> [&str; 5] {
    object_words(object.kind, &object.namespace, &object.name)
}

/// A path as it may be written down: values in its query and in parameters of its segments may be tokens,
/// passwords, or addresses of people, and logs go further than requests do. What has no name may be one, too.
pub(crate) fn without_values(path: &str) -> Cow<'_, str> {
    if !path.contains(['?', ';']) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() + 8);
    let (path, query) =
        path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    for (index, segment) in path.split('/').enumerate() {
        text.push_str(if index == 0 { "" } else { "/" });
        let (name, parameters) = segment.split_once(';').unwrap_or((segment, ""));
        text.push_str(name);
        if name.len() < segment.len() {
            text.push(';');
            push_names(&mut text, parameters, ';');
        }
    }
    if let Some(query) = query {
        text.push('?');
        push_names(&mut text, query, '&');
    }
    Cow::Owned(text)
}

/// `a=1&b=2&3` as `a=*&b=*&*`.
fn push_names(text: &mut String, pairs: &str, separator: char) {
    for (index, pair) in pairs.split(separator).enumerate() {
        if index > 0 {
            text.push(separator);
        }
        if let Some((name, _)) = pair.split_once('=') {
            text.push_str(name);
            text.push('=');
        }
        if !pair.is_empty() {
            text.push('*');
        }
    }
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
