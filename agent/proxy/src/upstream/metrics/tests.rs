//! Series come and go with their clusters.

use prometheus_client::encoding::text::encode;
use undermesh_tests::Reference;

use super::*;

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

fn key(view: &str) -> ClusterKey {
    ClusterKey {
        subset: "v2".to_owned(),
        view: view.to_owned(),
        ..ClusterKey::new("cart.shop.svc.cluster.local", 80)
    }
}

const LABEL: &str = "cluster=\"outbound|80|v2|cart.shop.svc.cluster.local\"";

#[test]
fn series_are_there_from_the_start_and_go_with_their_cluster() {
    let mut registry = Registry::default();
    let metrics = UpstreamMetrics::register(&mut registry);
    let cluster = metrics.cluster(&key(""));
    let line =
        format!("undermesh_upstream_overflow_total{{{LABEL},limit=\"http1MaxPendingRequests\"}}");
    assert!(text(&registry).contains(&format!("{line} 0")));
    cluster.overflow(limits::PENDING);
    cluster.ejected(Cause::Local.as_str());
    cluster.ejection_refused();
    let seen = Reference::read().unwrap().check(&text(&registry)).unwrap();
    assert_eq!(seen.len(), 9, "{seen:?}");
    assert!(text(&registry).contains(&format!("{line} 1")));
    drop(cluster);
    assert!(!text(&registry).contains(LABEL), "{}", text(&registry));
}

#[test]
fn views_of_a_cluster_count_together_and_the_last_takes_the_series_along() {
    let mut registry = Registry::default();
    let metrics = UpstreamMetrics::register(&mut registry);
    let (one, other) = (metrics.cluster(&key("a")), metrics.cluster(&key("b")));
    let raised = (Raised::new(&one.requests), Raised::new(&other.requests));
    let line = |n| format!("undermesh_upstream_requests{{{LABEL}}} {n}");
    assert!(text(&registry).contains(&line(2)));
    drop((raised, one));
    assert!(text(&registry).contains(&line(0)));
    drop(other);
    assert!(!text(&registry).contains(LABEL));
}
