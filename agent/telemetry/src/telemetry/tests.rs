//! Records in, lines and series out.

use std::time::{Duration, Instant};

use undermesh_model::{SpiffeId, TrustDomain};

use super::*;
use crate::{AccessLogSink, Peer, Reporter, Security, ServiceLabel, Transport};

type Lines = Arc<Mutex<Vec<String>>>;

fn telemetry(max_series: usize) -> (Arc<Telemetry>, Lines) {
    let lines = Lines::default();
    let log = AccessLog::start(AccessLogSink::Memory(Arc::clone(&lines))).unwrap();
    (Telemetry::with_max_series(log, max_series), lines)
}

fn info(source: &str) -> ConnectionInfo {
    let identity = SpiffeId::new(TrustDomain::default(), "shop", source);
    ConnectionInfo {
        reporter: Reporter::Source,
        source: Peer {
            workload: source.to_owned(),
            pod: format!("{source}-0"),
            ..Peer::from_identity(identity)
        },
        destination: Peer {
            workload: "cart".to_owned(),
            namespace: "shop".to_owned(),
            ..Peer::default()
        },
        service: Some(ServiceLabel {
            host: "cart.shop.svc.cluster.local".to_owned(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
        }),
        security: Security::MutualTls,
        transport: Transport::Hbone,
        source_addr: "10.1.0.2:4000".parse().unwrap(),
        dialled: Some("10.96.0.1:80".parse().unwrap()),
        upstream: Some("10.1.1.2:8080".parse().unwrap()),
        generation: 3,
    }
}

/// Waits until the writer has written `count` lines.
fn wait_for(lines: &Lines, count: usize) -> Vec<serde_json::Value> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = lines.lock().unwrap().clone();
        if found.len() >= count {
            return found.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        assert!(Instant::now() < deadline, "only {found:?}");
        std::thread::yield_now();
    }
}

