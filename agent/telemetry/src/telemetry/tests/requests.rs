//! Requests in, lines and series out.

use undermesh_model::{ResourceRef, traffic::ClusterKey};

use super::*;
use crate::{RequestInfo, Requests, ResponseFlag, ResponseFlags, TraceId};

pub(super) fn get(path: &str) -> RequestInfo<'_> {
    RequestInfo {
        generation: 4,
        method: "GET",
        authority: "cart",
        path,
        protocol: "HTTP/1.1",
        status: Some(200),
        reason: "answered",
        attempts: 1,
        received: 3,
        sent: 70,
        duration: Duration::from_millis(7),
        ..RequestInfo::default()
    }
}

pub(super) fn requests(telemetry: &Arc<Telemetry>, source: &str) -> Arc<Requests> {
    telemetry.requests(telemetry.connection(), info(source))
}

/// One gRPC request with two messages of its client and one of its server.
pub(super) fn grpc(telemetry: &Arc<Telemetry>) {
    let requests = requests(telemetry, "web");
    let [received, sent] = requests.messages();
    received.inc_by(2);
    sent.inc();
    requests.record(&RequestInfo { grpc: true, grpc_status: Some(0), ..get("/pkg.Service/Call") });
}

pub(super) fn flags(flags: &[ResponseFlag]) -> ResponseFlags {
    let mut all = ResponseFlags::default();
    flags.iter().for_each(|flag| all.insert(*flag));
    all
}

#[test]
fn a_request_is_counted_under_istios_names_and_labels() {
    let (telemetry, _) = telemetry(10);
    grpc(&telemetry);
    let requests = requests(&telemetry, "web");
    requests.record(&get("/"));
    let failed = flags(&[ResponseFlag::RetryLimit, ResponseFlag::ConnectionFailure]);
    requests.record(&RequestInfo { status: Some(503), flags: failed, ..get("/") });
    requests.record(&RequestInfo { status: None, ..get("/") });
    let ends = "reporter=\"source\",source_workload=\"web\",source_canonical_service=\"unknown\",\
                source_canonical_revision=\"unknown\",source_workload_namespace=\"shop\",\
                source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_app=\"unknown\",\
                source_version=\"unknown\",source_cluster=\"unknown\",\
                destination_service=\"cart.shop.svc.cluster.local\",\
                destination_service_namespace=\"shop\",destination_service_name=\"cart\",\
                destination_workload=\"cart\",destination_canonical_service=\"unknown\",\
                destination_canonical_revision=\"unknown\",destination_workload_namespace=\"shop\",\
                destination_principal=\"unknown\",destination_app=\"unknown\",\
                destination_version=\"unknown\",destination_cluster=\"unknown\"";
    let security = "connection_security_policy=\"mutual_tls\"";
    let request = |protocol: &str, code: &str, grpc: &str, flags: &str| {
        format!(
            "{ends},request_protocol=\"{protocol}\",response_code=\"{code}\",\
             grpc_response_status=\"{grpc}\",response_flags=\"{flags}\",{security}"
        )
    };
    let answered = request("http", "200", "", "-");
    let called = request("grpc", "200", "0", "-");
    let message = format!("{ends},request_protocol=\"grpc\",{security}");
    let text = telemetry.encode();
    for line in [
        format!("istio_requests_total{{{answered}}} 1"),
        format!("istio_requests_total{{{called}}} 1"),
        format!("istio_requests_total{{{}}} 1", request("http", "503", "", "UF,URX")),
        format!("istio_requests_total{{{}}} 1", request("http", "0", "", "-")),
        format!("istio_request_duration_milliseconds_count{{{answered}}} 1"),
        format!("istio_request_duration_milliseconds_bucket{{le=\"5.0\",{answered}}} 0"),
        format!("istio_request_duration_milliseconds_bucket{{le=\"10.0\",{answered}}} 1"),
        format!("istio_request_duration_milliseconds_bucket{{le=\"3600000.0\",{answered}}} 1"),
        format!("istio_request_bytes_sum{{{answered}}} 3.0"),
        format!("istio_response_bytes_sum{{{answered}}} 70.0"),
        format!("istio_response_bytes_bucket{{le=\"0.5\",{answered}}} 0"),
        format!("istio_response_bytes_bucket{{le=\"100.0\",{answered}}} 1"),
        format!("istio_request_messages_total{{{message}}} 2"),
        format!("istio_response_messages_total{{{message}}} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in {text}");
    }
}

