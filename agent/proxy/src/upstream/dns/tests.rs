//! Clusters whose endpoints are names, with a real DNS server on loopback.

use std::{sync::Arc, time::Duration};

use hickory_resolver::proto::op::ResponseCode;
use undermesh_model::traffic::{ClusterKey, Locality, Millionths, OutlierDetection};
use undermesh_snapshot::traffic::{ClusterSpec, DnsEndpoint};

use super::testing::{DnsServer, Says};
use crate::upstream::{
    Cluster, Outcome, Refusal,
    testing::{Rig, Server, exchange, pick, spec},
};

const API: &str = "api.example";

fn named(one: bool) -> ClusterSpec {
    let dns = DnsEndpoint {
        name: API.to_owned(),
        port: 443,
        one,
        weight: 1,
        locality: Locality::default(),
        priority: 0,
    };
    ClusterSpec { dns: vec![dns], ..spec(0) }
}

fn endpoints(cluster: &Cluster) -> Vec<String> {
    let mut all: Vec<_> =
        cluster.members().iter().map(|member| member.endpoint.address.to_string()).collect();
    all.sort();
    all
}

/// Waits in real time: the server is a real one.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waited).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn the_first_request_waits_for_the_first_answer() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1", "192.0.2.2", "2001:db8::1"], 60);
    let rig = Rig::resolving_with(server.address);
    let spec = Arc::new(named(false));
    let early = rig.upstreams.cluster(&spec).admit(&pick()).err();
    assert_eq!(early, Some(Refusal::NoEndpoints));
    let cluster = rig.upstreams.resolved(&spec).await;
    assert_eq!(endpoints(&cluster), ["192.0.2.1:443", "192.0.2.2:443"]);
    assert!(cluster.admit(&pick()).is_ok());
    assert_eq!(rig.node.names()[0].addresses.len(), 3);
    assert_eq!(rig.sum("undermesh_dns_names"), 1);
    assert_eq!(rig.sum("undermesh_dns_lookups_total{result=\"found\"}"), 1);
}

#[tokio::test]
async fn an_answer_that_comes_as_the_cluster_is_made_is_not_missed() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1"], 60);
    let rig = Rig::resolving_with(server.address);
    let made = rig.upstreams.cluster(&Arc::new(named(false)));
    until("an answer", || !rig.node.names()[0].addresses.is_empty()).await;
    assert_eq!(endpoints(&made), [""; 0]);
    let answered = rig.upstreams.answered(made).await;
    assert_eq!(endpoints(&answered), ["192.0.2.1:443"]);
}

#[tokio::test]
async fn other_addresses_are_followed_and_what_is_known_of_those_that_stay_is_kept() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1", "192.0.2.2"], 0);
    let rig = Rig::resolving_with(server.address);
    let mut named = named(false);
    named.settings.outlier = Some(OutlierDetection {
        consecutive_5xx: Some(1),
        max_ejection: Some(Millionths::ALL),
        ..OutlierDetection::default()
    });
    let spec = Arc::new(named);
    let cluster = rig.upstreams.resolved(&spec).await;
    let lease = cluster.admit(&pick()).unwrap();
    let ejected = lease.endpoint().address;
    let host = Arc::clone(&lease.member.host);
    lease.finish(Outcome::Status(http::StatusCode::BAD_GATEWAY));
    let stays = ejected.ip().to_string();
    server.are(API, &[&stays, "192.0.2.3"], 0);
    let wanted = [format!("{stays}:443"), "192.0.2.3:443".to_owned()];
    until("the new address", || endpoints(&rig.upstreams.cluster(&spec)) == wanted).await;
    let cluster = rig.upstreams.cluster(&spec);
    let kept = cluster.members().iter().find(|one| one.endpoint.address == ejected).unwrap();
    assert!(!kept.is_healthy() && Arc::ptr_eq(&kept.host, &host));
    let next = cluster.admit(&pick()).unwrap();
    assert_eq!(next.endpoint().address, "192.0.2.3:443".parse().unwrap());
}

#[tokio::test]
async fn the_last_good_answer_outlives_servers_that_fail() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1"], 0);
    let rig = Rig::resolving_with(server.address);
    let spec = Arc::new(named(false));
    rig.upstreams.resolved(&spec).await;
    server.says(API, Says::Error(ResponseCode::ServFail));
    until("a failure", || rig.node.names()[0].error.is_some()).await;
    assert_eq!(endpoints(&rig.upstreams.cluster(&spec)), ["192.0.2.1:443"]);
    assert!(rig.sum("undermesh_dns_lookups_total{result=\"failed\"}") > 0);
    server.are(API, &["192.0.2.9"], 0);
    let cluster = || rig.upstreams.cluster(&spec);
    until("the new address", || endpoints(&cluster()) == ["192.0.2.9:443"]).await;
    assert_eq!(rig.node.names()[0].error, None);
}

