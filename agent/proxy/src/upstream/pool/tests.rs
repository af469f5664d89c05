//! Connections to servers in memory: how many, which, and for how long.

use std::{sync::atomic::Ordering, time::Duration};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::{sync::Semaphore, time::advance};
use undermesh_model::traffic::{Millionths, OutlierDetection};
use undermesh_snapshot::traffic::{AppProtocol, ClusterSpec};

use super::*;
use crate::upstream::{
    Cluster, LocalError, Outcome, SendError,
    testing::{Rig, Server, exchange, pick, request, send, settle, spec, until},
};

mod broken;

const SECOND: Duration = Duration::from_secs(1);

fn http1() -> ClusterSpec {
    spec(1)
}

fn http2() -> ClusterSpec {
    ClusterSpec { protocol: AppProtocol::Http2, ..spec(1) }
}

/// A request that runs, or waits, on its own.
fn start(
    cluster: &Arc<Cluster>,
    server: &Arc<Server>,
    path: &'static str,
) -> tokio::task::JoinHandle<Result<StatusCode, SendError>> {
    let (cluster, server) = (Arc::clone(cluster), Arc::clone(server));
    tokio::spawn(async move {
        let (_lease, answer) = send(&cluster, &server, path).await?;
        let status = answer.status();
        answer.into_body().collect().await.unwrap();
        Ok(status)
    })
}

fn pending(rig: &Rig) -> u64 {
    rig.figure("undermesh_upstream_pending_requests", "").unwrap()
}

fn connections(rig: &Rig) -> u64 {
    rig.figure("undermesh_upstream_connections", "").unwrap()
}

