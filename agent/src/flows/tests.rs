//! What the page answers, and what people read.

use std::sync::Arc;

use undermesh_telemetry::{AccessLog, AccessLogSink, Telemetry};

use super::{filter::Query, *};

const LINE: &str = r#"{"time":"T","event":"denied","source":{"address":"10.0.0.1:5","pod":"a","namespace":"shop"},"destination":{"address":"10.0.0.2:8080","pod":"b","namespace":"bank"},"dialled":"10.9.0.1:80","reason":"policy_denied","detail":"bank/none"}"#;

const REQUEST: &str = r#"{"time":"T","event":"request","source":{"pod":"a","namespace":"shop"},"destination":{"address":"10.0.0.2:8080","pod":"b","namespace":"bank"},"bytes_sent":9,"bytes_received":2,"duration_ms":1.25,"reason":"policy_denied","response_flags":"DI,UAEX","detail":"why","method":"GET","authority":"cart","path":"/a b/c?d=*","status":403,"grpc_status":7}"#;

/// Where so many records are kept, of which there is none.
fn telemetry(kept: usize) -> Arc<Telemetry> {
    let nowhere = AccessLog::start(AccessLogSink::Off).unwrap();
    Telemetry::with_flows(nowhere, kept)
}

fn shown(output: Output, record: &str) -> String {
    output.line(&serde_json::from_str(record).unwrap(), record, None).into_owned()
}

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
    let line = shown(Output::Text, REQUEST);
    let words: Vec<&str> = line.split_whitespace().collect();
    let about = ["T", "request", "shop/a", "->", "bank/b", "2/9", "B", "1.2", "ms"];
    let asked = ["GET", "cart/a", "b/c?d=*", "403/7", "DI,UAEX", "policy_denied", "why"];
    assert_eq!(words, [&about[..], &asked[..]].concat());
}

#[test]
fn services_identities_sides_and_ways_are_filters() {
    const RECORD: &str = r#"{"event":"close","reporter":"source","transport":"local","service":"cart.shop.svc.cluster.local","source":{"namespace":"shop","pod":"a","identity":"spiffe://td/ns/shop/sa/web"},"destination":{"namespace":"shop","pod":"b","identity":"spiffe://td/ns/shop/sa/cart"}}"#;
    for (query, wanted) in [
        ("service=cart", true),
        ("service=cart.shop", true),
        ("service=cart.shop.svc.cluster.local", true),
        ("service=car", false),
        ("service=shop", false),
        ("identity=spiffe://td/ns/shop/sa/web", true),
        ("identity=shop/cart", true),
        ("identity=shop/car", false),
        ("identity=spiffe://td/ns/shop/sa/car", false),
        ("reporter=source", true),
        ("reporter=destination", false),
        ("transport=local", true),
        ("transport=native", false),
    ] {
        assert_eq!(Query::parse(query).unwrap().wants(RECORD), wanted, "{query}");
    }
    assert!(!Query::parse("service=cart").unwrap().wants(LINE), "it has none");
}

#[test]
fn filters_of_one_name_are_alternatives_and_what_is_not_wanted_is_left_out() {
    for (query, wanted) in [
        ("pod=shop/x&pod=shop/a", true),
        ("pod=shop/x&pod=shop/y", false),
        ("pod=shop/x&pod=shop/a&port=81", false),
        ("namespace!=bank", false),
        ("namespace!=other", true),
        ("namespace!=other&namespace!=bank", false),
        ("namespace=shop&verdict!=denied", false),
        ("namespace=shop&reason!=timeout", true),
    ] {
        assert_eq!(Query::parse(query).unwrap().wants(LINE), wanted, "{query}");
    }
    let many = "port=1&".repeat(65);
    assert!(Query::parse(&many).unwrap_err().to_string().contains("more than 64"));
}

