//! What is left of a head, and which ones are refused.

use http::Request;

use super::*;

fn head(request: http::request::Builder) -> Result<Head, LocalReply> {
    let parts = request.body(()).unwrap().into_parts().0;
    Head::new(parts, "10.96.0.1:80".parse().unwrap())
}

fn get(target: &str) -> http::request::Builder {
    Request::get(target)
}

#[test]
fn a_request_gets_an_absolute_target_and_loses_its_host() {
    let head = head(get("/a?b=c").header("host", "cart:8080")).unwrap();
    assert_eq!(head.parts.uri, "http://cart:8080/a?b=c");
    assert!(!head.parts.headers.contains_key("host"));
    assert_eq!(head.parts.headers["x-forwarded-proto"], "http");
    assert_eq!(head.parts.headers["x-request-id"].len(), 36);
}

#[test]
fn in_http2_the_size_of_a_head_is_as_the_rfc_counts_it() {
    let dialled = "10.96.0.1:80".parse().unwrap();
    let within = |bytes: usize, headers: usize, request: http::request::Builder| {
        let parts = request.version(Version::HTTP_2).body(()).unwrap().into_parts().0;
        let within = Head::within(HeadLimits { bytes, headers }, parts, dialled);
        within.map(drop).map_err(|reply| (reply.status.as_u16(), reply.detail.unwrap()))
    };
    let ask =
        || get("http://cart/a?b").header("x-a", "1").header("cookie", "a").header("cookie", "b");
    // Four pseudo-headers and three lines.
    let size = 10 + 11 + 14 + 9 + 4 + 7 + 7 + 7 * 32;
    assert_eq!(within(size, 2, ask()), Ok(()));
    let detail = format!("a head of {size} bytes, where {} may be", size - 1);
    assert_eq!(within(size - 1, 2, ask()), Err((431, detail)));
    let detail = "2 headers, where 1 may be".to_owned();
    assert_eq!(within(size, 1, ask()), Err((431, detail)));
}

#[test]
fn an_absolute_target_goes_before_host() {
    let head = head(get("http://cart/a").header("host", "other")).unwrap();
    assert_eq!(head.view().authority, "cart");
    assert_eq!(head.view().path, "/a");
}

#[test]
fn requests_without_one_host_are_refused() {
    let refused = |request| head(request).unwrap_err().detail.unwrap();
    assert_eq!(refused(get("/")), "no Host");
    assert_eq!(refused(get("/").header("host", "a").header("host", "b")), "more than one Host");
    assert_eq!(refused(get("/").header("host", "")), "Host is no authority");
    assert_eq!(refused(get("/").header("host", "a b")), "Host is no authority");
    assert_eq!(refused(get("/").header("host", "me@cart")), "user information in the authority");
}

#[test]
fn an_http_1_0_request_may_have_no_host() {
    let head = head(get("/").version(Version::HTTP_10)).unwrap();
    assert_eq!(head.view().authority, "10.96.0.1:80");
}

#[test]
fn what_belongs_to_the_connection_stays_behind() {
    let request = get("/")
        .header("host", "cart")
        .header("connection", "keep-alive, X-Private")
        .header("keep-alive", "timeout=5")
        .header("x-private", "1")
        .header("te", "gzip, trailers")
        .header("expect", "100-continue")
        .header("x-forwarded-client-cert", "By=me")
        .header("traceparent", "00-1-2-01");
    let head = head(request).unwrap();
    for gone in ["connection", "keep-alive", "x-private", "expect", "x-forwarded-client-cert"] {
        assert!(!head.parts.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(head.parts.headers["te"], "trailers");
    assert_eq!(head.parts.headers["traceparent"], "00-1-2-01");
}

#[test]
fn connection_cannot_name_the_framing_away() {
    let request = get("/")
        .header("host", "cart")
        .header("connection", "content-length, close")
        .header("content-length", "3");
    assert_eq!(head(request).unwrap().parts.headers["content-length"], "3");
}

#[test]
fn an_upgrade_has_to_be_asked_for_twice() {
    let request = || get("/").header("host", "cart").header("upgrade", "websocket");
    assert_eq!(head(request()).unwrap().upgrade, None);
    let asked = head(request().header("connection", "Upgrade")).unwrap();
    assert_eq!(asked.upgrade.unwrap(), "websocket");
    let h2c = get("/").header("host", "cart").header("upgrade", "h2c");
    assert_eq!(head(h2c.header("connection", "upgrade, http2-settings")).unwrap().upgrade, None);
}

#[test]
fn grpc_is_told_by_its_content_type() {
    for (value, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc; charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/json", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
        assert_eq!(is_grpc(&headers), expected, "{value}");
    }
}

#[test]
fn an_extended_connect_is_asked_as_http_1_1_does() {
    let mut request = Request::connect("http://cart/chat").body(()).unwrap();
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let head = Head::new(request.into_parts().0, "10.96.0.1:80".parse().unwrap()).unwrap();
    assert_eq!((&head.parts.method, head.extended), (&Method::GET, true));
    assert_eq!(head.upgrade.unwrap(), "websocket");
    assert_eq!(head.parts.headers["sec-websocket-key"].len(), 24);
    assert_eq!(head.parts.uri, "http://cart/chat");
}
