//! What is told about requests: one line and one count for each, whatever becomes of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;
use undermesh_model::traffic::{
    AllowedOrigins, Cors, Delay, DirectResponse, Fault, Millionths, Redirect, Retries, RetryOn,
    TextPattern,
};
use undermesh_snapshot::{
    WorkloadInfo,
    traffic::{AppProtocol, ClusterEndpoint, CompiledRoute, RouteAction, Target, Weighted},
};

use super::{
    frames::*,
    rig::{Rig, VIP, cluster, endpoint, get, route, rules, to},
};
use crate::tests::{judged::look_at_requests, mesh::eventually};

/// A request that can be found again in the log.
fn named(id: &'static str, path: &str) -> Request<Full<Bytes>> {
    let mut request = get(path);
    request.headers_mut().insert("x-request-id", HeaderValue::from_static(id));
    request
}

/// The line of a reporter about a request.
async fn line(rig: &Rig, reporter: &str, id: &str) -> serde_json::Value {
    let reporter = format!("\"reporter\":\"{reporter}\"");
    let id = format!("\"request_id\":\"{id}\"");
    rig.mesh.logged(&["\"event\":\"request\"", &reporter, &id]).await
}

/// Checks `status reason flags`; the status is `-` where there is none.
async fn ends(rig: &Rig, id: &str, expected: &str) -> serde_json::Value {
    let line = line(rig, "source", id).await;
    let status = line["status"].as_u64().map_or("-".to_owned(), |status| status.to_string());
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let found = format!("{status} {} {}", text("reason"), text("response_flags"));
    assert_eq!(found, expected, "{line}");
    line
}