#[test]
fn a_request_is_logged_once_with_all_that_is_known() {
    let (telemetry, lines) = telemetry(10);
    let requests = requests(&telemetry, "web");
    let agent = "curl/8\n".to_owned() + &"x".repeat(1000);
    let policy = ResourceRef::namespaced("AuthorizationPolicy", "shop", "guard");
    let route = Arc::new(ResourceRef::namespaced("VirtualService", "shop", "cart"));
    let cluster = Arc::new(ClusterKey::new("cart.shop.svc.cluster.local", 80));
    requests.record(&RequestInfo {
        policy: Some(policy.named()),
        flags: flags(&[ResponseFlag::Denied]),
        status: Some(403),
        reason: "policy_denied",
        detail: Some("why"),
        request_id: Some("one"),
        trace_id: TraceId::from_hex(b"0af7651916cd43dd8448eb211c80319c").map(Into::into),
        route: Some(&route),
        route_name: Some(&"canary".into()),
        cluster: Some(&cluster),
        endpoint: Some("10.1.1.3:8080".parse().unwrap()),
        attempts: 2,
        upstream_time: Some(Duration::from_micros(1500)),
        user_agent: Some(&agent),
        ..get("/login?token=secret")
    });
    let lines = wait_for(&lines, 1);
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    for (field, value) in [
        ("/event", "request"),
        ("/reporter", "source"),
        ("/source/pod", "web-0"),
        ("/destination/address", "10.1.1.3:8080"),
        ("/service", "cart.shop.svc.cluster.local"),
        ("/method", "GET"),
        ("/authority", "cart"),
        ("/path", "/login?token=*"),
        ("/protocol", "HTTP/1.1"),
        ("/response_flags", "UAEX"),
        ("/reason", "policy_denied"),
        ("/detail", "why"),
        ("/policy", "AuthorizationPolicy shop/guard"),
        ("/request_id", "one"),
        ("/trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ("/route", "VirtualService shop/cart"),
        ("/route_name", "canary"),
        ("/cluster", "outbound|80||cart.shop.svc.cluster.local"),
    ] {
        assert_eq!(line.pointer(field).and_then(|found| found.as_str()), Some(value), "{field}");
    }
    for (field, value) in [
        ("status", 403.0),
        ("attempts", 2.0),
        ("bytes_received", 3.0),
        ("bytes_sent", 70.0),
        ("duration_ms", 7.0),
        ("upstream_ms", 1.5),
        ("generation", 4.0),
    ] {
        assert_eq!(line[field].as_f64(), Some(value), "{field}");
    }
    assert_eq!(line["user_agent"].as_str().unwrap().chars().count(), 256);
    assert!(line.get("grpc_status").is_none());
}

#[test]
fn what_is_not_known_is_left_out() {
    let (telemetry, lines) = telemetry(10);
    requests(&telemetry, "web").record(&RequestInfo { status: None, ..get("/") });
    let line = &wait_for(&lines, 1)[0];
    for field in ["status", "policy", "request_id", "trace_id", "route", "route_name", "cluster"] {
        assert!(line.get(field).is_none(), "{field} in {line}");
    }
}

#[test]
fn statuses_that_servers_make_up_share_a_series() {
    let (telemetry, _) = telemetry(10);
    let requests = requests(&telemetry, "web");
    for status in 600..700 {
        requests.record(&RequestInfo { status: Some(status), ..get("/") });
        let grpc_status = Some(status);
        requests.record(&RequestInfo { grpc: true, grpc_status, ..get("/") });
    }
    let text = telemetry.encode();
    let counted = |part: &str| value(&text, "istio_requests_total", &[part]);
    assert_eq!(counted("response_code=\"unknown\""), Some(100.0));
    assert_eq!(counted("grpc_response_status=\"unknown\""), Some(100.0));
}

#[test]
fn series_of_requests_are_bounded_and_go_with_their_workloads() {
    let (telemetry, _) = telemetry(2);
    for n in 0..100 {
        requests(&telemetry, &format!("w{n}")).record(&get("/"));
    }
    let text = telemetry.encode();
    let counted = |part: &str| value(&text, "istio_requests_total", &[part]);
    assert_eq!(counted("source_workload=\"w0\""), Some(1.0));
    assert_eq!(counted("source_workload=\"unknown\""), Some(98.0));
    assert!(text.contains("undermesh_metric_series_overflow_total 98"));
    let held = requests(&telemetry, "w1");
    held.record(&get("/"));
    // Whoever counts in a series keeps it.
    assert_eq!(telemetry.retain_workloads(|_, _| false), 1);
    drop(held);
    assert_eq!(telemetry.retain_workloads(|_, name| name != "w1"), 1);
    for name in ["istio_requests_total", "istio_response_bytes_count"] {
        // That of the overflow stays.
        assert_eq!(series(&telemetry, name), 1, "{name}");
    }
}

#[test]
fn requests_are_kept_as_flow_records_even_where_no_log_is_written() {
    let log = AccessLog::start(AccessLogSink::Off).unwrap();
    let telemetry = Telemetry::with_flows(log, 10);
    requests(&telemetry, "web").record(&get("/"));
    let kept = telemetry.flows().after(None).lines();
    assert!(kept.len() == 1 && kept[0].contains("\"event\":\"request\""), "{kept:?}");
}
