//! A request's line of the access log. Field names are API (docs/reference/access-log.md).

use std::borrow::Cow;

use crate::{
    RequestInfo,
    json::{Object, key},
    line::{self, cut},
    told::Carried,
};

/// Longest text of a client's, in characters.
const MAX_PATH: usize = 1024;
pub(crate) const MAX_TEXT: usize = 256;

/// Writes what is a request's own.
pub(crate) fn write(line: &mut Object<'_>, request: &RequestInfo<'_>) {
    let &RequestInfo { sent, received, duration, reason, detail, .. } = request;
    line::carried(line, Carried { sent, received, duration });
    line::because(line, reason, &request.flags.text(), detail);
    line.text(key!("method"), request.method);
    line.text(key!("authority"), request.authority);
    line.text(key!("path"), request.path);
    line.text(key!("protocol"), request.protocol);
    if let Some(status) = request.status {
        line.number(key!("status"), status.into());
    }
    if let Some(status) = request.grpc_status {
        line.number(key!("grpc_status"), status.into());
    }
    if let Some(policy) = request.policy {
        line.joined(key!("policy"), &policy.words());
    }
    if let Some(id) = request.request_id {
        line.text(key!("request_id"), id);
    }
    if let Some(id) = request.trace_id {
        line.text(key!("trace_id"), id);
    }
    if let Some(route) = request.route {
        line.joined(key!("route"), &route.words());
    }
    line.filled(key!("route_name"), request.route_name);
    if let Some(cluster) = request.cluster {
        line.joined(key!("cluster"), &cluster.words(&mut itoa::Buffer::new()));
    }
    line.number(key!("attempts"), request.attempts.into());
    if let Some(time) = request.upstream_time {
        line.milliseconds(key!("upstream_ms"), time);
    }
    if let Some(agent) = request.user_agent {
        line.text(key!("user_agent"), agent);
    }
}

/// A path as it may be written down: without values, and no longer than lines have it.
pub fn path_as_logged(path: &str) -> Cow<'_, str> {
    match without_values(path) {
        Cow::Borrowed(path) => Cow::Borrowed(cut(path, MAX_PATH)),
        Cow::Owned(path) => Cow::Owned(cut(&path, MAX_PATH).to_owned()),
    }
}

/// The same, as long as it is.
pub(crate) fn without_values(path: &str) -> Cow<'_, str> {
    // Without a way out in the middle, sixteen bytes are looked at in one step.
    if !path.bytes().fold(false, |found, byte| found | (byte == b'?') | (byte == b';')) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() + 8);
    push_without_values(&mut text, path);
    Cow::Owned(text)
}

/// Where in a path something stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Segment,
    Parameters,
    Query,
}

/// Values in its query and in parameters of its segments may be tokens, passwords, or addresses of people, and logs go
/// further than requests do. What has no name may be one, too: `?a=1&b=2&3` is `?a=*&b=*&*`.
fn push_without_values(text: &mut String, path: &str) {
    let mut place = Place::Segment;
    // Where that begins of which nothing is written, and whether it is a value whose name is.
    let (mut begin, mut is_named) = (0, false);
    for (at, byte) in path.bytes().enumerate() {
        let next = match (place, byte) {
            (Place::Segment | Place::Parameters, b';') => Place::Parameters,
            (Place::Segment | Place::Parameters, b'?') | (Place::Query, b'&') => Place::Query,
            (Place::Parameters, b'/') => Place::Segment,
            (Place::Parameters | Place::Query, b'=') if !is_named => {
                text.push_str(&path[begin..=at]);
                (begin, is_named) = (at + 1, true);
                continue;
            }
            _ => continue,
        };
        match place {
            Place::Segment => text.push_str(&path[begin..at]),
            Place::Parameters | Place::Query if is_named || begin < at => text.push('*'),
            Place::Parameters | Place::Query => {}
        }
        text.push(char::from(byte));
        (place, begin, is_named) = (next, at + 1, false);
    }
    match place {
        Place::Segment => text.push_str(&path[begin..]),
        _ if is_named || begin < path.len() => text.push('*'),
        _ => {}
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

    #[test]
    fn what_is_logged_is_no_longer_than_it_may_be() {
        let long = "/é".repeat(MAX_PATH);
        assert_eq!(path_as_logged(&long), cut(&long, MAX_PATH));
        assert_eq!(path_as_logged(&format!("{long}?a=b")), cut(&long, MAX_PATH));
        assert_eq!(path_as_logged("/a?b=c"), "/a?b=*");
    }
}
