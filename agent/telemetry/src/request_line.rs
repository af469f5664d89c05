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

/// What lines of requests have in common that are alike, as they say it: in pieces, between which stands what is a
/// request's own.
#[derive(Debug, Default)]
pub(crate) struct Same {
    text: String,
    /// Where the pieces end: what is said of its end, of its head, of its answer, of its way, and of its client.
    ends: [usize; 5],
}

impl Same {
    pub(crate) fn of(request: &RequestInfo<'_>) -> Self {
        let mut same = Self::default();
        let mut line = Object::within(&mut same.text);
        line::reason(&mut line, request.reason, &request.flags.text());
        let end = line.len();
        line.text(key!("method"), request.method);
        line.text(key!("authority"), request.authority);
        let head = line.len();
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
        let answer = line.len();
        if let Some(route) = request.route {
            line.joined(key!("route"), &route.named().words());
        }
        if let Some(name) = request.route_name {
            line.filled(key!("route_name"), cut(name, MAX_TEXT));
        }
        if let Some(cluster) = request.cluster {
            line.shown(key!("cluster"), cluster);
        }
        line.number(key!("attempts"), request.attempts.into());
        let way = line.len();
        if let Some(agent) = request.user_agent {
            line.text(key!("user_agent"), agent);
        }
        same.ends = [end, head, answer, way, line.len()];
        same
    }

    fn pieces(&self) -> [&str; 5] {
        let mut begin = 0;
        self.ends.map(|end| {
            let piece = self.text.get(begin..end).unwrap_or_default();
            begin = end;
            piece
        })
    }
}

/// Writes what is known of a request, given what it has in common with others.
pub(crate) fn write(line: &mut Object<'_>, request: &RequestInfo<'_>, same: &Same) {
    let &RequestInfo { sent, received, duration, .. } = request;
    let [end, head, answer, way, client] = same.pieces();
    line::carried(line, Carried { sent, received, duration });
    line.members(end);
    line.known(key!("detail"), request.detail);
    line.follow(head);
    line.text(key!("path"), request.path);
    line.follow(answer);
    line.known(key!("request_id"), request.request_id);
    if let Some(name) = request.trace_id {
        line.plain(key!("trace_id"), name.digits(&mut [0; 32]));
    }
    line.follow(way);
    if let Some(time) = request.upstream_time {
        line.milliseconds(key!("upstream_ms"), time);
    }
    line.follow(client);
}

/// A path as it may be written down: without values, and no longer than lines have it.
pub fn path_as_logged(path: &str) -> Cow<'_, str> {
    if !may_have_values(path) {
        return Cow::Borrowed(cut(path, MAX_PATH));
    }
    let mut text = String::with_capacity(path.len());
    push_path_as_logged(&mut text, path);
    Cow::Owned(text)
}

/// Appends a path as it may be written down.
pub(crate) fn push_path_as_logged(text: &mut String, path: &str) {
    if !may_have_values(path) {
        text.push_str(cut(path, MAX_PATH));
        return;
    }
    let begin = text.len();
    push_without_values(text, path);
    text.truncate(begin + cut(&text[begin..], MAX_PATH).len());
}

/// The same, as long as it is.
pub(crate) fn without_values(path: &str) -> Cow<'_, str> {
    if !may_have_values(path) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len() + 8);
    push_without_values(&mut text, path);
    Cow::Owned(text)
}

fn may_have_values(path: &str) -> bool {
    // Without a way out in the middle, sixteen bytes are looked at in one step.
    path.bytes().fold(false, |found, byte| found | (byte == b'?') | (byte == b';'))
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
    let (mut place, mut begin) = (Place::Segment, 0);
    for (at, byte) in path.bytes().enumerate() {
        let next = match (place, byte) {
            (Place::Segment | Place::Parameters, b';') => Place::Parameters,
            (Place::Segment | Place::Parameters, b'?') | (Place::Query, b'&') => Place::Query,
            (Place::Parameters, b'/') => Place::Segment,
            _ => continue,
        };
        push_part(text, place, &path[begin..at]);
        text.push(char::from(byte));
        (place, begin) = (next, at + 1);
    }
    push_part(text, place, &path[begin..]);
}

