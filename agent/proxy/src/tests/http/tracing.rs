//! What is recorded about requests, and what their endpoints hear of it.

use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::{sync::mpsc, time::timeout};
use undermesh_model::traffic::{Retries, RetryOn};
use undermesh_snapshot::traffic::RouteAction;
use undermesh_telemetry::{Span, SpanKind, Spans, Value};

use super::rig::{Rig, get, route, rules, to, weighted};
use crate::{CustomTag, Sampling, Tracing, tests::mesh::SOON};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A rig whose spans can be read, with no trace recorded that no caller wants to be.
async fn traced(backends: &[&'static str]) -> (Rig, mpsc::Receiver<Span>) {
    let tag = CustomTag::parse("tenant=header:x-tenant").unwrap();
    let sampling = Sampling::percent(0.0).unwrap();
    let tracing = Tracing { sampling, max_path_length: 12, tags: vec![tag] };
    let rig = Rig::with(backends, |config| config.tracing = Some(tracing)).await;
    let (spans, queue) = Spans::into_channel(64);
    rig.mesh.telemetry.export_spans(spans);
    (rig, queue)
}

fn sampled(path: &str) -> Request<Full<bytes::Bytes>> {
    let mut request = get(path);
    request.headers_mut().insert("traceparent", HeaderValue::from_static(PARENT));
    request
}

async fn next(queue: &mut mpsc::Receiver<Span>) -> Span {
    timeout(SOON, queue.recv()).await.expect("a span").unwrap()
}

fn about<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value)
}

fn text(span: &Span, key: &str) -> String {
    match about(span, key) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Flag(flag)) => flag.to_string(),
        None => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_the_child_of_the_callers_and_the_parent_of_the_endpoints() {
    let (rig, mut queue) = traced(&["v1"]).await;
    rig.plain_rules();
    let mut request = sampled("/a/long/path?token=secret");
    request.headers_mut().insert("x-tenant", HeaderValue::from_static("blue"));
    assert_eq!(rig.send(request).await.status(), 200);
    let span = next(&mut queue).await;
    let seen = rig.backends[0].requests();
    let onward = seen[0].headers["traceparent"].to_str().unwrap();
    assert_eq!(onward, format!("00-{}-{}-01", span.trace_id, span.span_id));
    assert_eq!(span.parent.unwrap().to_string(), "00f067aa0ba902b7");
    assert_eq!((span.kind, span.error.as_deref()), (SpanKind::Client, None));
    assert_eq!(span.name, "cart.shop.svc.cluster.local:80/*");
    assert_eq!(text(&span, "url.path"), "/a/long/path");
    assert_eq!(text(&span, "url.query"), "");
    assert_eq!(text(&span, "tenant"), "blue");
    assert_eq!(text(&span, "http.response.status_code"), "200");
    assert!(span.end >= span.start);
    let resource = format!("{:?}", span.resource);
    assert!(resource.contains("client.shop"), "{resource}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_recorded_makes_no_span() {
    let (rig, mut queue) = traced(&["v1"]).await;
    rig.plain_rules();
    rig.get("/").await;
    let mut unsampled = get("/");
    let parent = format!("{}00", &PARENT[..53]);
    unsampled.headers_mut().insert("traceparent", HeaderValue::try_from(&parent).unwrap());
    rig.send(unsampled).await;
    rig.send(sampled("/last")).await;
    assert_eq!(text(&next(&mut queue).await, "url.path"), "/last");
    let seen = rig.backends[0].requests();
    let onward = |index: usize| seen[index].headers["traceparent"].to_str().unwrap().to_owned();
    assert!(onward(0).ends_with("-02"), "a trace begins, and is not recorded: {}", onward(0));
    assert_eq!(onward(1), parent);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_headers_are_passed_on_as_they_are() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let mut request = get("/");
    for (name, value) in [("traceparent", "what"), ("b3", "ever")] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    rig.send(request).await;
    let seen = rig.backends[0].requests();
    assert_eq!(
        (&seen[0].headers["traceparent"], &seen[0].headers["b3"]),
        (&"what".parse().unwrap(), &"ever".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_are_events_and_the_last_attempt_is_what_counts() {
    let (rig, mut queue) = traced(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let mut again = route(to(&v1));
    again.retries = Some(Retries {
        attempts: 2,
        per_try_timeout: None,
        on: RetryOn { server_errors: true, ..RetryOn::default() },
        backoff: std::time::Duration::from_millis(1),
        avoid_previous: Some(false),
        other_localities: false,
    });
    rig.rules(rules(&v1, vec![("/", again)]));
    let mut request = sampled("/");
    request.headers_mut().insert("x-answer", HeaderValue::from_static("503,200"));
    assert_eq!(rig.send(request).await.status(), 200);
    let span = next(&mut queue).await;
    assert_eq!((span.events.len(), span.error.as_deref()), (1, None));
    assert_eq!(span.events[0].name, "retry");
    let event = format!("{:?}", span.events[0].attributes);
    assert!(event.contains("http.response.status_code") && event.contains("503"), "{event}");
    assert_eq!(text(&span, "http.request.resend_count"), "1");
    let spans: Vec<_> =
        rig.backends[0].requests().iter().map(|seen| seen.headers["traceparent"].clone()).collect();
    assert_eq!(spans[0], spans[1], "both attempts are the same span's");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_the_proxys_own_are_told_and_splits_are_named_by_their_route() {
    let (rig, mut queue) = traced(&["v1", "v2"]).await;
    let (v1, v2) = (rig.cluster(&["v1"]), rig.cluster(&["v2"]));
    let split = route(RouteAction::Forward(vec![weighted(&v1, 1), weighted(&v2, 1)]));
    rig.rules(rules(&v1, vec![("/split", split)]));
    assert_eq!(rig.send(sampled("/split")).await.status(), 200);
    assert_eq!(next(&mut queue).await.name, "route:80/*");

    assert_eq!(rig.send(sampled("/none")).await.status(), 404);
    let span = next(&mut queue).await;
    assert_eq!(text(&span, "response_flags"), "NR");
    assert_eq!((span.error.as_deref(), text(&span, "error.type").as_str()), (Some("404"), "404"));
}
