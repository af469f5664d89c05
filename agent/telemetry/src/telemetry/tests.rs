//! Records in, lines and series out.

mod audited;
mod edges;
mod exposition;
mod requests;

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
fn times_have_three_digits_of_a_second_whatever_they_are() {
    let (telemetry, lines) = telemetry(10);
    // With trailing zeros dropped, one time in ten would be shorter.
    for _ in 0..50 {
        drop(telemetry.open(info("web")));
        std::thread::yield_now();
    }
    for line in wait_for(&lines, 100) {
        let time = line["time"].as_str().unwrap();
        let shape: String =
            time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
    }
}

#[test]
fn a_peers_words_are_cut_in_the_log() {
    let (telemetry, lines) = telemetry(10);
    let reason = CloseReason::new("tunnel_lost", "UC").with_detail("é".repeat(100_000));
    telemetry.open(info("web")).close(reason);
    assert_eq!(wait_for(&lines, 2)[1]["detail"].as_str().unwrap(), "é".repeat(512));
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
fn bytes_are_counted_exactly_once_while_metrics_are_scraped() {
    const CONNECTIONS: u64 = 4;
    const READS: u64 = 20_000;
    let (telemetry, _) = telemetry(10);
    std::thread::scope(|scope| {
        let carrying = (0..CONNECTIONS).map(|_| {
            let record = telemetry.open(info("web"));
            scope.spawn(move || {
                for _ in 0..READS {
                    record.counters().add_sent(3);
                    record.counters().add_received(1);
                }
                record.close(CloseReason::closed());
            })
        });
        let carrying: Vec<_> = carrying.collect();
        while !carrying.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            telemetry.encode();
        }
    });
    let text = telemetry.encode();
    let (sent, received) = (READS * 3 * CONNECTIONS, READS * CONNECTIONS);
    assert_eq!(value(&text, "istio_tcp_sent_bytes_total", &[]), Some(sent as f64));
    assert_eq!(value(&text, "istio_tcp_received_bytes_total", &[]), Some(received as f64));
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
fn what_ends_otherwise_than_it_should_is_counted_by_reason() {
    let (telemetry, _) = telemetry(10);
    telemetry.open(info("web")).close(CloseReason::closed());
    telemetry.open(info("web")).close(CloseReason::new("server_reset", "UC"));
    let requests = requests::requests(&telemetry, "web");
    requests.record(&requests::get("/"));
    requests.record(&crate::RequestInfo { reason: "timeout", ..requests::get("/") });
    let text = telemetry.encode();
    let count = |name: &str, reason: &str| value(&text, name, &[&format!("reason=\"{reason}\"")]);
    let (connections, requests) =
        ("undermesh_connections_broken_total", "undermesh_requests_unanswered_total");
    assert_eq!(count(connections, "server_reset"), Some(1.0));
    assert_eq!(count(requests, "timeout"), Some(1.0));
    assert_eq!((count(connections, "closed"), count(requests, "answered")), (None, None));
}

/// How many series of `name` there are.
fn series(telemetry: &Telemetry, name: &str) -> usize {
    telemetry.encode().lines().filter(|line| line.starts_with(&format!("{name}{{"))).count()
}

#[test]
fn series_beyond_the_bound_are_counted_as_unknown() {
    let (telemetry, _) = telemetry(2);
    let open: Vec<_> = (0..100).map(|n| telemetry.open(info(&format!("w{n}")))).collect();
    let text = telemetry.encode();
    let opened = |parts: &[&str]| value(&text, "istio_tcp_connections_opened_total", parts);
    assert_eq!(opened(&["source_workload=\"w0\""]), Some(1.0));
    // What has few values stays: nothing here was plaintext.
    let rest = ["source_workload=\"unknown\"", "connection_security_policy=\"mutual_tls\""];
    assert_eq!(opened(&rest), Some(98.0));
    assert!(text.contains("undermesh_metric_series_overflow_total 98"));
    for record in open {
        record.close(CloseReason::new("server_reset", "UC"));
    }
    assert_eq!(series(&telemetry, "istio_tcp_connections_opened_total"), 3);
    let closed = ["source_workload=\"unknown\"", "response_flags=\"UC\""];
    let text = telemetry.encode();
    assert_eq!(value(&text, "istio_tcp_connections_closed_total", &closed), Some(100.0));
}

#[test]
fn series_go_with_the_workload_at_either_end_and_make_room() {
    let (telemetry, _) = telemetry(4);
    let not = |gone: &'static str| move |_: &str, name: &str| name != gone;
    telemetry.open(info("a")).close(CloseReason::closed());
    telemetry.open(info("b")).close(CloseReason::new("client_reset", "DC"));
    assert_eq!(telemetry.retain_workloads(not("b")), 2);
    assert!(!telemetry.encode().contains("source_workload=\"b\""));
    assert_eq!(series(&telemetry, "istio_tcp_connections_opened_total"), 1);
    assert_eq!(telemetry.retain_workloads(not("cart")), 1);
    for name in ["istio_tcp_connections_opened_total", "istio_tcp_sent_bytes_total"] {
        assert_eq!(series(&telemetry, name), 0);
    }
    let names = ["c", "d", "e", "f"];
    let _open = names.map(|name| telemetry.open(info(name)));
    assert_eq!(series(&telemetry, "istio_tcp_connections_opened_total"), 4);
    assert!(telemetry.encode().contains("undermesh_metric_series_overflow_total 0"));
}

#[test]
fn an_end_that_was_never_known_is_not_gone() {
    let (telemetry, _) = telemetry(10);
    let stranger = ConnectionInfo { destination: Peer::unknown(), ..info("web") };
    telemetry.open(stranger).close(CloseReason::closed());
    assert_eq!(telemetry.retain_workloads(|_, name| name == "web"), 0);
}

#[test]
fn series_of_an_open_connection_stay_until_it_closes() {
    let (telemetry, _) = telemetry(10);
    let record = telemetry.open(info("web"));
    record.counters().add_sent(1);
    assert_eq!(telemetry.retain_workloads(|_, _| false), 0);
    record.counters().add_sent(1);
    let sent = ["source_workload=\"web\""];
    let text = telemetry.encode();
    assert_eq!(value(&text, "istio_tcp_sent_bytes_total", &sent), Some(2.0));
    record.close(CloseReason::closed());
    assert_eq!(telemetry.retain_workloads(|_, _| false), 1);
    for name in ["opened", "closed"] {
        assert_eq!(series(&telemetry, &format!("istio_tcp_connections_{name}_total")), 0);
    }
    assert_eq!(series(&telemetry, "istio_tcp_sent_bytes_total"), 0);
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
    // Up to now, a few may not have been in the queue yet.
    let dropped = || telemetry.access_log().dropped() as usize;
    while lines.lock().unwrap().len() + dropped() < 20_000 {
        std::thread::yield_now();
    }
    let dropped = dropped();
    assert!(dropped > 0, "the queue has no bound");
    assert!(telemetry.encode().contains(&format!("undermesh_access_log_dropped_total {dropped}")));
    assert_eq!(lines.lock().unwrap().len() + dropped, 20_000);
}
