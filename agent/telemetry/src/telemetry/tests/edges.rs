//! Series in, edges out.

use super::{
    requests::{flags, get, grpc, requests},
    *,
};
use crate::{Edge, RequestInfo, ResponseFlag};

fn edge<'a>(edges: &'a Edges, source: &str, protocol: &str) -> &'a Edge {
    let mut found = edges
        .edges
        .iter()
        .filter(|edge| edge.source.workload == source && edge.protocol == protocol);
    let edge = found.next().unwrap_or_else(|| panic!("no {protocol} from {source}: {edges:?}"));
    assert_eq!(found.next(), None);
    edge
}

#[test]
fn connections_of_one_edge_are_added_up_whatever_they_ended_with() {
    let (telemetry, _) = telemetry(10);
    let live = telemetry.open(info("web"));
    live.counters().add_sent(7);
    live.counters().add_received(5);
    telemetry.open(info("web")).close(CloseReason::new("connect_failed", "UF"));
    telemetry.open(info("web")).close(CloseReason::closed());
    let edges = telemetry.edges();
    let edge = edge(&edges, "web", "tcp");
    let connections = edge.connections.clone().unwrap();
    assert_eq!((connections.opened, connections.closed, connections.failed), (3, 2, 1));
    assert_eq!(connections.failed_by_flags, [("UF".to_owned(), 1)].into());
    assert_eq!((edge.bytes.received, edge.bytes.sent), (5, 7), "live connections count");
    assert_eq!((&*edge.reporter, &*edge.security), ("source", "mutual_tls"));
    assert_eq!(edge.source.principal, "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(edge.source.namespace, "shop");
    assert_eq!(edge.destination.workload, "cart");
    assert_eq!(edge.destination.service, "cart.shop.svc.cluster.local");
    assert_eq!(edge.destination.service_name, "cart");
    assert_eq!(edge.destination.principal, "unknown");
    assert_eq!((edge.requests.as_ref(), edge.messages), (None, None));
}

#[test]
fn requests_of_one_edge_are_added_up_whatever_became_of_them() {
    let (telemetry, _) = telemetry(10);
    let requests = requests(&telemetry, "web");
    requests.record(&get("/"));
    requests.record(&RequestInfo { duration: Duration::from_millis(700), ..get("/") });
    let failed = flags(&[ResponseFlag::RetryLimit, ResponseFlag::ConnectionFailure]);
    requests.record(&RequestInfo { status: Some(503), flags: failed, ..get("/") });
    requests.record(&RequestInfo { status: None, ..get("/") });
    grpc(&telemetry);
    let edges = telemetry.edges();
    let http = edge(&edges, "web", "http");
    let counted = http.requests.clone().unwrap();
    assert_eq!((counted.total, counted.failed), (4, 1));
    let named = |pairs: &[(&str, u64)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    assert_eq!(counted.by_class, named(&[("2xx", 2), ("5xx", 1), ("none", 1)]));
    assert_eq!(counted.by_flags, named(&[("UF,URX", 1)]));
    assert_eq!(counted.by_grpc_status, named(&[]));
    assert_eq!(counted.duration_counts.len(), edges.duration_bounds_milliseconds.len() + 1);
    let slot = |ms: f64| edges.duration_bounds_milliseconds.iter().position(|it| *it == ms);
    let within = |ms: f64| counted.duration_counts[slot(ms).unwrap()];
    assert_eq!((within(10.0), within(1000.0), within(500.0)), (3, 1, 0));
    assert_eq!(counted.duration_sum_milliseconds, 721.0);
    assert_eq!((http.bytes.received, http.bytes.sent), (12, 280));
    let called = edge(&edges, "web", "grpc");
    assert_eq!(called.requests.clone().unwrap().by_grpc_status, named(&[("0", 1)]));
    let messages = called.messages.unwrap();
    assert_eq!((messages.received, messages.sent), (2, 1));
}

#[test]
fn a_call_that_the_server_failed_has_failed_although_its_status_is_200() {
    let (telemetry, _) = telemetry(20);
    let requests = requests(&telemetry, "web");
    for status in 0..=16 {
        requests.record(&RequestInfo { grpc: true, grpc_status: Some(status), ..get("/a.B/C") });
    }
    let edges = telemetry.edges();
    let counted = edge(&edges, "web", "grpc").requests.clone().unwrap();
    assert_eq!((counted.total, counted.failed), (17, 5));
}

#[test]
fn what_labels_have_no_room_for_is_an_edge_between_unknowns() {
    let (telemetry, _) = telemetry(1);
    for source in ["a", "b", "c"] {
        telemetry.open(info(source)).close(CloseReason::closed());
        requests(&telemetry, source).record(&get("/"));
    }
    let edges = telemetry.edges();
    assert_eq!(edges.edges.len(), 4, "{edges:?}");
    assert_eq!(edge(&edges, "a", "tcp").connections.as_ref().unwrap().opened, 1);
    let rest = edge(&edges, "unknown", "tcp");
    assert_eq!(rest.connections.as_ref().unwrap().opened, 2);
    assert_eq!(rest.destination.service, "unknown");
    assert_eq!(edge(&edges, "unknown", "http").requests.as_ref().unwrap().total, 2);
}

#[test]
fn an_edge_goes_with_the_workload_and_time_does_not_go_back() {
    let (telemetry, _) = telemetry(10);
    telemetry.open(info("web")).close(CloseReason::closed());
    let before = telemetry.edges();
    telemetry.retain_workloads(|_, workload| workload != "web");
    let after = telemetry.edges();
    assert_eq!((before.edges.len(), after.edges.len()), (1, 0));
    assert!(after.monotonic_seconds > before.monotonic_seconds);
    assert_eq!(after.start_time_seconds, before.start_time_seconds);
    assert!(after.start_time_seconds > 1.6e9);
}