/// The sum of a metric over the series with these labels.
fn counted(rig: &Rig, name: &str, labels: &[&str]) -> u64 {
    let text = rig.mesh.telemetry.encode();
    let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let wanted = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// An address where nobody listens.
fn nowhere() -> ClusterEndpoint {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = Arc::new(crate::testing::workload("nobody", &["127.0.0.1"]));
    ClusterEndpoint { workload: None, ..endpoint(listener.local_addr().unwrap(), &nobody) }
}

fn faulty(v1: &Arc<undermesh_snapshot::traffic::ClusterSpec>) -> CompiledRoute {
    let delay = Some(Delay { time: Duration::from_millis(1), share: Millionths::ALL });
    let abort = Some((429, Millionths::ALL));
    CompiledRoute { fault: Some(Fault { delay, abort, grpc_abort: None }), ..route(to(v1)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_local_answer_has_one_reason_and_its_flags() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster(&["v1"]);
    let empty = cluster("empty".to_owned(), AppProtocol::Http, Vec::new());
    let dead = cluster("dead".to_owned(), AppProtocol::Http, vec![nowhere()]);
    let retries = Retries {
        attempts: 1,
        per_try_timeout: None,
        on: RetryOn { connect_failure: true, server_errors: true, ..RetryOn::default() },
        backoff: Duration::from_millis(1),
        avoid_previous: Some(false),
        other_localities: false,
    };
    let hasty = Some(Duration::from_millis(20));
    let unusable = |status| {
        let target = Target::Unusable(status);
        route(RouteAction::Forward(vec![Weighted {
            target,
            weight: 1,
            headers: Default::default(),
        }]))
    };
    let direct = DirectResponse { status: 202, body: b"here".to_vec() };
    let origins = AllowedOrigins(vec![TextPattern::Exact("http://a".to_owned())]);
    let cors = Some(Cors { origins, ..Cors::default() });
    rig.rules(rules(
        &v1,
        vec![
            ("/fault", faulty(&v1)),
            ("/direct", route(RouteAction::Direct(direct))),
            ("/moved", route(RouteAction::Redirect(Redirect { code: 302, ..Redirect::default() }))),
            ("/empty", route(to(&empty))),
            ("/dead", CompiledRoute { retries: Some(retries.clone()), ..route(to(&dead)) }),
            ("/slow", CompiledRoute { timeout: hasty, ..route(to(&v1)) }),
            ("/retried", CompiledRoute { retries: Some(retries), ..route(to(&v1)) }),
            ("/lost", unusable(500)),
            ("/unknown", unusable(502)),
            ("/cors", CompiledRoute { cors, ..route(to(&v1)) }),
        ],
    ));
    let cases = [
        ("fault", "/fault", "429 fault_injected DI,FI"),
        ("direct", "/direct", "202 direct_response -"),
        ("moved", "/moved", "302 redirect -"),
        ("empty", "/empty", "503 no_endpoints UH"),
        ("dead", "/dead", "503 connection_refused UF,URX"),
        ("slow", "/slow", "504 timeout UT"),
        ("retried", "/retried", "503 answered URX"),
        ("lost", "/lost", "500 route_leads_nowhere NR"),
        ("unknown", "/unknown", "502 not_registered NR"),
        ("none", "/none", "404 no_route NR"),
    ];
    for (id, path, expected) in cases {
        let mut request = named(id, path);
        if id == "slow" {
            request.headers_mut().insert("x-wait-ms", HeaderValue::from_static("60000"));
        }
        request.headers_mut().insert("x-answer", HeaderValue::from_static("503"));
        rig.send(request).await;
        let line = ends(&rig, id, expected).await;
        assert_eq!(line["service"], "cart.shop.svc.cluster.local", "{line}");
    }
    let mut preflight = named("preflight", "/cors");
    *preflight.method_mut() = Method::OPTIONS;
    for (name, value) in [("origin", "http://a"), ("access-control-request-method", "PUT")] {
        preflight.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    rig.send(preflight).await;
    ends(&rig, "preflight", "200 cors_preflight -").await;
    assert_eq!(line(&rig, "source", "retried").await["attempts"], 2);
    let requests = cases.len() as u64 + 1;
    assert_eq!(counted(&rig, "istio_requests_total", &["reporter=\"source\""]), requests);
    assert_eq!(counted(&rig, "istio_response_bytes_count", &[]), requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_told_from_one_that_speaks_no_http() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let mut stream = rig.client.dial(VIP.parse().unwrap()).await;
    let ask = "GET /left HTTP/1.1\r\nHost: cart\r\nX-Request-Id: left\r\nX-Wait-Ms: 60000\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    eventually("it is under way", || !rig.backends[0].requests().is_empty()).await;
    crate::tests::mesh::reset(stream);
    ends(&rig, "left", "- client_reset DC").await;
    assert_eq!(counted(&rig, "istio_requests_total", &["response_code=\"0\""]), 1);
    for (text, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "bad_request"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), "bad_request"),
    ] {
        let answer = rig.say(&text, false).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{text}: {answer}");
        let reason = format!("\"reason\":\"{reason}\"");
        let line = rig.mesh.logged(&[&reason, "\"status\":400"]).await;
        assert_eq!(line["response_flags"], "DPE", "{line}");
    }
    eventually("both are counted", || {
        counted(&rig, "istio_requests_total", &["response_flags=\"DPE\""]) == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_open_call_are_counted_while_they_pass() {
    let rig = Rig::new(&["v1"]).await;
    let v1 = rig.cluster_of(&["v1"], AppProtocol::Grpc);
    rig.rules(rules(&v1, vec![("/", route(to(&v1)))]));
    let body = b"\0\0\0\0\x02hi\0\0\0\0\x01!";
    let mut request =
        Request::post("http://cart/pkg.Service/Call").body(Full::from(&body[..])).unwrap();
    for (name, value) in
        [("content-type", "application/grpc"), ("x-request-id", "call"), ("te", "trailers")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let mut sender = rig.http2().await;
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // The answer's body has not been read.
    let sent = counted(&rig, "istio_request_messages_total", &["request_protocol=\"grpc\""]);
    assert_eq!(sent, 2);
    response.into_body().collect().await.unwrap();
    let line = line(&rig, "source", "call").await;
    assert_eq!((&line["protocol"], &line["bytes_received"]), (&"HTTP/2".into(), &13.into()));
    assert_eq!(counted(&rig, "istio_requests_total", &["request_protocol=\"grpc\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_says_where_a_request_went_and_by_which_route() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    let mut request = named("one", "/a/b?c=secret");
    *request.body_mut() = Full::from("hello");
    *request.method_mut() = Method::PUT;
    for (name, value) in [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("user-agent", "tester/1"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    rig.send(request).await;
    let line = ends(&rig, "one", "200 answered -").await;
    let server = &rig.backends[0].server;
    for (field, value) in [
        ("/method", "PUT"),
        ("/path", "/a/b?c=*"),
        ("/authority", "cart"),
        ("/route", "VirtualService shop/cart"),
        ("/route_name", "route"),
        ("/cluster", "outbound|80|v1|cart.shop.svc.cluster.local"),
        ("/destination/address", &server.address.to_string()),
        ("/destination/pod", "v1"),
        ("/source/pod", "client"),
        ("/dialled", VIP),
        ("/transport", "hbone"),
        ("/security", "mutual_tls"),
        ("/trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("/user_agent", "tester/1"),
    ] {
        assert_eq!(line.pointer(field).and_then(|found| found.as_str()), Some(value), "{field}");
    }
    assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&5.into(), &2.into()));
    let (duration, upstream) = (line["duration_ms"].as_f64(), line["upstream_ms"].as_f64());
    assert!(upstream.unwrap() <= duration.unwrap() && upstream.unwrap() > 0.0, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_tell_of_a_request_that_is_judged() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    look_at_requests(&rig.mesh, &rig.backends[0].server);
    assert_eq!(rig.send(named("fine", "/fine?a=b")).await.status(), StatusCode::OK);
    assert_eq!(rig.send(named("admin", "/admin")).await.status(), StatusCode::FORBIDDEN);
    for (id, at_source, at_destination) in
        [("fine", "answered", "answered"), ("admin", "answered", "policy_denied")]
    {
        assert_eq!(line(&rig, "source", id).await["reason"], at_source);
        let line = line(&rig, "destination", id).await;
        assert_eq!(line["reason"], at_destination, "{line}");
        assert_eq!(line["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/client");
    }
    let denied = line(&rig, "destination", "admin").await;
    assert_eq!(denied["policy"], "AuthorizationPolicy shop/no-admin", "{denied}");
    assert_eq!(denied["response_flags"], "UAEX");
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        assert_eq!(counted(&rig, "istio_requests_total", &[reporter]), 2, "{reporter}");
        assert_eq!(counted(&rig, "istio_tcp_connections_opened_total", &[reporter]), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_changed_policy_cuts_off_says_so() {
    let rig = Rig::new(&["v1"]).await;
    rig.plain_rules();
    look_at_requests(&rig.mesh, &rig.backends[0].server);
    let mut sender = rig.http1().await;
    let mut request = named("cut", "/");
    request.headers_mut().insert("x-wait-ms", HeaderValue::from_static("60000"));
    let waiting = tokio::spawn(sender.send_request(request));
    eventually("it is under way", || !rig.backends[0].requests().is_empty()).await;
    let name = rig.backends[0].server.workload.name.clone();
    let policy = Arc::new(crate::testing::policy(&["elsewhere"]));
    rig.mesh.configure(|snapshot| drop(snapshot.policies.insert(name, policy)));
    let line = line(&rig, "destination", "cut").await;
    assert_eq!(
        (&line["reason"], &line["response_flags"]),
        (&"policy_denied_late".into(), &"UAEX".into()),
        "{line}"
    );
    ends(&rig, "cut", "503 server_reset UC").await;
    drop(waiting.await);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_counted_where_they_arrive() {
    let rig = Rig::new(&["v1", "v2"]).await;
    let (v1, v2) = (rig.cluster(&["v1"]), rig.cluster(&["v2"]));
    let mut mirrored = route(to(&v1));
    mirrored.mirrors = vec![(Target::Cluster(Arc::clone(&v2)), Millionths::ALL)];
    rig.rules(rules(&v1, vec![("/", mirrored)]));
    look_at_requests(&rig.mesh, &rig.backends[1].server);
    rig.send(named("copied", "/")).await;
    let copy = line(&rig, "destination", "copied").await;
    assert_eq!(
        (&copy["authority"], &copy["destination"]["pod"]),
        (&"cart-shadow".into(), &"v2".into())
    );
    ends(&rig, "copied", "200 answered -").await;
    assert_eq!(counted(&rig, "istio_requests_total", &["reporter=\"source\""]), 1);
    assert_eq!(counted(&rig, "istio_requests_total", &["reporter=\"destination\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_within_the_node_is_counted_once_by_each_reporter() {
    for judged in [false, true] {
        let rig = Rig::new(&["v1"]).await;
        let server = &rig.backends[0].server;
        let local = WorkloadInfo { local: true, direct: true, ..(*server.workload).clone() };
        let endpoint = endpoint(server.address, &Arc::new(local));
        let local = cluster("local".to_owned(), AppProtocol::Http, vec![endpoint]);
        rig.rules(rules(&local, vec![("/", route(to(&local)))]));
        if judged {
            look_at_requests(&rig.mesh, server);
        }
        assert_eq!(rig.send(named("near", "/")).await.status(), StatusCode::OK);
        let line = ends(&rig, "near", "200 answered -").await;
        assert_eq!((&line["transport"], &line["security"]), (&"local".into(), &"none".into()));
        let reporters = ["reporter=\"source\"", "reporter=\"destination\""];
        let counts = || reporters.map(|it| counted(&rig, "istio_requests_total", &[it]));
        let expected = [1, u64::from(judged)];
        eventually("it is counted once by each", || counts() == expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_client_resets_takes_its_request_along() {
    let rig = Rig::new(&["v1"]).await;
    look_at_requests(&rig.mesh, &rig.backends[0].server);
    let mut peer = Peer::connect(&rig, rig.backends[0].server.address).await;
    let request = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/left"),
        (":authority", "cart"),
        ("x-wait-ms", "60000"),
    ];
    peer.say(&frame(HEADERS, END_STREAM | END_HEADERS, 1, fields(&request))).await;
    eventually("it is under way", || !rig.backends[0].requests().is_empty()).await;
    peer.say(&frame(RST_STREAM, 0, 1, [0, 0, 0, 8])).await;
    let line = rig.mesh.logged(&["\"/left\"", "\"destination\""]).await;
    assert_eq!((&line["reason"], &line["response_flags"]), (&"client_reset".into(), &"DC".into()));
    // The others of its connection go on.
    let other: Vec<_> =
        request[..2].iter().chain([&(":path", "/"), &request[3]]).copied().collect();
    peer.say(&frame(HEADERS, END_STREAM | END_HEADERS, 3, fields(&other))).await;
    let mut heard = peer.hear().await;
    while matches!(heard, Heard::Data(..)) {
        heard = peer.hear().await;
    }
    assert_eq!(heard, Heard::Answer(3, 200));
}
