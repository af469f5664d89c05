//! Every setting that is supported.

use std::time::Duration;

use undermesh_model::traffic::{
    ClientTls, ConnectionPool, ConsistentHash, HashKey, HttpPool, KeyMaterial, LoadBalancer,
    LocalityBalance, Millionths, OutlierDetection, Ring, SimpleBalancer, TcpPool, TlsMode,
    UpgradePolicy, Warmup,
};

use super::{policy, quiet_policy, read};

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

#[test]
fn balancers_without_a_key_are_known_by_their_names() {
    for (simple, expected) in [
        ("UNSPECIFIED", None),
        ("LEAST_CONN", Some(SimpleBalancer::LeastRequest)),
        ("LEAST_REQUEST", Some(SimpleBalancer::LeastRequest)),
        ("RANDOM", Some(SimpleBalancer::Random)),
        ("PASSTHROUGH", Some(SimpleBalancer::Passthrough)),
        ("ROUND_ROBIN", Some(SimpleBalancer::RoundRobin)),
    ] {
        let read = quiet_policy(&format!("{{loadBalancer: {{simple: {simple}}}}}"));
        let expected = LoadBalancer { simple: expected, ..LoadBalancer::default() };
        assert_eq!(read.balancer, Some(expected));
    }
}

#[test]
fn a_key_is_hashed_on_a_ring_or_a_table() {
    let ring = |minimum| Ring::Ring { minimum };
    let cookie = |path: Option<&str>, ttl| HashKey::Cookie {
        name: "user".to_owned(),
        path: path.map(str::to_owned),
        ttl,
    };
    for (hash, key, expected) in [
        ("{httpHeaderName: X-User}", HashKey::Header("x-user".to_owned()), ring(1024)),
        ("{useSourceIp: true, ringHash: {}}", HashKey::SourceIp, ring(1024)),
        ("{useSourceIp: true, ringHash: {minimumRingSize: 7}}", HashKey::SourceIp, ring(7)),
        (
            "{httpQueryParameterName: user, maglev: {tableSize: 65537}}",
            HashKey::Query("user".to_owned()),
            Ring::Maglev { size: 65537 },
        ),
        ("{httpCookie: {name: user}}", cookie(None, None), ring(1024)),
        (
            "{httpCookie: {name: user, path: /cart, ttl: 0s}}",
            cookie(Some("/cart"), seconds(0)),
            ring(1024),
        ),
        ("{httpCookie: {name: user, ttl: 1h}}", cookie(None, seconds(3600)), ring(1024)),
    ] {
        let read = quiet_policy(&format!("{{loadBalancer: {{consistentHash: {hash}}}}}"));
        let hash = ConsistentHash { key, ring: expected };
        let expected = LoadBalancer { hash: Some(hash), ..LoadBalancer::default() };
        assert_eq!(read.balancer, Some(expected));
    }
}

#[test]
fn localities_get_shares_or_fail_over() {
    let read = |setting: &str| {
        let read = quiet_policy(&format!(
            "{{loadBalancer: {{localityLbSetting: {setting}}}, outlierDetection: {{}}}}"
        ));
        read.balancer.unwrap().locality.unwrap()
    };
    let expected = LocalityBalance {
        distribute: vec![
            ("us/a/*".to_owned(), vec![("us/a/*".to_owned(), 80), ("us/b/*".to_owned(), 20)]),
            ("*".to_owned(), vec![("eu".to_owned(), 100)]),
        ],
        ..LocalityBalance::default()
    };
    let shares = "{distribute: [{from: us/a/*, to: {us/a/*: 80, us/b/*: 20}},
                                {from: '*', to: {eu: 100}}]}";
    assert_eq!(read(shares), expected);
    let expected = LocalityBalance {
        failover: vec![("us".to_owned(), "eu".to_owned())],
        failover_priority: vec!["kubernetes.io/hostname".to_owned()],
        enabled: Some(true),
        ..LocalityBalance::default()
    };
    let failover = "{failover: [{from: us, to: eu}], failoverPriority: [kubernetes.io/hostname],
                     enabled: true}";
    assert_eq!(read(failover), expected);
    assert_eq!(read("{enabled: false}").enabled, Some(false));
}

#[test]
fn new_endpoints_are_warmed_up() {
    let warmup = |duration, minimum_percent, aggression| {
        Some(Warmup { duration: Duration::from_secs(duration), minimum_percent, aggression })
    };
    for (balancer, expected) in [
        ("{warmup: {duration: 1m}}", warmup(60, 10, 1000)),
        (
            "{simple: ROUND_ROBIN, warmup: {duration: 10s, minimumPercent: 20, aggression: 2.5}}",
            warmup(10, 20, 2500),
        ),
        ("{simple: LEAST_REQUEST, warmupDurationSecs: 5s}", warmup(5, 10, 1000)),
        ("{warmup: {duration: 10s, minimumPercent: 0}}", warmup(10, 0, 1000)),
    ] {
        let read = quiet_policy(&format!("{{loadBalancer: {balancer}}}"));
        assert_eq!(read.balancer.unwrap().warmup, expected);
    }
}

