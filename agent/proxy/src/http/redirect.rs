//! Routes that send the client elsewhere, and those that answer in words of their own.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::LOCATION, uri::Authority};
use undermesh_model::traffic::{DirectResponse, Redirect, RedirectPath, RedirectPort};

use super::{head::Head, local_reply::LocalReply, rewrite};

/// The answer that leads the client to another place. `service_port` is the one that it has dialled.
pub(crate) fn redirect(
    rule: &Redirect,
    head: &Head,
    path_len: usize,
    service_port: u16,
) -> LocalReply {
    let status = StatusCode::from_u16(rule.code).unwrap_or(StatusCode::MOVED_PERMANENTLY);
    let mut reply = LocalReply::new(status, "redirect");
    match HeaderValue::try_from(location(rule, head, path_len, service_port)) {
        Ok(location) => {
            reply.headers.insert(LOCATION, location);
            reply
        }
        Err(_) => LocalReply::bad_request("the redirect leads to no URI"),
    }
}

/// The answer that the route itself gives.
pub(crate) fn direct(rule: &DirectResponse) -> LocalReply {
    let status = StatusCode::from_u16(rule.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = Bytes::copy_from_slice(&rule.body);
    LocalReply { body, ..LocalReply::new(status, "direct_response") }
}

fn location(rule: &Redirect, head: &Head, path_len: usize, service_port: u16) -> String {
    let uri = &head.parts.uri;
    let old_scheme = uri.scheme_str().unwrap_or("http");
    let scheme = rule.scheme.as_deref().unwrap_or(old_scheme);
    let given = rule.authority.as_deref();
    let asked = uri.authority().map_or("", Authority::as_str);
    let (host, own_port) = split_port(given.unwrap_or(asked));
    let port = match rule.port {
        Some(RedirectPort::Number(port)) => Some(port),
        Some(RedirectPort::OfScheme) => None,
        Some(RedirectPort::OfRequest) => Some(service_port),
        // The old scheme's own port would be wrong for the new one.
        None => own_port.filter(|port| scheme == old_scheme || !is_default(old_scheme, *port)),
    };
    let port = port.filter(|port| !is_default(scheme, *port));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{}", path_and_query(rule, head, path_len))
}

/// The query stays, unless the new path has one.
fn path_and_query(rule: &Redirect, head: &Head, path_len: usize) -> String {
    let path = head.parts.uri.path();
    let new = match &rule.path {
        None => path.to_owned(),
        Some(RedirectPath::Full(path)) => path.clone(),
        Some(RedirectPath::Matched(prefix)) => rewrite::replace_matched(prefix, path, path_len),
    };
    let new = if new.starts_with('/') { new } else { format!("/{new}") };
    match head.parts.uri.query() {
        Some(query) if !new.contains('?') => format!("{new}?{query}"),
        _ => new,
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    let port = |port: &str| port.parse().ok();
    match authority.rsplit_once(':') {
        Some((host, text)) if !text.contains(']') => (host, port(text)),
        _ => (authority, None),
    }
}

fn is_default(scheme: &str, port: u16) -> bool {
    matches!((scheme, port), ("http", 80) | ("https", 443))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn led_to(rule: &Redirect, host: &str, target: &str, path_len: usize) -> String {
        let request = Request::get(target).header("host", host).body(()).unwrap();
        let dialled = "10.96.0.1:8080".parse().unwrap();
        let head = Head::new(request.into_parts().0, dialled).unwrap();
        location(rule, &head, path_len, 8080)
    }

    #[test]
    fn what_is_not_said_stays() {
        let rule = Redirect { code: 302, ..Redirect::default() };
        assert_eq!(led_to(&rule, "cart:8080", "/a?b=c", 0), "http://cart:8080/a?b=c");
        assert_eq!(led_to(&rule, "[fd00::1]:81", "/", 0), "http://[fd00::1]:81/");
    }

    #[test]
    fn a_new_scheme_takes_its_own_port() {
        let https = Redirect { scheme: Some("https".to_owned()), ..Redirect::default() };
        assert_eq!(led_to(&https, "cart:80", "/", 0), "https://cart/");
        assert_eq!(led_to(&https, "cart:8080", "/", 0), "https://cart:8080/");
        let of_scheme = Redirect { port: Some(RedirectPort::OfScheme), ..https.clone() };
        assert_eq!(led_to(&of_scheme, "cart:8080", "/", 0), "https://cart/");
        let of_request = Redirect { port: Some(RedirectPort::OfRequest), ..https.clone() };
        assert_eq!(led_to(&of_request, "cart", "/", 0), "https://cart:8080/");
        let number = Redirect { port: Some(RedirectPort::Number(443)), ..https };
        assert_eq!(led_to(&number, "cart:8080", "/", 0), "https://cart/");
    }

    #[test]
    fn authority_and_path_are_replaced() {
        let rule = Redirect {
            authority: Some("other.example:81".to_owned()),
            path: Some(RedirectPath::Matched("/new".to_owned())),
            ..Redirect::default()
        };
        assert_eq!(led_to(&rule, "cart", "/old/x?q", 4), "http://other.example:81/new/x?q");
        let rule = Redirect { path: Some(RedirectPath::Full("/n?x".to_owned())), ..rule };
        assert_eq!(led_to(&rule, "cart", "/old?q", 4), "http://other.example:81/n?x");
    }
}
