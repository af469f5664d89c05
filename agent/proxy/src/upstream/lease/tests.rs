//! What attempts count in, and which version of HTTP they are sent in.

use std::sync::Arc;

use http::{HeaderValue, Method, Version as HttpVersion};
use undermesh_model::traffic::{HttpPool, UpgradePolicy};
use undermesh_snapshot::traffic::AppProtocol;

use super::*;
use crate::upstream::{
    Refusal,
    testing::{OWN, Rig, pick, request, spec},
};

fn version_of(http: HttpPool, protocol: AppProtocol, client: HttpVersion) -> Version {
    let mut spec = spec(1);
    spec.protocol = protocol;
    spec.settings.pool.http = http;
    let mut request = request(Method::GET, "/");
    *request.version_mut() = client;
    version(&spec, &request)
}

const ONE: HttpVersion = HttpVersion::HTTP_11;
const TWO: HttpVersion = HttpVersion::HTTP_2;

#[test]
fn the_ports_protocol_says_what_its_endpoints_speak() {
    let of = |protocol, client| version_of(HttpPool::default(), protocol, client);
    assert_eq!(of(AppProtocol::Http, TWO), Version::Http1);
    assert_eq!(of(AppProtocol::Http2, ONE), Version::Http2);
    assert_eq!(of(AppProtocol::Grpc, ONE), Version::Http2);
    assert_eq!(of(AppProtocol::Auto, ONE), Version::Http1);
    assert_eq!(of(AppProtocol::Auto, TWO), Version::Http2);
}

#[test]
fn the_upgrade_policy_goes_before_the_port_and_the_clients_protocol_before_both() {
    let upgrade = Some(UpgradePolicy::Upgrade);
    let http = HttpPool { upgrade, ..HttpPool::default() };
    assert_eq!(version_of(http.clone(), AppProtocol::Http, ONE), Version::Http2);
    let http = HttpPool { use_client_protocol: true, ..http };
    assert_eq!(version_of(http.clone(), AppProtocol::Http, ONE), Version::Http1);
    assert_eq!(version_of(http.clone(), AppProtocol::Http, TWO), Version::Http2);
    assert_eq!(version_of(http, AppProtocol::Grpc, HttpVersion::HTTP_10), Version::Http1);
}

#[test]
fn a_request_for_an_upgrade_is_sent_over_http1() {
    let mut spec = spec(1);
    spec.protocol = AppProtocol::Http2;
    let mut request = request(Method::GET, "/");
    request.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    assert_eq!(version(&spec, &request), Version::Http1);
}

#[tokio::test]
async fn attempts_count_while_they_run() {
    let rig = Rig::new();
    let cluster = rig.cluster(&spec(1));
    let figure = || rig.figure("undermesh_upstream_requests", "");
    let leases = (cluster.admit(&pick()).unwrap(), cluster.admit(&pick()).unwrap());
    assert_eq!(figure(), Some(2));
    leases.0.finish(Outcome::Status(http::StatusCode::OK));
    assert_eq!(figure(), Some(1));
    drop(leases.1);
    assert_eq!(figure(), Some(0));
}

#[tokio::test]
async fn retries_have_a_limit_of_their_own() {
    let rig = Rig::new();
    let mut spec = spec(1);
    spec.settings.pool.http.max_retries = Some(1);
    let cluster = rig.cluster(&spec);
    let first = cluster.permit_retry().unwrap();
    assert_eq!(cluster.permit_retry().err(), Some("maxRetries"));
    assert!(cluster.admit(&pick()).is_ok());
    assert_eq!(rig.overflow("maxRetries"), 1);
    drop(first);
    assert!(cluster.permit_retry().is_ok());
}

#[tokio::test]
async fn connections_of_tcp_routes_have_a_limit() {
    let rig = Rig::new();
    let mut spec = spec(1);
    spec.settings.pool.tcp.max_connections = Some(2);
    let cluster = rig.cluster(&spec);
    let held = (cluster.admit_connection(&pick()).unwrap(), cluster.admit_connection(&pick()));
    assert_eq!(held.0.connect_timeout(), Duration::from_secs(10));
    assert_eq!(rig.figure("undermesh_upstream_connections", ""), Some(2));
    let refusal = cluster.admit_connection(&pick()).err();
    assert_eq!(refusal, Some(Refusal::Overflow("maxConnections")));
    assert_eq!(rig.overflow("maxConnections"), 1);
    held.0.connected();
    drop(held);
    assert_eq!(rig.figure("undermesh_upstream_connections", ""), Some(0));
    assert!(cluster.admit_connection(&pick()).is_ok());
}

#[tokio::test]
async fn limits_hold_over_snapshots_and_for_each_pod() {
    let rig = Rig::new();
    let mut spec = spec(1);
    spec.settings.pool.tcp.max_connections = Some(2);
    let held = rig.cluster(&spec).admit_connection(&pick()).unwrap();
    spec.settings.pool.tcp.max_connections = Some(1);
    assert!(rig.cluster(&spec).admit_connection(&pick()).is_err());
    let other = crate::upstream::Upstreams::new(&rig.node, &OWN);
    assert!(other.cluster(&Arc::new(spec)).admit_connection(&pick()).is_ok());
    drop(held);
}