#[test]
fn every_limit_of_a_pool_is_read_and_a_0_is_no_limit() {
    let read = quiet_policy(
        "{connectionPool: {
           tcp: {maxConnections: 100, connectTimeout: 30ms, maxConnectionDuration: 1h, idleTimeout: 0s,
                 tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}},
           http: {http1MaxPendingRequests: 1, http2MaxRequests: 1000, maxRequestsPerConnection: 10,
                  maxRetries: 3, idleTimeout: 5m, h2UpgradePolicy: DO_NOT_UPGRADE,
                  useClientProtocol: true, maxConcurrentStreams: 50}}}",
    );
    let expected = ConnectionPool {
        tcp: TcpPool {
            max_connections: Some(100),
            connect_timeout: Some(Duration::from_millis(30)),
            keepalive: Some((Some(3), seconds(7200), seconds(75))),
            max_connection_duration: seconds(3600),
            idle_timeout: seconds(0),
        },
        http: HttpPool {
            max_pending: Some(1),
            max_requests: Some(1000),
            max_requests_per_connection: Some(10),
            max_retries: Some(3),
            idle_timeout: seconds(300),
            upgrade: Some(UpgradePolicy::DoNotUpgrade),
            use_client_protocol: true,
            max_concurrent_streams: Some(50),
        },
    };
    assert_eq!(read.pool, Some(expected));
    let read = quiet_policy(
        "{connectionPool: {tcp: {maxConnections: 0}, http: {http1MaxPendingRequests: 0,
           http2MaxRequests: 0, maxRequestsPerConnection: 0, maxRetries: 0, maxConcurrentStreams: 0,
           h2UpgradePolicy: DEFAULT}}}",
    );
    assert_eq!(read.pool, Some(ConnectionPool::default()));
    let read = quiet_policy("{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}");
    assert_eq!(read.pool.unwrap().http.upgrade, Some(UpgradePolicy::Upgrade));
}

#[test]
fn every_count_of_outlier_detection_is_read() {
    let read = quiet_policy(
        "{outlierDetection: {splitExternalLocalOriginErrors: true,
           consecutiveLocalOriginFailures: 4, consecutiveGatewayErrors: 0, consecutive5xxErrors: 7,
           interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50, minHealthPercent: 20}}",
    );
    let expected = OutlierDetection {
        split_local_errors: true,
        consecutive_local: Some(4),
        consecutive_gateway: Some(0),
        consecutive_5xx: Some(7),
        interval: seconds(10),
        base_ejection_time: seconds(30),
        max_ejection: Some(Millionths(500_000)),
        min_health: Some(Millionths(200_000)),
    };
    assert_eq!(read.outlier, Some(expected));
    let read = quiet_policy("{outlierDetection: {maxEjectionPercent: 0, minHealthPercent: 0}}");
    assert_eq!(read.outlier, Some(OutlierDetection::default()));
}

#[test]
fn tls_is_read_in_every_mode() {
    let file = |path: &str| KeyMaterial::File(path.to_owned());
    for (tls, expected) in [
        ("{}", ClientTls::default()),
        ("{mode: ISTIO_MUTUAL}", ClientTls { mode: TlsMode::IstioMutual, ..ClientTls::default() }),
        (
            "{mode: SIMPLE, sni: a.example.com, subjectAltNames: [b.example.com],
              caCertificates: /etc/ca.pem}",
            ClientTls {
                mode: TlsMode::Simple,
                sni: Some("a.example.com".to_owned()),
                subject_alt_names: vec!["b.example.com".to_owned()],
                ca: Some(file("/etc/ca.pem")),
                ..ClientTls::default()
            },
        ),
        (
            "{mode: SIMPLE, caCertificates: system}",
            ClientTls { mode: TlsMode::Simple, ..ClientTls::default() },
        ),
        (
            "{mode: MUTUAL, clientCertificate: /c.pem, privateKey: /k.pem, insecureSkipVerify: true}",
            ClientTls {
                mode: TlsMode::Mutual,
                client: Some((file("/c.pem"), file("/k.pem"))),
                insecure: true,
                ..ClientTls::default()
            },
        ),
        (
            "{mode: SIMPLE, caCertificates: /etc/ca.pem, caCrl: /etc/crl.pem}",
            ClientTls {
                mode: TlsMode::Simple,
                ca: Some(file("/etc/ca.pem")),
                crl: Some(file("/etc/crl.pem")),
                ..ClientTls::default()
            },
        ),
    ] {
        assert_eq!(quiet_policy(&format!("{{tls: {tls}}}")).tls, Some(expected), "{tls}");
    }
}

#[test]
fn ports_have_policies_of_their_own() {
    let read = quiet_policy(
        "{loadBalancer: {simple: RANDOM}, portLevelSettings: [
           {port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}},
           {port: {number: 443}, tls: {mode: SIMPLE}}]}",
    );
    let of = |port: u16| read.ports.get(&port).unwrap();
    assert_eq!(of(80).balancer.as_ref().unwrap().simple, Some(SimpleBalancer::RoundRobin));
    assert_eq!(of(443).tls.as_ref().unwrap().mode, TlsMode::Simple);
    assert_eq!((of(443).balancer.as_ref(), read.ports.len()), (None, 2));
}

#[test]
fn of_two_policies_for_a_port_the_first_holds_and_that_is_said() {
    let (read, said) = read(&policy(
        "{portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}},
                              {port: {number: 80}, loadBalancer: {simple: ROUND_ROBIN}}]}",
    ));
    let balancer = read.unwrap().policy.ports.remove(&80).unwrap().balancer.unwrap();
    assert_eq!(balancer.simple, Some(SimpleBalancer::Random));
    assert!(said.len() == 1 && said[0].starts_with("Warning duplicate-port"), "{said:?}");
}
