//! Answers of authorizers in, verdicts out.

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use undermesh_model::{HttpAuthorizer, TextMatch};

use super::{
    Allowed, NoVerdict, Verdict,
    changes::{self, HeaderChange, How},
    grpc, http,
    messages::{self, CheckResponse},
};

fn patterns(texts: &[&str]) -> Vec<TextMatch> {
    texts.iter().map(|text| TextMatch::parse(text)).collect()
}

fn rule() -> HttpAuthorizer {
    HttpAuthorizer {
        upstream_on_allow: patterns(&["x-user", "x-auth-*"]),
        downstream_on_allow: patterns(&["set-cookie"]),
        ..HttpAuthorizer::default()
    }
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

fn of_http(rule: &HttpAuthorizer, status: u16, headers: &HeaderMap) -> Result<Verdict, NoVerdict> {
    http::verdict(rule, StatusCode::from_u16(status).unwrap(), headers, Bytes::from("body"))
}

fn names(changes: &[HeaderChange]) -> Vec<&str> {
    changes.iter().map(|change| change.name.as_str()).collect()
}

fn allowed(verdict: Result<Verdict, NoVerdict>) -> Allowed {
    match verdict.unwrap() {
        Verdict::Allowed(allowed) => allowed,
        Verdict::Denied(denied) => panic!("{denied:?}"),
    }
}

#[test]
fn only_200_of_http_lets_pass_and_takes_along_what_the_rule_names() {
    let headers = fields(&[
        ("x-user", "you"),
        ("x-auth-role", "admin"),
        ("x-other", "no"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-length", "4"),
        ("connection", "x-user-2"),
        ("x-user-2", "hop"),
        ("x-envoy-auth-headers-to-remove", "cookie, host,content-length"),
    ]);
    let changes = allowed(of_http(&rule(), 200, &headers));
    assert_eq!(changes.remove, ["cookie"]);
    let mut request = names(&changes.request);
    request.sort_unstable();
    assert_eq!(request, ["x-auth-role", "x-user"]);
    assert_eq!(names(&changes.answer), ["set-cookie", "set-cookie"]);
    for status in [201, 204, 302, 401, 403, 404] {
        let Ok(Verdict::Denied(denied)) = of_http(&rule(), status, &headers) else {
            panic!("{status} lets pass")
        };
        assert_eq!(denied.status.as_u16(), status);
        assert_eq!(denied.body, "body");
        assert!(!names(&denied.headers).contains(&"content-length"), "framing is passed on");
        assert!(!names(&denied.headers).contains(&"x-user-2"), "a header of the connection is");
    }
    for status in [500, 502, 503] {
        assert!(matches!(of_http(&rule(), status, &headers), Err(NoVerdict::Unreachable(_))));
    }
}

#[test]
fn a_rule_chooses_what_a_refused_client_gets() {
    let headers = fields(&[("location", "/login"), ("x-a", "1"), ("x-b", "2")]);
    let rule = HttpAuthorizer { downstream_on_deny: patterns(&["x-a"]), ..rule() };
    let Ok(Verdict::Denied(denied)) = of_http(&rule, 302, &headers) else { panic!("it passes") };
    let mut names = names(&denied.headers);
    names.sort_unstable();
    assert_eq!(names, ["location", "x-a"]);
}

fn option(key: &str, value: &str, append: Option<bool>) -> messages::HeaderValueOption {
    let header = messages::HeaderValue {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        raw_value: Bytes::new(),
    };
    let append = append.map(|value| messages::BoolValue { value });
    messages::HeaderValueOption { header: Some(header), append, append_action: 0 }
}

fn message(answer: &CheckResponse) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(answer.encoded_len() as u32);
    answer.encode(&mut bytes).unwrap();
    bytes.to_vec()
}

fn status(code: i32) -> Option<messages::Status> {
    Some(messages::Status { code, message: String::new() })
}

#[test]
fn an_answer_of_grpc_changes_headers_and_query() {
    let ok = messages::OkHttpResponse {
        headers: vec![
            option("X-User", "you", None),
            option("x-group", "b", Some(true)),
            option(":path", "/admin", None),
            option("host", "elsewhere", None),
            option("transfer-encoding", "chunked", None),
            option("x-forwarded-client-cert", "forged", None),
        ],
        headers_to_remove: vec!["cookie".into(), ":method".into(), "Host".into()],
        response_headers_to_add: vec![option("x-seen", "1", None)],
        query_parameters_to_set: vec![messages::QueryParameter {
            key: "a".into(),
            value: "b c".into(),
        }],
        query_parameters_to_remove: vec!["token".into()],
    };
    let answer = CheckResponse { status: status(0), denied_response: None, ok_response: Some(ok) };
    let changes = allowed(grpc::read(&message(&answer)));
    assert_eq!(names(&changes.request), ["x-user", "x-group"]);
    assert_eq!(changes.remove, ["cookie"]);
    assert_eq!(changes.answer[0].how, How::Append);
    let request = ::http::Request::get("http://shop/x?token=1&b=2&a=0")
        .header("host", "shop")
        .header("cookie", "c")
        .header("x-user", "forged")
        .header("x-group", "a")
        .body(())
        .unwrap();
    let dialled = "10.0.0.1:80".parse().unwrap();
    let mut head = crate::http::Head::new(request.into_parts().0, dialled).unwrap();
    changes::apply(&changes, &mut head).unwrap();
    assert_eq!(head.parts.uri.path_and_query().unwrap(), "/x?b=2&a=b%20c");
    assert_eq!(head.parts.headers["x-user"], "you");
    assert_eq!(head.parts.headers.get_all("x-group").iter().count(), 2);
    assert!(!head.parts.headers.contains_key("cookie"));
}

#[test]
fn an_answer_of_grpc_refuses_with_its_own_words() {
    let denied = |code| messages::DeniedHttpResponse {
        status: Some(messages::HttpStatus { code }),
        headers: vec![option("x-why", "because", None)],
        body: Bytes::from("no"),
    };
    for (code, expected) in [(401, 401), (0, 403), (100, 403), (-1, 403), (70_000, 403)] {
        let answer = CheckResponse {
            status: status(7),
            denied_response: Some(denied(code)),
            ok_response: None,
        };
        let Ok(Verdict::Denied(denied)) = grpc::read(&message(&answer)) else {
            panic!("{code} passes")
        };
        assert_eq!(denied.status.as_u16(), expected);
        assert_eq!((names(&denied.headers), &denied.body[..]), (vec!["x-why"], &b"no"[..]));
    }
    let bare = CheckResponse { status: status(16), ..CheckResponse::default() };
    assert!(matches!(grpc::read(&message(&bare)), Ok(Verdict::Denied(_))));
}

#[test]
fn what_cannot_be_used_never_lets_pass() {
    let unusable = |bytes: &[u8]| matches!(grpc::read(bytes), Err(NoVerdict::Unusable(_)));
    let good = message(&CheckResponse::default());
    assert!(grpc::read(&good).is_ok());
    assert!(unusable(b"") && unusable(&good[..4]), "no message");
    assert!(unusable(&[1, 0, 0, 0, 0]), "a compressed message");
    assert!(unusable(&[good.as_slice(), b"x"].concat()), "something after the message");
    assert!(unusable(&[0, 0, 0, 0, 2, 0xff, 0xff]), "a message that is none");
    let with = |headers| CheckResponse {
        ok_response: Some(messages::OkHttpResponse { headers, ..Default::default() }),
        ..CheckResponse::default()
    };
    let split = with(vec![option("x-a", "b\r\nset-cookie: c", None)]);
    assert!(unusable(&message(&split)), "an answer is split");
    assert!(unusable(&message(&with(vec![option("x a", "b", None)]))), "no name of a header");
    let many = (0..200).map(|number| option(&format!("x-{number}"), "v", None)).collect();
    assert!(unusable(&message(&with(many))), "too many headers");
}

#[test]
fn a_call_of_grpc_that_fails_is_the_authorizers_failure() {
    let none = HeaderMap::new();
    let good = message(&CheckResponse::default());
    let with = |status: &'static str| fields(&[("grpc-status", status)]);
    let verdict = |status, headers: &HeaderMap, trailers: &HeaderMap| {
        grpc::verdict(status, headers, trailers, &good)
    };
    assert!(verdict(StatusCode::OK, &none, &with("0")).is_ok());
    for (status, headers, trailers) in [
        (StatusCode::OK, none.clone(), with("14")),
        (StatusCode::OK, with("12"), none.clone()),
        (StatusCode::OK, none.clone(), none.clone()),
        (StatusCode::BAD_GATEWAY, none.clone(), with("0")),
    ] {
        let verdict = verdict(status, &headers, &trailers);
        assert!(matches!(verdict, Err(NoVerdict::Unreachable(_))), "{verdict:?}");
    }
}
