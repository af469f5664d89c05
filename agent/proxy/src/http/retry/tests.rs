//! Every condition, and the time between attempts.

use super::*;

fn answered(on: &RetryOn, status: u16, headers: &[(&'static str, &'static str)]) -> bool {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, http::HeaderValue::from_static(value));
    }
    wants(on, &Went::Answered(StatusCode::from_u16(status).unwrap(), &map))
}

fn reset(on: &RetryOn, sent: bool, refused: bool) -> bool {
    wants(on, &Went::Failed(&SendError::Reset { sent, refused, detail: "".into() }))
}

fn refused_connection(on: &RetryOn) -> bool {
    let kind = std::io::ErrorKind::ConnectionRefused;
    let failure = crate::error::Failure::Connect { to: "10.0.0.1:80".parse().unwrap(), kind };
    wants(on, &Went::Failed(&SendError::Connect(failure)))
}

#[test]
fn each_condition_is_about_its_own_failures() {
    let none = RetryOn::default();
    let server = RetryOn { server_errors: true, ..RetryOn::default() };
    assert!(answered(&server, 500, &[]) && !answered(&server, 409, &[]));
    assert!(reset(&server, true, false) && wants(&server, &Went::TooSlow));
    assert!(!answered(&none, 500, &[]) && !reset(&none, false, true));
    let gateway = RetryOn { gateway_errors: true, ..RetryOn::default() };
    assert!(answered(&gateway, 503, &[]) && !answered(&gateway, 500, &[]));
    let codes = RetryOn { codes: vec![418], conflict: true, ..RetryOn::default() };
    assert!(answered(&codes, 418, &[]) && answered(&codes, 409, &[]));
    let connect = RetryOn { connect_failure: true, ..RetryOn::default() };
    assert!(refused_connection(&connect) && !reset(&connect, false, false));
    let before = RetryOn { reset_before_request: true, ..RetryOn::default() };
    assert!(reset(&before, false, false) && !reset(&before, true, false));
    let refused = RetryOn { refused_stream: true, ..RetryOn::default() };
    assert!(reset(&refused, true, true) && !reset(&refused, true, false));
    let any = RetryOn { reset: true, ..RetryOn::default() };
    assert!(reset(&any, true, false) && !answered(&any, 503, &[]));
}

#[test]
fn grpc_statuses_count_where_they_come_as_headers() {
    let on = RetryOn { grpc: vec![14], ..RetryOn::default() };
    assert!(answered(&on, 200, &[("grpc-status", "14")]));
    assert!(!answered(&on, 200, &[("grpc-status", "13")]));
}

#[test]
fn an_endpoint_without_room_is_not_asked_again() {
    let on = RetryOn { server_errors: true, ..RetryOn::default() };
    assert!(!answered(&on, 503, &[("x-envoy-overloaded", "true")]));
    assert!(!answered(&on, 503, &[("x-envoy-ratelimited", "true")]));
    let limited = RetryOn { rate_limited: true, ..RetryOn::default() };
    assert!(answered(&limited, 429, &[("x-envoy-ratelimited", "true")]));
    assert!(!wants(&on, &Went::Failed(&SendError::Overflow("http2_max_requests"))));
}

#[test]
fn the_backoff_doubles_up_to_ten_times() {
    let retries = Retries::istio_default();
    let longest = |number| (0..2000).map(|_| backoff(&retries, number)).max().unwrap();
    assert!(longest(0) <= Duration::from_millis(25));
    assert!(longest(2) > Duration::from_millis(50) && longest(2) <= Duration::from_millis(100));
    assert!(longest(30) <= Duration::from_millis(250));
}
