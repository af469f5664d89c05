//! Ejections over time, over snapshots, and between pods.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::advance;
use undermesh_model::traffic::{Millionths, SimpleBalancer};
use undermesh_snapshot::traffic::ClusterSpec;

use super::*;
use crate::upstream::{
    Cluster, LocalError, Pick, Upstreams,
    testing::{OWN, Rig, address, pick, settle, spec},
};

const SECOND: Duration = Duration::from_secs(1);
const FAILURE: Outcome = Outcome::Status(StatusCode::INTERNAL_SERVER_ERROR);
const SUCCESS: Outcome = Outcome::Status(StatusCode::OK);
const NOBODY: [usize; 0] = [];

/// Three endpoints of which two may be ejected, after two failures in a row.
fn watched() -> ClusterSpec {
    let mut spec = spec(3);
    spec.settings.outlier = Some(OutlierDetection {
        consecutive_5xx: Some(2),
        max_ejection: Some(Millionths::from_percent(70.0)),
        ..OutlierDetection::default()
    });
    spec
}

fn with_interval(interval: Duration) -> ClusterSpec {
    let mut spec = watched();
    if let Some(rule) = &mut spec.settings.outlier {
        rule.interval = Some(interval);
    }
    spec
}

fn record(cluster: &Cluster, nth: usize, outcomes: &[Outcome]) {
    let health = cluster.members()[nth - 1].health.as_ref().unwrap();
    for outcome in outcomes {
        cluster.detector().unwrap().record(health, *outcome);
    }
}

fn ejected(cluster: &Cluster) -> Vec<usize> {
    let members = cluster.members().iter().zip(1..);
    members.filter(|(member, _)| !member.is_healthy()).map(|(_, nth)| nth).collect()
}

/// Winds the clock second by second, so that sweeps happen when they are due.
async fn pass(seconds: u32) {
    for _ in 0..seconds {
        advance(SECOND).await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_in_a_row_is_out_for_the_base_time() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    record(&cluster, 1, &[FAILURE, SUCCESS, FAILURE]);
    assert_eq!(ejected(&cluster), NOBODY);
    record(&cluster, 1, &[FAILURE]);
    assert_eq!(ejected(&cluster), [1]);
    assert!((0..50).all(|_| cluster.admit(&pick()).unwrap().endpoint().address != address(1)));
    assert_eq!(rig.figure("undermesh_upstream_ejected_endpoints", ""), Some(1));
    pass(29).await;
    assert_eq!(ejected(&cluster), [1]);
    pass(11).await;
    assert_eq!(ejected(&cluster), NOBODY);
    assert_eq!(rig.figure("undermesh_upstream_ejected_endpoints", ""), Some(0));
    let cause = ",cause=\"consecutive_5xx\"";
    assert_eq!(rig.figure("undermesh_upstream_ejections_total", cause), Some(1));
}

#[tokio::test(start_paused = true)]
async fn each_ejection_lasts_longer_and_good_times_shorten_the_next() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    record(&cluster, 1, &[FAILURE; 2]);
    pass(31).await;
    record(&cluster, 1, &[FAILURE; 2]);
    pass(50).await;
    assert_eq!(ejected(&cluster), [1], "the second time takes twice as long");
    pass(20).await;
    assert_eq!(ejected(&cluster), NOBODY);
    pass(40).await;
    record(&cluster, 1, &[FAILURE; 2]);
    pass(40).await;
    assert_eq!(ejected(&cluster), NOBODY, "the factor has shrunk to one again");
}

#[tokio::test(start_paused = true)]
async fn no_more_endpoints_are_ejected_than_may_be() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    for nth in 1..=3 {
        record(&cluster, nth, &[FAILURE; 2]);
    }
    assert_eq!(ejected(&cluster), [1, 2]);
    assert_eq!(rig.figure("undermesh_upstream_ejections_refused_total", ""), Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_one_pod_learns_all_pods_of_the_node_know() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    let other = Upstreams::new(&rig.node, &OWN).cluster(&Arc::new(watched()));
    record(&cluster, 2, &[FAILURE]);
    record(&other, 2, &[FAILURE]);
    assert_eq!(ejected(&cluster), [2]);
    assert_eq!(ejected(&other), [2]);
    assert!((0..50).all(|_| other.admit(&pick()).unwrap().endpoint().address != address(2)));
}

#[tokio::test(start_paused = true)]
async fn ejections_outlive_a_change_of_configuration() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    record(&cluster, 1, &[FAILURE; 2]);
    let mut changed = watched();
    changed.endpoints.remove(1);
    changed.settings.balancer.simple = Some(SimpleBalancer::Random);
    let changed = rig.cluster(&changed);
    assert_eq!(ejected(&changed), [1]);
    // Where the rule goes, they end with it.
    let plain = rig.cluster(&spec(3));
    assert_eq!(ejected(&plain), NOBODY);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_that_is_none_any_more_is_not_counted() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    record(&cluster, 1, &[FAILURE; 2]);
    let mut changed = watched();
    changed.endpoints.remove(0);
    let changed = rig.cluster(&changed);
    assert_eq!(rig.figure("undermesh_upstream_ejected_endpoints", ""), Some(0));
    // Who is still on the way there does no harm.
    record(&cluster, 1, &[FAILURE; 2]);
    assert_eq!(ejected(&changed), NOBODY);
    assert_eq!(rig.figure("undermesh_upstream_ejected_endpoints", ""), Some(0));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_returns_begins_anew() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    record(&cluster, 1, &[FAILURE; 9]);
    assert_eq!(ejected(&cluster), [1]);
    pass(40).await;
    assert_eq!(ejected(&cluster), NOBODY);
    record(&cluster, 1, &[FAILURE]);
    assert_eq!(ejected(&cluster), NOBODY);
}

#[tokio::test(start_paused = true)]
async fn connections_that_fail_eject_an_endpoint_too() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    let tried = [address(2), address(3)];
    for _ in 0..2 {
        let pick = Pick { tried: &tried, ..pick() };
        cluster.admit_connection(&pick).unwrap().failed(LocalError::ConnectFailure);
    }
    assert_eq!(ejected(&cluster), [1]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_the_client_gave_up_counts_as_nothing() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    let tried = [address(2), address(3)];
    let admit = || cluster.admit(&Pick { tried: &tried, ..pick() }).unwrap();
    admit().finish(FAILURE);
    drop(admit());
    assert_eq!(ejected(&cluster), NOBODY);
    admit().finish(FAILURE);
    assert_eq!(ejected(&cluster), [1]);
}

#[tokio::test(start_paused = true)]
async fn status_says_who_is_out_and_for_how_long() {
    let rig = Rig::new();
    let cluster = rig.cluster(&watched());
    record(&cluster, 2, &[FAILURE; 2]);
    advance(10 * SECOND).await;
    let status = rig.upstreams.status();
    let json = serde_json::to_value(&status[0]).unwrap();
    assert_eq!(json["cluster"], "outbound|80||cart");
    let out = serde_json::json!({
        "cause": "consecutive_5xx",
        "ejections": 1,
        "secondsLeft": 20,
    });
    assert_eq!(json["endpoints"][1]["ejected"], out);
    assert_eq!(json["endpoints"][0].get("ejected"), None);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_interval_of_a_new_rule_is_kept_to_at_once() {
    let rig = Rig::new();
    rig.cluster(&with_interval(3600 * SECOND));
    let cluster = rig.cluster(&with_interval(SECOND));
    record(&cluster, 1, &[FAILURE; 2]);
    pass(32).await;
    assert_eq!(ejected(&cluster), NOBODY);
}
