//! A request's line of the access log. Field names are API (docs/reference/access-log.md).

use std::borrow::Cow;

use crate::{RequestInfo, json::Object, line, told::Carried};

/// Longest text of a client's, in characters.
pub(crate) const MAX_PATH: usize = 1024;
pub(crate) const MAX_TEXT: usize = 256;

/// Writes what is a request's own.
pub(crate) fn write(line: &mut Object<'_>, request: &RequestInfo<'_>) {
    let &RequestInfo { sent, received, duration, reason, detail, .. } = request;
    line::carried(line, Carried { sent, received, duration });
    line::because(line, reason, request.flags, detail);
    line.text("method", request.method);
    line.text("authority", request.authority);
    line.text("path", request.path);
    line.text("protocol", request.protocol);
    if let Some(status) = request.status {
        line.number("status", status.into());
    }
    if let Some(status) = request.grpc_status {
        line.number("grpc_status", status.into());
    }
    if let Some(policy) = request.policy {
        line.joined("policy", &policy.words());
    }
    if let Some(id) = request.request_id {
        line.text("request_id", id);
    }
    if let Some(id) = request.trace_id {
        line.text("trace_id", id);
    }
    if let Some(route) = request.route {
        line.joined("route", &route.words());
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
        line.text("user_agent", agent);
    }
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
