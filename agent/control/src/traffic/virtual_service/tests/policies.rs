//! Timeouts, retries, faults, mirrors and CORS.

use std::time::Duration;

use undermesh_model::traffic::{
    AllowedOrigins, Cors, Delay, Fault, Millionths, Mirror, Retries, RetryOn, TextPattern,
};

use super::{host, object, read, rule};

const HALF: Millionths = Millionths(500_000);

#[test]
fn a_rule_says_how_long_a_request_may_take() {
    assert_eq!(rule("timeout: 1m30s").timeout, Some(Duration::from_secs(90)));
    assert_eq!(rule("name: own").timeout, None);
}

#[test]
fn retries_start_from_istios_default() {
    assert_eq!(rule("name: own").retries, None);
    let standard = Retries::istio_default();
    let on = RetryOn {
        connect_failure: true,
        refused_stream: true,
        grpc: vec![1, 14],
        ..RetryOn::default()
    };
    assert_eq!((standard.attempts, &standard.on), (2, &on));
    for (written, expected) in [
        ("{attempts: 0}", Retries { attempts: 0, ..standard.clone() }),
        ("{attempts: 5}", Retries { attempts: 5, ..standard.clone() }),
        (
            "{attempts: 3, perTryTimeout: 2s, backoff: 1s, retryRemoteLocalities: true,
              retryIgnorePreviousHosts: false, retryOn: ''}",
            Retries {
                attempts: 3,
                per_try_timeout: Some(Duration::from_secs(2)),
                backoff: Duration::from_secs(1),
                other_localities: true,
                avoid_previous: Some(false),
                ..standard.clone()
            },
        ),
    ] {
        assert_eq!(rule(&format!("retries: {written}")).retries, Some(expected), "{written}");
    }
}

#[test]
fn every_condition_for_a_retry_is_read() {
    let none = RetryOn::default();
    for (written, expected) in [
        ("5xx", RetryOn { server_errors: true, ..none.clone() }),
        ("gateway-error", RetryOn { gateway_errors: true, ..none.clone() }),
        ("reset", RetryOn { reset: true, ..none.clone() }),
        ("reset-before-request", RetryOn { reset_before_request: true, ..none.clone() }),
        ("connect-failure", RetryOn { connect_failure: true, ..none.clone() }),
        ("refused-stream", RetryOn { refused_stream: true, ..none.clone() }),
        ("retriable-4xx", RetryOn { conflict: true, ..none.clone() }),
        ("envoy-ratelimited", RetryOn { rate_limited: true, ..none.clone() }),
        ("retriable-status-codes, 503,429", RetryOn { codes: vec![503, 429], ..none.clone() }),
        (
            "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable",
            RetryOn { grpc: vec![1, 4, 13, 8, 14], ..none.clone() },
        ),
    ] {
        let read = rule(&format!("retries: {{attempts: 1, retryOn: '{written}'}}"));
        assert_eq!(read.retries.unwrap().on, expected, "{written}");
    }
}

#[test]
fn faults_are_for_the_share_that_is_written() {
    let second = Duration::from_secs(1);
    for (written, expected) in [
        (
            "{delay: {fixedDelay: 1s, percentage: {value: 50}}}",
            Fault { delay: Some(Delay { time: second, share: HALF }), ..Fault::default() },
        ),
        (
            "{delay: {fixedDelay: 1s, percent: 50}, abort: {httpStatus: 418, percentage: {value: 0.1}}}",
            Fault {
                delay: Some(Delay { time: second, share: HALF }),
                abort: Some((418, Millionths(1000))),
                ..Fault::default()
            },
        ),
        (
            "{abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}",
            Fault { grpc_abort: Some((14, Millionths::ALL)), ..Fault::default() },
        ),
    ] {
        assert_eq!(rule(&format!("fault: {written}")).fault, Some(expected), "{written}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    for written in [
        "fault: {delay: {fixedDelay: 1s}}",
        "fault: {delay: {percentage: {value: 1}}}",
        "fault: {abort: {httpStatus: 500}}",
        "fault: {abort: {percentage: {value: 1}}}",
        "retries: {attempts: 1, retryOn: retriable-headers}",
        "retries: {attempts: 1, retryOn: http3-post-connect-failure}",
    ] {
        let text = format!("http: [{{route: [{{destination: {{host: cart}}}}], {written}}}]");
        let (sets, said) = read(&[&object(&text)]);
        assert_eq!(sets.len(), 1);
        let expected = "Warning no-effect: spec.http[0].";
        assert!(said.len() == 1 && said[0].starts_with(expected), "{written}: {said:?}");
    }
}

#[test]
fn mirrors_get_everything_unless_a_percentage_is_written() {
    let mirror = |name: &str, share| Mirror { to: host(name, None, None), share };
    for (written, expected) in [
        ("mirror: {host: new}", vec![mirror("new", Millionths::ALL)]),
        ("mirror: {host: new}, mirrorPercentage: {value: 50}", vec![mirror("new", HALF)]),
        ("mirror: {host: new}, mirrorPercent: 50", vec![mirror("new", HALF)]),
        ("mirror: {host: new}, mirror_percent: 50", vec![mirror("new", HALF)]),
        ("mirror: {host: new}, mirrorPercentage: {value: 0}", vec![mirror("new", Millionths(0))]),
        (
            "mirrors: [{destination: {host: a}}, {destination: {host: b}, percentage: {value: 50}}]",
            vec![mirror("a", Millionths::ALL), mirror("b", HALF)],
        ),
    ] {
        assert_eq!(rule(written).mirrors, expected, "{written}");
    }
}

#[test]
fn a_cors_policy_is_read_field_by_field() {
    let read = rule(
        "corsPolicy: {allowOrigins: [{exact: 'https://a.example'}, {prefix: 'https://b.'}, {regex: 'https://c\\..*'}],
           allowMethods: [GET, '*'], allowHeaders: [x-a, '*'], exposeHeaders: [x-b], maxAge: 24h,
           allowCredentials: true, unmatchedPreflights: IGNORE}",
    );
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let expected = Cors {
        origins: AllowedOrigins(vec![
            TextPattern::Exact("https://a.example".to_owned()),
            TextPattern::Prefix("https://b.".to_owned()),
            TextPattern::Regex("https://c\\..*".to_owned()),
        ]),
        methods: texts(&["GET", "*"]),
        headers: texts(&["x-a", "*"]),
        expose: texts(&["x-b"]),
        max_age: Some(Duration::from_secs(86_400)),
        credentials: true,
        forward_unmatched: false,
    };
    assert_eq!(read.cors, Some(expected));
    for (preflights, forwarded) in [("UNSPECIFIED", true), ("FORWARD", true), ("IGNORE", false)] {
        let read = rule(&format!("corsPolicy: {{unmatchedPreflights: {preflights}}}"));
        assert_eq!(read.cors.unwrap().forward_unmatched, forwarded, "{preflights}");
    }
    let old = rule("corsPolicy: {allowOrigin: ['https://a.example']}").cors.unwrap();
    assert_eq!(old.origins.0, [TextPattern::Exact("https://a.example".to_owned())]);
    assert!(old.forward_unmatched && !old.credentials);
}
