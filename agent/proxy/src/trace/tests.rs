//! Which trace a request joins, and what the next one is told.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const OTHER: &str = "463ac35c9f6413ad48485a3953bb6124";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn percent(percent: f64) -> Sampling {
    Sampling::percent(percent).unwrap()
}

/// The context of a request with these headers, and what is passed on.
fn begin(pairs: &[(&'static str, &str)], share: f64) -> (Context, HeaderMap) {
    let mut headers = headers(pairs);
    let context = Context::begin(Incoming::read(&headers), percent(share));
    context.write(&mut headers);
    (context, headers)
}

fn get<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next().map_or("", |value| value.to_str().unwrap());
    assert!(values.next().is_none(), "{name} stands there twice");
    value
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

#[test]
fn the_callers_decision_holds_and_its_span_is_the_parent() {
    let (context, onward) =
        begin(&[("traceparent", &traceparent("01")), ("tracestate", "a=1,b=2")], 0.0);
    assert!(context.is_recorded());
    assert_eq!(context.trace_id.to_string(), TRACE);
    assert_eq!(context.parent.unwrap().to_string(), SPAN);
    assert_eq!(get(&onward, "traceparent"), format!("00-{TRACE}-{}-01", context.span_id));
    assert_ne!(context.span_id.to_string(), SPAN);
    assert_eq!(get(&onward, "tracestate"), "a=1,b=2");

    let (context, onward) = begin(&[("traceparent", &traceparent("02"))], 100.0);
    assert!(!context.is_recorded());
    assert_eq!(
        get(&onward, "traceparent"),
        traceparent("02"),
        "a span that is not recorded is nobody's parent"
    );
}

#[test]
fn a_trace_begins_where_there_is_none_or_a_malformed_one() {
    for pairs in [
        &[][..],
        &[("traceparent", "00-nonsense"), ("tracestate", "a=1")],
        &[("traceparent", &traceparent("01")), ("traceparent", &traceparent("01"))],
        &[("b3", "what"), ("x-b3-traceid", TRACE)],
    ] {
        let (context, onward) = begin(pairs, 100.0);
        assert!(context.is_recorded() && context.parent.is_none());
        assert_ne!(context.trace_id.to_string(), TRACE);
        let expected = format!("00-{}-{}-03", context.trace_id, context.span_id);
        assert_eq!(get(&onward, "traceparent"), expected);
        assert_eq!(onward.len(), 1, "malformed headers are not passed on: {onward:?}");
        let (context, onward) = begin(pairs, 0.0);
        assert!(!context.is_recorded());
        assert!(get(&onward, "traceparent").ends_with("-02"), "others are told");
    }
}

#[test]
fn b3_is_answered_in_b3() {
    let single = format!("{TRACE}-{SPAN}-1-{SPAN}");
    let (context, onward) = begin(&[("b3", &single)], 0.0);
    assert_eq!(get(&onward, "b3"), format!("{TRACE}-{}-1-{SPAN}", context.span_id));
    assert_eq!(onward.len(), 1, "{onward:?}");

    let several = [("x-b3-traceid", &TRACE[16..]), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
    let (context, onward) = begin(&several, 0.0);
    assert_eq!(get(&onward, "x-b3-traceid"), &TRACE[16..], "as short as it came");
    assert_eq!(get(&onward, "x-b3-spanid"), context.span_id.to_string());
    assert_eq!((get(&onward, "x-b3-parentspanid"), get(&onward, "x-b3-sampled")), (SPAN, "1"));
    assert_eq!(onward.len(), 4, "{onward:?}");

    let (_, onward) = begin(&[("b3", &format!("{TRACE}-{SPAN}-d"))], 0.0);
    assert!(get(&onward, "b3").contains("-d-"), "{onward:?}");
    let debug = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")];
    let (context, onward) = begin(&debug, 0.0);
    assert!(context.is_recorded());
    assert_eq!((get(&onward, "x-b3-flags"), get(&onward, "x-b3-sampled")), ("1", ""));
}

#[test]
fn b3_may_leave_the_decision_open_or_decide_alone() {
    let open = format!("{TRACE}-{SPAN}");
    let (context, onward) = begin(&[("b3", &open)], 0.0);
    assert!(!context.is_recorded());
    assert_eq!(get(&onward, "b3"), format!("{TRACE}-{SPAN}-0"), "what was decided is passed on");
    assert!(begin(&[("b3", &open)], 100.0).0.is_recorded());

    let (context, onward) = begin(&[("b3", "0")], 100.0);
    assert!(!context.is_recorded());
    assert_eq!(get(&onward, "b3"), format!("{}-{}-0", context.trace_id, context.span_id));
    assert!(begin(&[("x-b3-sampled", "1")], 0.0).0.is_recorded());
    let (_, onward) = begin(&[("b3", &format!("{TRACE}-{SPAN}-0-{SPAN}"))], 100.0);
    assert_eq!(get(&onward, "b3"), format!("{TRACE}-{SPAN}-0-{SPAN}"), "left as it is");
}

#[test]
fn both_formats_say_the_same_afterwards_and_w3c_is_right() {
    let single = format!("{OTHER}-{SPAN}-0");
    let (context, onward) = begin(&[("traceparent", &traceparent("01")), ("b3", &single)], 0.0);
    assert_eq!(context.trace_id.to_string(), TRACE);
    assert_eq!(get(&onward, "b3"), format!("{TRACE}-{}-1-{SPAN}", context.span_id));
    assert_eq!(get(&onward, "traceparent"), format!("00-{TRACE}-{}-01", context.span_id));
}

#[test]
fn one_trace_is_judged_alike_by_everybody_who_has_to() {
    let open: Vec<String> = (0..500).map(|_| format!("{}-{SPAN}", new_trace_id())).collect();
    for b3 in &open {
        let judged = || begin(&[("b3", b3)], 30.0).0.is_recorded();
        assert_eq!(judged(), judged());
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_what_is_passed_on_is_well_formed(
        values in proptest::collection::vec(("[ -~]{0,70}", 0usize..8), 0..10),
        share in 0.0f64..=100.0,
    ) {
        let names = ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"];
        let mut given = HeaderMap::new();
        for (value, name) in &values {
            given.append(names[*name], HeaderValue::from_str(value).unwrap());
        }
        let context = Context::begin(Incoming::read(&given), percent(share));
        context.write(&mut given);
        let again = Incoming::read(&given);
        prop_assert!(!again.formats.none());
        prop_assert_eq!(again.ids, Some((context.trace_id, context.span_id)));
        prop_assert_eq!(again.sampled, Some(context.is_recorded()));
let further = read_trace_headers(&given);
        prop_assert_eq!(further.get("tracestate"), given.get("tracestate"));
    }
}

#[test]
fn a_trace_is_known_by_what_any_propagation_calls_it() {
    let short = &TRACE[16..];
    let b3 = |trace: &str| format!("{trace}-{SPAN}");
    for (pairs, expected) in [
        (vec![("traceparent", traceparent("00"))], Some(TRACE)),
        (vec![("traceparent", "00-0-0-01".to_owned())], None),
        (vec![("b3", b3(TRACE))], Some(TRACE)),
        (vec![("b3", b3(short))], Some(short)),
        (vec![("b3", "0".to_owned())], None),
        (vec![("x-b3-traceid", short.to_owned()), ("x-b3-spanid", SPAN.to_owned())], Some(short)),
        (vec![("other", b3(TRACE))], None),
    ] {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let name = named(&headers(&pairs));
        let mut digits = [0; 32];
        let digits = name.as_ref().map(|name| name.digits(&mut digits));
        assert_eq!(digits, expected, "{pairs:?}");
    }
}

#[test]
fn no_two_names_are_the_same_also_beyond_what_is_drawn_at_once() {
    let drawn: Vec<TraceId> = (0..POOL).map(|_| new_trace_id()).collect();
    let names: std::collections::HashSet<_> = drawn.iter().collect();
    assert_eq!(names.len(), drawn.len());
    let elsewhere = std::thread::spawn(new_trace_id).join().unwrap();
    assert!(!names.contains(&elsewhere));
}