async fn ok(request: tokio::task::JoinHandle<Result<StatusCode, SendError>>) {
    assert_eq!(request.await.unwrap().unwrap(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again_once_its_answer_was_read() {
    let (rig, server) = (Rig::new(), Server::http1());
    let cluster = rig.cluster(&http1());
    for _ in 0..3 {
        exchange(&cluster, &server, "/").await;
    }
    assert_eq!((server.dials(), server.seen()), (1, 3));
    let pooled = |how| rig.figure("undermesh_upstream_pool_requests_total", how);
    assert_eq!(pooled(",result=\"hit\""), Some(2));
    assert_eq!(pooled(",result=\"miss\""), Some(1));
    assert_eq!(connections(&rig), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_connection_once_the_limit_is_reached() {
    let (rig, server) = (Rig::new(), Arc::new(Server::http1()));
    let mut spec = http1();
    spec.settings.pool.tcp.max_connections = Some(1);
    let cluster = rig.cluster(&spec);
    let first = start(&cluster, &server, "/hold");
    until("the first arrives", || server.seen() == 1).await;
    let second = start(&cluster, &server, "/hold");
    until("the second waits", || pending(&rig) == 1).await;
    assert_eq!(rig.overflow("maxConnections"), 1);
    server.answer(2);
    ok(first).await;
    ok(second).await;
    assert_eq!((server.dials(), pending(&rig)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_are_refused() {
    let (rig, server) = (Rig::new(), Arc::new(Server::http1()));
    let mut spec = http1();
    spec.settings.pool.tcp.max_connections = Some(1);
    spec.settings.pool.http.max_pending = Some(1);
    let cluster = rig.cluster(&spec);
    let first = start(&cluster, &server, "/hold");
    until("the first arrives", || server.seen() == 1).await;
    let second = start(&cluster, &server, "/hold");
    until("the second waits", || pending(&rig) == 1).await;
    let third = send(&cluster, &server, "/").await.err();
    assert!(matches!(third, Some(SendError::Overflow(PENDING))), "{third:?}");
    assert_eq!(rig.overflow(PENDING), 1);
    server.answer(2);
    ok(first).await;
    ok(second).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_says_nothing_about_the_endpoint() {
    let (rig, server) = (Rig::new(), Arc::new(Server::http1()));
    let mut spec = http1();
    spec.settings.pool.http.max_requests = Some(1);
    spec.settings.outlier = Some(OutlierDetection {
        consecutive_5xx: Some(1),
        max_ejection: Some(Millionths::ALL),
        ..OutlierDetection::default()
    });
    let cluster = rig.cluster(&spec);
    let first = start(&cluster, &server, "/hold");
    until("the first arrives", || server.seen() == 1).await;
    let lease = cluster.admit(&pick()).unwrap();
    let error = lease.send(&*server, request(Method::GET, "/")).await.err();
    assert!(matches!(error, Some(SendError::Overflow(_))), "{error:?}");
    lease.finish(Outcome::LocalError(LocalError::Reset));
    assert!(cluster.admit(&pick()).is_ok());
    server.answer(1);
    ok(first).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_run_than_may() {
    for (spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let (rig, server) = (Rig::new(), Arc::new(server));
        let mut spec = spec;
        spec.settings.pool.http.max_requests = Some(1);
        let cluster = rig.cluster(&spec);
        let first = start(&cluster, &server, "/hold");
        until("the first arrives", || server.seen() == 1).await;
        let second = send(&cluster, &server, "/").await.err();
        assert!(matches!(second, Some(SendError::Overflow("http2MaxRequests"))), "{second:?}");
        assert_eq!(rig.overflow("http2MaxRequests"), 1);
        server.answer(1);
        ok(first).await;
        exchange(&cluster, &server, "/").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_after_its_number_of_requests() {
    for (spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let rig = Rig::new();
        let mut spec = spec;
        spec.settings.pool.http.max_requests_per_connection = Some(2);
        let cluster = rig.cluster(&spec);
        for _ in 0..5 {
            exchange(&cluster, &server, "/").await;
        }
        assert_eq!((server.dials(), server.seen()), (3, 5));
        assert!(connections(&rig) <= 2);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_time() {
    for (spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let rig = Rig::new();
        let mut spec = spec;
        spec.settings.pool.http.idle_timeout = Some(5 * SECOND);
        let cluster = rig.cluster(&spec);
        exchange(&cluster, &server, "/").await;
        advance(4 * SECOND).await;
        exchange(&cluster, &server, "/").await;
        advance(4 * SECOND).await;
        settle().await;
        assert_eq!(connections(&rig), 1);
        advance(2 * SECOND).await;
        until("it is closed", || connections(&rig) == 0).await;
        assert_eq!(server.dials(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_gets_no_more_requests() {
    for (spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let (rig, server) = (Rig::new(), Arc::new(server));
        let mut spec = spec;
        spec.settings.pool.tcp.max_connection_duration = Some(5 * SECOND);
        let cluster = rig.cluster(&spec);
        let long = start(&cluster, &server, "/hold");
        until("it arrives", || server.seen() == 1).await;
        advance(6 * SECOND).await;
        exchange(&cluster, &server, "/").await;
        assert_eq!(server.dials(), 2);
        // What runs on the old one is not cut off.
        server.answer(1);
        ok(long).await;
    }
}

#[tokio::test(start_paused = true)]
async fn http2_requests_share_a_connection() {
    let (rig, server) = (Rig::new(), Arc::new(Server::http2()));
    let cluster = rig.cluster(&http2());
    let requests: Vec<_> = (0..10).map(|_| start(&cluster, &server, "/hold")).collect();
    until("all arrive", || server.seen() == 10).await;
    server.answer(10);
    for request in requests {
        ok(request).await;
    }
    assert_eq!((server.dials(), connections(&rig)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_gets_no_more_streams_than_the_rule_and_the_peer_allow() {
    let (rig, server) = (Rig::new(), Arc::new(Server::http2()));
    let mut spec = http2();
    spec.settings.pool.http.max_concurrent_streams = Some(2);
    let cluster = rig.cluster(&spec);
    let requests: Vec<_> = (0..5).map(|_| start(&cluster, &server, "/hold")).collect();
    until("all arrive", || server.seen() == 5).await;
    assert_eq!(server.dials(), 3);
    server.answer(5);
    for request in requests {
        ok(request).await;
    }
    let (rig, server) = (Rig::new(), Arc::new(Server::new(true, 2)));
    let cluster = rig.cluster(&http2());
    // What the peer allows is known with its first answer.
    exchange(&cluster, &server, "/").await;
    exchange(&cluster, &server, "/").await;
    let requests: Vec<_> = (0..5).map(|_| start(&cluster, &server, "/hold")).collect();
    until("all arrive", || server.seen() == 7).await;
    assert!(server.dials() >= 2);
    server.answer(5);
    for request in requests {
        ok(request).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_that_fails_fails_with_it() {
    let rig = Rig::new();
    let mut server = Server::http2();
    server.dial_gate = Some(Semaphore::new(0));
    let server = Arc::new(server);
    server.refuses.store(true, Ordering::Relaxed);
    let cluster = rig.cluster(&http2());
    let requests: Vec<_> = (0..3).map(|_| start(&cluster, &server, "/")).collect();
    until("all wait", || pending(&rig) == 3).await;
    server.dial_gate.as_ref().unwrap().add_permits(1);
    for request in requests {
        let error = request.await.unwrap().err();
        assert!(matches!(error, Some(SendError::Connect(_))), "{error:?}");
    }
    assert_eq!((server.dials(), connections(&rig), pending(&rig)), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_while_it_connects_leaves_its_place_to_the_next() {
    for (spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let (rig, mut spec, mut server) = (Rig::new(), spec, server);
        spec.settings.pool.tcp.max_connections = Some(1);
        server.dial_gate = Some(Semaphore::new(0));
        let server = Arc::new(server);
        let cluster = rig.cluster(&spec);
        let gone = start(&cluster, &server, "/");
        until("it dials", || server.dials() == 1).await;
        let next = start(&cluster, &server, "/");
        until("the next waits", || pending(&rig) == 2).await;
        gone.abort();
        until("the next dials", || server.dials() == 2).await;
        server.dial_gate.as_ref().unwrap().add_permits(1);
        ok(next).await;
        assert_eq!(connections(&rig), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_too_long_is_given_up() {
    let rig = Rig::new();
    let mut server = Server::http1();
    server.dial_gate = Some(Semaphore::new(0));
    let mut spec = http1();
    spec.settings.pool.tcp.connect_timeout = Some(SECOND);
    let cluster = rig.cluster(&spec);
    let error = send(&cluster, &server, "/").await.err();
    let Some(SendError::Connect(failure)) = error else { panic!("{error:?}") };
    assert_eq!(failure.reason(), "connect_timeout");
    assert_eq!(connections(&rig), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_costs_no_request() {
    for (spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let (rig, server) = (Rig::new(), server);
        let cluster = rig.cluster(&spec);
        exchange(&cluster, &server, "/").await;
        server.close();
        // Without a pause: the connection may still look alive.
        exchange(&cluster, &server, "/").await;
        assert_eq!((server.dials(), server.seen()), (2, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_on_a_connection_that_says_goodbye_are_answered() {
    let (rig, server) = (Rig::new(), Arc::new(Server::http2()));
    let cluster = rig.cluster(&http2());
    let running = start(&cluster, &server, "/hold");
    until("it arrives", || server.seen() == 1).await;
    server.close();
    settle().await;
    exchange(&cluster, &server, "/").await;
    assert_eq!(server.dials(), 2);
    server.answer(1);
    ok(running).await;
}

#[tokio::test(start_paused = true)]
async fn connections_to_what_is_no_endpoint_any_more_are_closed() {
    let (rig, server) = (Rig::new(), Server::http1());
    exchange(&rig.cluster(&http1()), &server, "/").await;
    assert_eq!(connections(&rig), 1);
    rig.cluster(&spec(0));
    until("it is closed", || connections(&rig) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn connections_outlive_a_change_of_configuration() {
    let (rig, server) = (Rig::new(), Server::http1());
    exchange(&rig.cluster(&http1()), &server, "/").await;
    exchange(&rig.cluster(&spec(2)), &server, "/").await;
    exchange(&rig.cluster(&http1()), &server, "/").await;
    assert!(server.dials() <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_closes_its_connections() {
    let (rig, server) = (Rig::new(), Server::http2());
    let metrics = rig.node.metrics.cluster(&http2().key);
    exchange(&rig.cluster(&http2()), &server, "/").await;
    assert_eq!(metrics.connections.get(), 1);
    drop(rig);
    until("it is closed", || metrics.connections.get() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_nobody_uses_is_forgotten() {
    let rig = Rig::new();
    drop(rig.cluster(&http1()));
    assert_eq!(rig.upstreams.status().len(), 1);
    for _ in 0..12 {
        advance(60 * SECOND).await;
        settle().await;
    }
    assert_eq!(rig.upstreams.status().len(), 0);
    assert_eq!(rig.figure("undermesh_upstream_requests", ""), None);
}

/// Requests that come, wait, are cut off and end in any order, on several threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_and_no_limit_exceeded_under_a_storm() {
    for (spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let (rig, server, mut spec) = (Rig::new(), Arc::new(server), spec);
        spec.settings.pool.tcp.max_connections = Some(3);
        spec.settings.pool.http.max_requests_per_connection = Some(7);
        spec.settings.pool.http.max_concurrent_streams = Some(4);
        let cluster = rig.cluster(&spec);
        let limit = Arc::clone(&cluster.terms().limits.connections);
        let requests: Vec<_> = (0..600).map(|_| start(&cluster, &server, "/")).collect();
        let cut_off = |(nth, request): (usize, tokio::task::JoinHandle<_>)| {
            if nth % 5 == 0 {
                request.abort();
            }
            request
        };
        let requests: Vec<_> = requests.into_iter().enumerate().map(cut_off).collect();
        let all = async {
            for request in requests {
                match request.await {
                    Ok(answer) => assert_eq!(answer.unwrap(), StatusCode::OK),
                    Err(error) => assert!(error.is_cancelled(), "{error}"),
                }
                assert!(limit.held() <= 3);
            }
        };
        tokio::time::timeout(60 * SECOND, all).await.expect("requests are stuck");
        let free = async {
            while cluster.terms().limits.requests.held() + cluster.terms().limits.pending.held() > 0
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(10 * SECOND, free).await.expect("something is still held");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_idle_time_of_a_new_rule_is_kept_to() {
    let (rig, server) = (Rig::new(), Server::http1());
    let mut spec = http1();
    spec.settings.pool.http.idle_timeout = Some(Duration::ZERO);
    exchange(&rig.cluster(&spec), &server, "/").await;
    advance(7200 * SECOND).await;
    settle().await;
    assert_eq!(connections(&rig), 1, "0 means never");
    spec.settings.pool.http.idle_timeout = Some(7201 * SECOND);
    rig.cluster(&spec);
    advance(2 * SECOND).await;
    until("it is closed", || connections(&rig) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_before_the_others_is_closed_in_time() {
    let (rig, server) = (Rig::new(), Arc::new(Server::http1()));
    let mut spec = http1();
    spec.settings.pool.tcp.max_connection_duration = Some(20 * SECOND);
    spec.settings.pool.http.idle_timeout = Some(15 * SECOND);
    let cluster = rig.cluster(&spec);
    let long = start(&cluster, &server, "/hold");
    until("it arrives", || server.seen() == 1).await;
    advance(10 * SECOND).await;
    // Idle until 25 s; the older one is given back later and is to be closed at 20 s.
    exchange(&cluster, &server, "/").await;
    advance(SECOND).await;
    server.answer(1);
    ok(long).await;
    settle().await;
    assert_eq!(connections(&rig), 2);
    advance(10 * SECOND).await;
    until("the older one is closed", || connections(&rig) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_smaller_number_of_requests_of_a_new_rule_is_kept_to() {
    for (mut spec, server) in [(http1(), Server::http1()), (http2(), Server::http2())] {
        let rig = Rig::new();
        let cluster = rig.cluster(&spec);
        for _ in 0..3 {
            exchange(&cluster, &server, "/").await;
        }
        assert_eq!(server.dials(), 1);
        spec.settings.pool.http.max_requests_per_connection = Some(3);
        exchange(&rig.cluster(&spec), &server, "/").await;
        assert_eq!(server.dials(), 2);
    }
}