#[test]
fn a_compact_line_has_a_sign_both_ends_and_what_matters() {
    let line = |record: &str| shown(Output::Compact, record);
    assert_eq!(line(LINE), " ! shop/a -> bank/b policy_denied");
    let request = r#"{"time":"2026-01-02T03:04:05.678Z","event":"request","source":{"address":"10.0.0.1:5"},"destination":{"pod":"b","namespace":"bank"},"method":"GET","authority":"cart","path":"/x","status":200,"response_flags":"-","reason":"answered","duration_ms":3.14}"#;
    assert_eq!(line(request), "03:04:05.678 = 10.0.0.1:5 -> bank/b GET cart/x 200 3.1ms");
    let open = r#"{"time":"2026-01-02T03:04:05.678Z","event":"open","source":{},"destination":{}}"#;
    assert_eq!(line(open), "03:04:05.678 + - -> -");
    assert!(line(r#"{"event":"lost","count":7}"#).contains("7 records were lost"));
}

#[test]
fn what_was_lost_on_either_way_is_summed_up() {
    let mut tally = Tally { records: 5, ..Tally::default() };
    tally.cursor(&json!({"kernel_lost": 40}));
    assert_eq!(tally.sum(), None, "what was lost before it began is none of its business");
    tally.cursor(&json!({"kernel_lost": 42}));
    tally.lost = 3;
    let sum = tally.sum().unwrap();
    for part in ["5 records", "3 lost", "2 because the kernel"] {
        assert!(sum.contains(part), "{sum}");
    }
    let page = page(telemetry(4).flows(), "cursor=1", || 9);
    assert!(page.body.contains("\"kernel_lost\":9"), "{}", page.body);
}

#[test]
fn options_become_parameters_and_a_bad_negation_is_refused() {
    let args = |words: &[&str]| {
        use clap::Parser;
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: FlowsArgs,
        }
        Cli::parse_from(std::iter::once(&"flows").chain(words)).args.filters()
    };
    let found = args(&["--pod", "a/b", "--pod", "c/d", "--port", "80", "--not", "path=/a b"]);
    assert_eq!(found.unwrap(), "&pod=a/b&pod=c/d&port=80&path!=/a%20b");
    for bad in ["colour=red", "path"] {
        assert!(args(&["--not", bad]).unwrap_err().to_string().contains("--not takes"));
    }
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
    let telemetry = telemetry(1);
    for (query, part) in [
        ("pod=a", "pod is NAMESPACE/NAME"),
        ("namespace=", "namespace is empty"),
        ("verdict=maybe", "verdict is allowed or denied"),
        ("port=70000", "port is not"),
        ("last=-1", "last is not"),
        ("identity=x", "identity is spiffe"),
        ("reporter=me", "reporter is one of source, destination"),
        ("transport=air", "transport is one of"),
        ("colour!=red", "no parameter \"colour\""),
        ("status=6xx", "status is a number"),
        ("status=ok", "status is a number"),
        ("path=", "path is empty"),
        ("after=x", "after is not"),
        ("colour=red", "no parameter \"colour\""),
        ("pod", "\"pod\" has no value"),
    ] {
        let answer = page(telemetry.flows(), query, || 0);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert!(answer.body.contains(part), "{query}: {}", answer.body);
    }
}

#[test]
fn a_switched_off_buffer_says_which_setting() {
    let answer = page(telemetry(0).flows(), "", || 0);
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.body.contains("flowBuffer"), "{}", answer.body);
}

#[test]
fn a_line_for_people_names_both_ends_and_the_reason() {
    let line = shown(Output::Text, LINE);
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        words,
        ["T", "denied", "shop/a", "->", "bank/b", "-", "-", "policy_denied", "bank/none"]
    );
}

#[test]
fn a_value_cannot_end_the_request() {
    assert_eq!(Escaped("shop/a-1").to_string(), "shop/a-1");
    assert_eq!(Escaped("a b\r\n&").to_string(), "a%20b%0D%0A%26");
}

#[test]
fn a_record_of_one_of_several_nodes_says_its_node_before_all_else() {
    let shown = |output: Output, record: &str, node: &str| {
        let of = Some(print::Of { node, width: 4 });
        output.line(&serde_json::from_str(record).unwrap(), record, of).into_owned()
    };
    let record = r#"{"time":"2026-01-02T03:04:05.678Z","event":"open"}"#;
    let with_node = r#"{"node":"a\"b","time":"2026-01-02T03:04:05.678Z","event":"open"}"#;
    assert_eq!(shown(Output::Json, record, "a\"b"), with_node);
    assert_eq!(shown(Output::Compact, record, "a"), "03:04:05.678 a    + - -> -");
    let text = shown(Output::Text, record, "a");
    assert!(text.starts_with("2026-01-02T03:04:05.678Z a    open "), "{text}");
    let lost = r#"{"event":"lost","count":2}"#;
    for output in [Output::Text, Output::Compact] {
        assert_eq!(
            shown(output, lost, "a"),
            "... 2 records of node a were lost: they came faster than they were read"
        );
    }
    assert_eq!(shown(Output::Json, lost, "a"), r#"{"node":"a","event":"lost","count":2}"#);
}