/// What may follow the padding of base64 within a value that has no name, and hardly ever begins one that has: more
/// padding, or what the parts of signed values are joined with, as in `?PAYLOAD==--SIGNATURE`.
const AFTER_PADDING: [&str; 5] = ["=", ";", ",", ".", "--"];

/// Writes a segment, a parameter, or a part of the query. A name is one if a value follows that is no padding.
fn push_part(text: &mut String, place: Place, part: &str) {
    let is_padding =
        |rest: &str| rest.is_empty() || AFTER_PADDING.iter().any(|after| rest.starts_with(after));
    match (place, part.split_once('=')) {
        (Place::Segment, _) => text.push_str(part),
        (_, Some((name, value))) if !is_padding(value) => {
            text.push_str(name);
            text.push_str("=*");
        }
        _ if part.is_empty() => {}
        _ => text.push('*'),
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
            // Base64 that has no name ends like a name.
            ("/a?c2VjcmV0cw==", "/a?*"),
            ("/a?c2VjcmV0MQ=&b=c", "/a?*&b=*"),
            ("/a?b=c&c2VjcmV0MQ=", "/a?b=*&*"),
            ("/a;c2VjcmV0MQ=/b;c2VjcmV0MQ==?c2VjcmV0cw=", "/a;*/b;*?*"),
            ("/a?c2VjcmV0=--5160f9&c2VjcmV0cw==--5160f9", "/a?*&*"),
            ("/a?c2VjcmV0=.c2VjcmV0=.5160f9", "/a?*"),
            ("/a?c2VjcmV0=;b=1&c2VjcmV0=,b=1", "/a?*&*"),
            ("/a?c2VjcmV0MQ%3D", "/a?*"),
            ("/a?name=", "/a?*"),
            ("/a?=secret", "/a?=*"),
            ("/a?b=-1&c=/d&e=%3D", "/a?b=*&c=*&e=*"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(without_values(path), written, "{path}");
        }
    }

    #[test]
    fn whatever_a_path_is_made_of_only_segments_and_names_before_a_value_are_written() {
        const OF: [char; 8] = ['/', ';', '?', '&', '=', '-', 'a', 'b'];
        const LONGEST: u32 = 6;
        for length in 0..=LONGEST {
            for number in 0..OF.len().pow(length) {
                let digits = (0..length).map(|place| number / OF.len().pow(place) % OF.len());
                let path: String = digits.map(|digit| OF[digit]).collect();
                let written = without_values(&path);
                assert_eq!(written, expected(&path), "{path}");
                // Written again it is what it is: nothing of it is a value.
                assert_eq!(without_values(&written), written, "{path}");
            }
        }
    }

    /// The same in other words: each part by itself, told by what may stand before it.
    fn expected(path: &str) -> String {
        let part = |part: &str| match part.find('=') {
            _ if part.is_empty() => String::new(),
            Some(at)
                if !part[at + 1..].is_empty()
                    && !part[at + 1..].starts_with('=')
                    && !part[at + 1..].starts_with(';')
                    && !part[at + 1..].starts_with("--") =>
            {
                format!("{}*", &part[..=at])
            }
            _ => "*".to_owned(),
        };
        let parts = |text: &str, by: char| text.split(by).map(part).collect::<Vec<_>>();
        let (segments, query) = match path.split_once('?') {
            Some((segments, query)) => (segments, Some(query)),
            None => (path, None),
        };
        let segments = segments.split('/').map(|segment| match segment.split_once(';') {
            Some((segment, parameters)) => {
                format!("{segment};{}", parts(parameters, ';').join(";"))
            }
            None => segment.to_owned(),
        });
        let segments = segments.collect::<Vec<_>>().join("/");
        match query {
            Some(query) => format!("{segments}?{}", parts(query, '&').join("&")),
            None => segments,
        }
    }

    #[test]
    fn what_is_logged_is_no_longer_than_it_may_be() {
        let long = "/é".repeat(MAX_PATH);
        let with_values = format!("{long}?a=b");
        for (path, logged) in [
            (long.as_str(), cut(&long, MAX_PATH)),
            (&with_values, cut(&long, MAX_PATH)),
            ("/a?b=c", "/a?b=*"),
            ("/a", "/a"),
        ] {
            assert_eq!(path_as_logged(path), logged);
            let mut text = "before".to_owned();
            push_path_as_logged(&mut text, path);
            assert_eq!(text.strip_prefix("before"), Some(logged));
        }
    }
}