/// The value of the one series of `name` whose labels hold all of `parts`.
fn value(text: &str, name: &str, parts: &[&str]) -> Option<f64> {
    let mut found = text.lines().filter(|line| {
        line.starts_with(&format!("{name}{{")) && parts.iter().all(|part| line.contains(part))
    });
    let line = found.next()?;
    assert_eq!(found.next(), None, "{name} is not unique");
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_connection_is_logged_when_it_opens_and_when_it_closes() {
    let (telemetry, lines) = telemetry(10);
    let record = telemetry.open(info("web"));
    record.counters().add_sent(7);
    record.counters().add_received(5);
    record.close(CloseReason::closed());
    let lines = wait_for(&lines, 2);
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["event"], &lines[1]["event"]), (&"open".into(), &"close".into()));
    assert_eq!(lines[0]["connection"], lines[1]["connection"]);
    let close = &lines[1];
    assert_eq!(close["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!((&close["bytes_sent"], &close["bytes_received"]), (&7.into(), &5.into()));
    assert_eq!((&close["reason"], &close["response_flags"]), (&"closed".into(), &"-".into()));
    assert_eq!(close["service"], "cart.shop.svc.cluster.local");
    assert!(close["duration_ms"].as_f64().unwrap() >= 0.0);
}

#[test]
fn a_dropped_record_closes_once_as_aborted() {
    let (telemetry, lines) = telemetry(10);
    drop(telemetry.open(info("web")));
    let lines = wait_for(&lines, 2);
    assert_eq!(lines[1]["reason"], "aborted");
    let text = telemetry.encode();
    assert_eq!(value(&text, "istio_tcp_connections_closed_total", &[]), Some(1.0));
}

#[test]
fn bytes_of_a_live_connection_show_before_it_closes_and_are_not_counted_twice() {
    let (telemetry, _) = telemetry(10);
    let record = telemetry.open(info("web"));
    record.counters().add_received(100);
    let received = |telemetry: &Telemetry| {
        value(&telemetry.encode(), "istio_tcp_received_bytes_total", &["source_workload=\"web\""])
    };
    assert_eq!(received(&telemetry), Some(100.0));
    assert_eq!(received(&telemetry), Some(100.0));
    record.counters().add_received(1);
    record.close(CloseReason::closed());
    assert_eq!(received(&telemetry), Some(101.0));
    assert_eq!(telemetry.live().len(), 0);
}

#[test]
fn a_resumed_connection_is_not_opened_twice() {
    let (telemetry, lines) = telemetry(10);
    telemetry.resume(info("web"), Duration::from_secs(5)).close(CloseReason::closed());
    let lines = wait_for(&lines, 1);
    assert_eq!((lines.len(), &lines[0]["event"]), (1, &"close".into()));
    assert!(lines[0]["duration_ms"].as_f64().unwrap() >= 5_000.0);
    let text = telemetry.encode();
    assert_eq!(value(&text, "istio_tcp_connections_opened_total", &[]), None);
    assert_eq!(value(&text, "istio_tcp_connections_closed_total", &[]), Some(1.0));
}

#[test]
fn labels_are_istios() {
    let (telemetry, _) = telemetry(10);
    telemetry.open(info("web")).close(CloseReason::new("connect_failed", "UF"));
    let text = telemetry.encode();
    let opened = value(
        &text,
        "istio_tcp_connections_opened_total",
        &[
            "reporter=\"source\"",
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/web\"",
            "destination_service=\"cart.shop.svc.cluster.local\"",
            "destination_principal=\"unknown\"",
            "request_protocol=\"tcp\"",
            "response_flags=\"-\"",
            "connection_security_policy=\"mutual_tls\"",
        ],
    );
    assert_eq!(opened, Some(1.0));
    let closed = value(&text, "istio_tcp_connections_closed_total", &["response_flags=\"UF\""]);
    assert_eq!(closed, Some(1.0));
}

#[test]
fn denied_connections_are_counted_by_reason_and_logged() {
    let (telemetry, lines) = telemetry(10);
    let reason = CloseReason::new("strict_plaintext", "-").with_detail("why");
    telemetry.denied(&Denial { info: info("web"), reason });
    let lines = wait_for(&lines, 1);
    assert_eq!((&lines[0]["event"], &lines[0]["detail"]), (&"denied".into(), &"why".into()));
    let parts = ["reason=\"strict_plaintext\""];
    assert_eq!(value(&telemetry.encode(), "undermesh_connections_denied_total", &parts), Some(1.0));
}

#[test]
fn series_have_a_bound_and_go_with_their_workloads() {
    let (telemetry, _) = telemetry(2);
    let open = ["a", "b", "c", "d"].map(|name| telemetry.open(info(name)));
    let text = telemetry.encode();
    let opened = |parts: &[&str]| value(&text, "istio_tcp_connections_opened_total", parts);
    assert_eq!(opened(&["source_workload=\"a\""]), Some(1.0));
    assert_eq!(opened(&["source_workload=\"unknown\""]), Some(2.0));
    assert!(text.contains("undermesh_metric_series_overflow_total 2"));
    assert_eq!(telemetry.retain_workloads(|_, name| name == "a"), 1);
    assert!(!telemetry.encode().contains("source_workload=\"b\""));
    drop(open);
}

#[test]
fn a_sink_that_does_not_write_costs_lines_and_never_waits() {
    let lines = Lines::default();
    let log = AccessLog::start(AccessLogSink::Memory(Arc::clone(&lines))).unwrap();
    let telemetry = Telemetry::new(log);
    let stuck = lines.lock().unwrap();
    for _ in 0..10_000 {
        drop(telemetry.open(info("web")));
    }
    drop(stuck);
    let dropped = telemetry.access_log().dropped();
    assert!(dropped > 0, "the queue has no bound");
    assert!(telemetry.encode().contains(&format!("undermesh_access_log_dropped_total {dropped}")));
    wait_for(&lines, 20_000 - dropped as usize);
}

#[test]
fn every_metric_is_documented() {
    let (telemetry, _) = telemetry(2);
    drop(telemetry.open(info("web")));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/metrics.md");
    let documented = std::fs::read_to_string(path).unwrap();
    for line in telemetry.encode().lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next()) {
            assert!(
                documented.contains(&format!("`{name}")),
                "{name} is not in docs/reference/metrics.md"
            );
        }
    }
}