#[tokio::test]
async fn a_name_that_is_gone_has_no_endpoints_in_the_end() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1"], 0);
    let rig = Rig::resolving_with(server.address);
    let spec = Arc::new(named(false));
    rig.upstreams.resolved(&spec).await;
    server.says(API, Says::Error(ResponseCode::NXDomain));
    until("no endpoints", || endpoints(&rig.upstreams.cluster(&spec)).is_empty()).await;
    assert!(server.asked() >= 3);
    assert_eq!(rig.node.names()[0].error, None);
}

#[tokio::test]
async fn connections_to_one_address_at_a_time_outlive_it() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1", "192.0.2.2"], 0);
    let rig = Rig::resolving_with(server.address);
    let spec = Arc::new(named(true));
    let cluster = rig.upstreams.resolved(&spec).await;
    assert_eq!(endpoints(&cluster), ["192.0.2.1:443"]);
    let http = Server::http1();
    exchange(&cluster, &http, "/").await;
    server.are(API, &["192.0.2.2", "192.0.2.1"], 0);
    let now = || rig.upstreams.cluster(&spec);
    until("the other address", || endpoints(&now()) == ["192.0.2.2:443"]).await;
    exchange(&now(), &http, "/").await;
    assert_eq!(http.dials(), 1);
}

#[tokio::test]
async fn a_change_of_configuration_keeps_what_is_resolved() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1"], 60);
    let rig = Rig::resolving_with(server.address);
    rig.upstreams.resolved(&Arc::new(named(false))).await;
    let mut changed = named(false);
    changed.settings.pool.http.max_requests = Some(7);
    assert_eq!(endpoints(&rig.upstreams.cluster(&Arc::new(changed))), ["192.0.2.1:443"]);
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn names_and_addresses_share_the_load() {
    let server = DnsServer::start().await;
    server.are(API, &["192.0.2.1"], 60);
    let rig = Rig::resolving_with(server.address);
    let both = ClusterSpec { endpoints: spec(1).endpoints, ..named(false) };
    let cluster = rig.upstreams.resolved(&Arc::new(both)).await;
    assert_eq!(endpoints(&cluster), ["10.0.0.1:80", "192.0.2.1:443"]);
}

#[tokio::test]
async fn a_host_that_stands_for_many_is_where_the_name_is_that_is_asked_for() {
    let server = DnsServer::start().await;
    server.are("a.many.example", &["192.0.2.1"], 60);
    server.are("b.many.example", &["192.0.2.2"], 60);
    let rig = Rig::resolving_with(server.address);
    let mut many = ClusterSpec { dynamic: Some(443), ..spec(0) };
    many.key = ClusterKey::new("*.many.example", 80).into();
    let many = Arc::new(many);
    let at = async |name: &str| {
        let cluster = rig.upstreams.for_name(&many, name).await;
        cluster.map(|cluster| endpoints(&cluster))
    };
    assert_eq!(at("a.many.example").await.unwrap(), ["192.0.2.1:443"]);
    assert_eq!(at("B.many.example.").await.unwrap(), ["192.0.2.2:443"]);
    for none in ["many.example", "a.other.example", "", "192.0.2.1", "a b.many.example"] {
        assert_eq!(at(none).await, None, "{none}");
    }
    // The same from one request to the next, until the configuration is another one.
    let cluster = rig.upstreams.for_name(&many, "a.many.example").await.unwrap();
    let again = rig.upstreams.for_name(&many, "a.many.example").await.unwrap();
    assert!(Arc::ptr_eq(cluster.spec(), again.spec()));
    let newer = Arc::new(ClusterSpec { dynamic: Some(444), ..(*many).clone() });
    let cluster = rig.upstreams.for_name(&newer, "a.many.example").await.unwrap();
    assert_eq!(endpoints(&cluster), ["192.0.2.1:444"]);
}

#[tokio::test]
async fn so_many_names_and_no_more_are_destinations_of_their_own() {
    let server = DnsServer::start().await;
    let rig = Rig::resolving_with(server.address);
    let mut many = spec(1);
    many.key = ClusterKey::new("*.many.example", 80).into();
    let mode = undermesh_model::traffic::TlsMode::Simple;
    many.settings.tls = Some(undermesh_model::traffic::ClientTls { mode, ..Default::default() });
    let many = Arc::new(many);
    for number in 0..1024 {
        let name = format!("{number}.many.example");
        assert!(rig.upstreams.for_name(&many, &name).await.is_some(), "{number}");
    }
    assert!(rig.upstreams.for_name(&many, "one-too-many.many.example").await.is_none());
    assert!(rig.upstreams.for_name(&many, "7.many.example").await.is_some());
}
