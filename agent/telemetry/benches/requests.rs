//! What one request costs that is over: counted; counted and kept as a flow record; and with a line of the access
//! log, which a thread of its own writes meanwhile.
//!
//! `cargo bench -p undermesh-telemetry --bench requests`. Claims nothing: what is fast enough depends on the machine.
#![expect(clippy::unwrap_used, reason = "a benchmark may end")]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use criterion::Criterion;
use undermesh_model::{ResourceRef, SpiffeId, TrustDomain, traffic::ClusterKey};
use undermesh_telemetry::{
    ANSWERED, AccessLog, AccessLogSink, ConnectionInfo, Peer, Reporter, RequestInfo, Requests,
    Security, ServiceLabel, Telemetry, TraceId, Transport,
};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("a request is told");
    let off = || AccessLog::start(AccessLogSink::Off).unwrap();
    let discarded = AccessLogSink::File("/dev/null".into());
    for (name, telemetry) in [
        ("in metrics", Telemetry::new(off())),
        ("and as a flow", Telemetry::with_flows(off(), 4096)),
        ("and in the log", Telemetry::with_flows(AccessLog::start(discarded).unwrap(), 4096)),
    ] {
        let route = Arc::new(ResourceRef::namespaced("VirtualService", "shop", "cart"));
        let cluster = Arc::new(ClusterKey::new("cart.shop.svc.cluster.local", 80));
        let request = RequestInfo { route: Some(&route), cluster: Some(&cluster), ..request() };
        let same = requests(&telemetry);
        group.bench_function(format!("{name}, one of many"), |it| {
            it.iter(|| same.record(&request));
        });
        group.bench_function(format!("{name}, a connection of its own"), |it| {
            it.iter(|| requests(&telemetry).record(&request));
        });
        group.bench_function(format!("{name}, by two threads at a time"), |it| {
            it.iter_custom(|count| together(&telemetry, &request, count));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// The time that each of two threads takes for so many.
fn together(telemetry: &Arc<Telemetry>, request: &RequestInfo<'_>, count: u64) -> Duration {
    let many = || {
        let own = requests(telemetry);
        let began = Instant::now();
        (0..count).for_each(|_| own.record(request));
        began.elapsed()
    };
    thread::scope(|scope| {
        let other = scope.spawn(many);
        many().max(other.join().unwrap())
    })
}

fn requests(telemetry: &Arc<Telemetry>) -> Arc<Requests> {
    telemetry.requests(telemetry.connection(), connection())
}

fn connection() -> ConnectionInfo {
    let peer = |name: &str| Peer {
        workload: name.to_owned(),
        pod: format!("{name}-6d5f4c8b7-x2x4z"),
        ..Peer::from_identity(SpiffeId::new(TrustDomain::default(), "shop", name))
    };
    ConnectionInfo {
        reporter: Reporter::Source,
        source: peer("web"),
        destination: peer("cart"),
        service: Some(ServiceLabel {
            host: "cart.shop.svc.cluster.local".to_owned(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
        }),
        security: Security::MutualTls,
        transport: Transport::Hbone,
        source_addr: "10.1.0.2:40000".parse().unwrap(),
        dialled: Some("10.96.0.1:80".parse().unwrap()),
        upstream: Some("10.1.1.2:8080".parse().unwrap()),
        generation: 3,
    }
}

fn request() -> RequestInfo<'static> {
    RequestInfo {
        generation: 3,
        method: "GET",
        authority: "cart.shop",
        path: "/api/v1/items/4711?page=2",
        protocol: "HTTP/1.1",
        status: Some(200),
        reason: ANSWERED,
        request_id: Some("6e3a1f0c-2b1d-4c8e-9f0a-3b5d7e9f1a2c"),
        trace_id: TraceId::from_hex(b"4bf92f3577b34da6a3ce929d0e0e4736").map(Into::into),
        endpoint: Some("10.1.1.2:8080".parse().unwrap()),
        attempts: 1,
        sent: 1024,
        duration: Duration::from_micros(1234),
        upstream_time: Some(Duration::from_micros(1111)),
        user_agent: Some("curl/8.9.1"),
        ..RequestInfo::default()
    }
}
