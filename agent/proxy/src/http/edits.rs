//! Changes to headers, as routes ask for them.

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::HOST, uri::Authority};
use undermesh_snapshot::traffic::HeaderEdits;

/// Changes a request by edits of one level, in their order. `host` among the headers to set is its
/// authority.
pub(crate) fn request(level: &[&HeaderEdits], headers: &mut HeaderMap, uri: &mut Uri) {
    for name in level.iter().flat_map(|edits| &edits.request_remove) {
        headers.remove(name);
    }
    for edits in level {
        put(&edits.request_set, &edits.request_add, headers);
    }
    if let Some(host) = headers.remove(HOST) {
        set_authority(uri, &host);
    }
}

/// Changes a response, in the same way.
pub(crate) fn response(level: &[&HeaderEdits], headers: &mut HeaderMap) {
    for name in level.iter().flat_map(|edits| &edits.response_remove) {
        headers.remove(name);
    }
    for edits in level {
        put(&edits.response_set, &edits.response_add, headers);
    }
}

fn put(
    set: &[(HeaderName, HeaderValue)],
    add: &[(HeaderName, HeaderValue)],
    headers: &mut HeaderMap,
) {
    for (name, value) in set {
        headers.insert(name, value.clone());
    }
    for (name, value) in add {
        headers.append(name, value.clone());
    }
}

/// Replaces the authority of an absolute target, if that is one.
pub(crate) fn set_authority(uri: &mut Uri, value: &HeaderValue) {
    let Ok(authority) = Authority::try_from(value.as_bytes()) else { return };
    let mut parts = std::mem::take(uri).into_parts();
    parts.authority = Some(authority);
    // Fails for no parts that were a URI before.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_removed_then_set_then_added() {
        let name = |name| HeaderName::from_static(name);
        let value = |value| HeaderValue::from_static(value);
        let edits = HeaderEdits {
            request_remove: vec![name("x-a")],
            request_set: vec![(name("x-b"), value("new")), (name("host"), value("other:81"))],
            request_add: vec![(name("x-a"), value("added")), (name("x-b"), value("more"))],
            ..HeaderEdits::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-a", value("1"));
        headers.insert("x-b", value("old"));
        let mut uri = Uri::from_static("http://cart/a?b");
        request(&[&edits], &mut headers, &mut uri);
        assert_eq!(headers["x-a"], "added");
        let all: Vec<_> = headers.get_all("x-b").iter().collect();
        assert_eq!(all, ["new", "more"]);
        assert_eq!(uri, "http://other:81/a?b");
        assert!(!headers.contains_key("host"));
    }

    #[test]
    fn on_one_level_everything_is_removed_before_anything_is_set() {
        let (name, value) = (HeaderName::from_static("x-a"), HeaderValue::from_static("rule"));
        let rule =
            HeaderEdits { response_set: vec![(name.clone(), value)], ..HeaderEdits::default() };
        let target = HeaderEdits { response_remove: vec![name], ..HeaderEdits::default() };
        let mut headers = HeaderMap::new();
        response(&[&rule, &target], &mut headers);
        assert_eq!(headers["x-a"], "rule");
        response(&[&target], &mut headers);
        assert!(headers.is_empty());
    }
}
