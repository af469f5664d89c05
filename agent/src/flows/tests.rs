//! What the page answers, and what people read.

use super::{filter::Query, *};

const LINE: &str = r#"{"time":"T","event":"denied","source":{"address":"10.0.0.1:5","pod":"a","namespace":"shop"},"destination":{"address":"10.0.0.2:8080","pod":"b","namespace":"bank"},"dialled":"10.9.0.1:80","reason":"policy_denied","detail":"bank/none"}"#;

const REQUEST: &str = r#"{"time":"T","event":"request","source":{"pod":"a","namespace":"shop"},"destination":{"address":"10.0.0.2:8080","pod":"b","namespace":"bank"},"bytes_sent":9,"bytes_received":2,"duration_ms":1.25,"reason":"policy_denied","response_flags":"DI,UAEX","detail":"why","method":"GET","authority":"cart","path":"/a b/c?d=*","status":403,"grpc_status":7}"#;

#[test]
fn requests_are_found_by_what_they_are_about() {
    for (query, wanted) in [
        ("status=403", true),
        ("status=4xx", true),
        ("status=404", false),
        ("status=5xx", false),
        ("method=GET", true),
        ("method=POST", false),
        ("path=/a%20b", true),
        ("path=/b", false),
        ("reason=policy_denied", true),
        ("reason=timeout", false),
        ("verdict=denied", true),
        ("verdict=allowed", false),
        ("method=GET&status=404", false),
    ] {
        assert_eq!(Query::parse(query).unwrap().wants(REQUEST), wanted, "{query}");
    }
    for query in ["status=4xx", "method=GET", "path=/"] {
        assert!(!Query::parse(query).unwrap().wants(LINE), "{query} finds a connection");
    }
    assert!(Query::parse("reason=policy_denied").unwrap().wants(LINE));
}

#[test]
fn a_line_for_people_says_what_was_asked_and_answered() {
    let line = text(&serde_json::from_str(REQUEST).unwrap());
    let words: Vec<&str> = line.split_whitespace().collect();
    let about = ["T", "request", "shop/a", "->", "bank/b", "2/9", "B", "1.2", "ms"];
    let asked = ["GET", "cart/a", "b/c?d=*", "403/7", "DI,UAEX", "policy_denied", "why"];
    assert_eq!(words, [&about[..], &asked[..]].concat());
}

#[test]
fn filters_match_either_end_the_verdict_and_both_ports() {
    for (query, wanted) in [
        ("", true),
        ("pod=shop/a", true),
        ("pod=bank/b", true),
        ("pod=bank/a", false),
        ("namespace=bank", true),
        ("namespace=other", false),
        ("verdict=denied", true),
        ("verdict=allowed", false),
        ("port=80", true),
        ("port=8080", true),
        ("port=5", false),
        ("namespace=shop&port=81", false),
    ] {
        assert_eq!(Query::parse(query).unwrap().wants(LINE), wanted, "{query}");
    }
}

#[test]
fn a_bad_value_is_a_bad_request_that_names_the_parameter() {
    let flows = Flows::new(1);
    for (query, part) in [
        ("pod=a", "pod is NAMESPACE/NAME"),
        ("namespace=", "namespace is empty"),
        ("verdict=maybe", "verdict is allowed or denied"),
        ("port=70000", "port is not"),
        ("last=-1", "last is not"),
        ("status=6xx", "status is a number"),
        ("status=ok", "status is a number"),
        ("path=", "path is empty"),
        ("after=x", "after is not"),
        ("colour=red", "no parameter \"colour\""),
        ("pod", "\"pod\" has no value"),
    ] {
        let answer = page(&flows, query);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.body.contains(part), "{query}: {}", answer.body);
    }
}

#[test]
fn a_switched_off_buffer_says_which_setting() {
    let answer = page(&Flows::new(0), "");
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.body.contains("flowBuffer"), "{}", answer.body);
}

#[test]
fn a_line_for_people_names_both_ends_and_the_reason() {
    let line = text(&serde_json::from_str(LINE).unwrap());
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        words,
        ["T", "denied", "shop/a", "->", "bank/b", "-", "-", "policy_denied", "bank/none"]
    );
}

#[test]
fn a_value_cannot_end_the_request() {
    assert_eq!(escape("shop/a-1"), "shop/a-1");
    assert_eq!(escape("a b\r\n&"), "a%20b%0D%0A%26");
}
