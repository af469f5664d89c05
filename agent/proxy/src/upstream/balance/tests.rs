//! Where attempts go, through a cluster: every balancer, tiers, shares, warmup.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use http::StatusCode;
use proptest::prelude::*;
use tokio::time::advance;
use undermesh_model::traffic::{
    ConsistentHash, HashKey, Millionths, OutlierDetection, Ring, SimpleBalancer, Warmup,
};

use super::*;
use crate::upstream::{
    Cluster, Lease, Outcome, hash,
    testing::{Rig, address, endpoint, pick, spec},
};

fn rule(simple: SimpleBalancer) -> LoadBalancer {
    LoadBalancer { simple: Some(simple), ..LoadBalancer::default() }
}

fn by_hash(ring: Ring) -> LoadBalancer {
    let key = HashKey::SourceIp;
    LoadBalancer { hash: Some(ConsistentHash { key, ring }), ..LoadBalancer::default() }
}

fn balanced(endpoints: u8, balancer: LoadBalancer) -> ClusterSpec {
    let mut spec = spec(endpoints);
    spec.settings.balancer = balancer;
    // One failure is enough, and all may be ejected.
    spec.settings.outlier = Some(OutlierDetection {
        consecutive_5xx: Some(1),
        max_ejection: Some(Millionths::ALL),
        ..OutlierDetection::default()
    });
    spec
}

/// Where so many attempts go that end at once.
fn shares(cluster: &Cluster, attempts: usize) -> HashMap<SocketAddr, usize> {
    let mut shares = HashMap::new();
    for _ in 0..attempts {
        let lease = cluster.admit(&pick()).unwrap();
        *shares.entry(lease.endpoint().address).or_default() += 1;
    }
    shares
}

fn share(shares: &HashMap<SocketAddr, usize>, nth: u8) -> usize {
    shares.get(&address(nth)).copied().unwrap_or(0)
}

/// Makes an endpoint fail, by attempts that are sent there for having been tried nowhere else.
fn eject(cluster: &Cluster, all: u8, nth: u8) {
    let others: Vec<_> = (1..=all).filter(|one| *one != nth).map(address).collect();
    let lease = cluster.admit(&Pick { tried: &others, ..pick() }).unwrap();
    assert_eq!(lease.endpoint().address, address(nth));
    lease.finish(Outcome::Status(StatusCode::INTERNAL_SERVER_ERROR));
}

fn owner(cluster: &Cluster, key: u64) -> SocketAddr {
    let hash = Some(hash::mix(key));
    cluster.admit(&Pick { hash, ..pick() }).unwrap().endpoint().address
}

#[tokio::test]
async fn round_robin_takes_turns() {
    let rig = Rig::new();
    let cluster = rig.cluster(&balanced(3, rule(SimpleBalancer::RoundRobin)));
    let shares = shares(&cluster, 300);
    assert_eq!([1, 2, 3].map(|nth| share(&shares, nth)), [100; 3]);
}

#[tokio::test]
async fn shares_follow_weights() {
    for simple in [SimpleBalancer::RoundRobin, SimpleBalancer::LeastRequest] {
        let rig = Rig::new();
        let mut spec = balanced(2, rule(simple));
        spec.endpoints[1].weight = 3;
        let shares = shares(&rig.cluster(&spec), 400);
        assert!((298..=302).contains(&share(&shares, 2)), "{simple:?}: {shares:?}");
    }
}

#[tokio::test]
async fn any_endpoint_is_as_likely_as_another_at_random() {
    let rig = Rig::new();
    let shares = shares(&rig.cluster(&balanced(2, rule(SimpleBalancer::Random))), 4000);
    assert!((1750..=2250).contains(&share(&shares, 1)), "{shares:?}");
}

#[tokio::test]
async fn of_two_endpoints_the_less_loaded_one_gets_the_request() {
    let rig = Rig::new();
    let cluster = rig.cluster(&balanced(2, LoadBalancer::default()));
    let held: Vec<Lease> = (0..10).map(|_| cluster.admit(&pick()).unwrap()).collect();
    let at_first =
        |held: &[Lease]| held.iter().filter(|lease| lease.endpoint().address == address(1)).count();
    assert_eq!(at_first(&held), 5);
}

#[tokio::test]
async fn load_counts_beside_weights() {
    let rig = Rig::new();
    let mut spec = balanced(2, LoadBalancer::default());
    spec.endpoints[1].weight = 4;
    let cluster = rig.cluster(&spec);
    let held: Vec<Lease> = (0..50).map(|_| cluster.admit(&pick()).unwrap()).collect();
    let heavy = held.iter().filter(|lease| lease.endpoint().address == address(2)).count();
    // Less than its weight alone would give it, and more than half.
    assert!((30..=42).contains(&heavy), "{heavy} of 50");
}

#[tokio::test]
async fn passthrough_goes_where_the_client_dialled() {
    let rig = Rig::new();
    let cluster = rig.cluster(&balanced(0, rule(SimpleBalancer::Passthrough)));
    let dialled = SocketAddr::from(([192, 0, 2, 7], 443));
    let lease = cluster.admit(&Pick { dialled, ..pick() }).unwrap();
    assert_eq!(lease.endpoint().address, dialled);
}

#[tokio::test]
async fn a_retry_goes_where_the_request_was_not_tried_while_there_is_such_a_place() {
    let rules = [
        rule(SimpleBalancer::RoundRobin),
        rule(SimpleBalancer::Random),
        LoadBalancer::default(),
        by_hash(Ring::Ring { minimum: 64 }),
        by_hash(Ring::Maglev { size: 101 }),
    ];
    for balancer in rules {
        let rig = Rig::new();
        let cluster = rig.cluster(&balanced(4, balancer));
        let mut tried = Vec::new();
        for _ in 0..4 {
            let lease = cluster.admit(&Pick { tried: &tried, hash: Some(7), ..pick() }).unwrap();
            assert!(!tried.contains(&lease.endpoint().address));
            tried.push(lease.endpoint().address);
        }
        assert!(cluster.admit(&Pick { tried: &tried, ..pick() }).is_ok());
    }
}

#[tokio::test]
async fn a_retry_that_is_to_leave_a_tier_goes_to_the_others() {
    let rules = [LoadBalancer::default(), by_hash(Ring::Ring { minimum: 64 })];
    for balancer in rules {
        let rig = Rig::new();
        let mut spec = balanced(3, balancer);
        for (priority, endpoint) in [0, 0, 1].into_iter().zip(&mut spec.endpoints) {
            endpoint.priority = priority;
        }
        let cluster = rig.cluster(&spec);
        let after = |left: &[SocketAddr]| {
            let pick = Pick { leave_tiers_of: left, hash: Some(7), ..pick() };
            cluster.admit(&pick).unwrap().endpoint().address
        };
        assert_ne!(after(&[]), address(3));
        for _ in 0..10 {
            assert_eq!(after(&[address(1)]), address(3));
            assert_ne!(after(&[address(3)]), address(3));
        }
        // No tier is left: all may be chosen again.
        assert_ne!(after(&[address(1), address(3)]), address(3));
    }
}

#[tokio::test]
async fn without_endpoints_nothing_is_admitted() {
    let rig = Rig::new();
    let refusal = rig.cluster(&balanced(0, LoadBalancer::default())).admit(&pick()).err();
    assert_eq!(refusal, Some(Refusal::NoEndpoints));
}

#[tokio::test]
async fn with_all_endpoints_ejected_nothing_is_admitted_unless_a_threshold_says_so() {
    let rig = Rig::new();
    let mut spec = balanced(2, LoadBalancer::default());
    let cluster = rig.cluster(&spec);
    eject(&cluster, 2, 1);
    eject(&cluster, 2, 2);
    assert_eq!(cluster.admit(&pick()).err(), Some(Refusal::NoHealthy));
    if let Some(outlier) = &mut spec.settings.outlier {
        outlier.min_health = Some(Millionths::from_percent(50.0));
    }
    let cluster = rig.cluster(&spec);
    let shares = shares(&cluster, 100);
    assert!(share(&shares, 1) > 0 && share(&shares, 2) > 0, "{shares:?}");
    assert_eq!(rig.figure("undermesh_upstream_panic_requests_total", ""), Some(100));
}

#[tokio::test]
async fn the_next_tier_is_used_as_the_first_fails() {
    let rig = Rig::new();
    let mut spec = balanced(4, rule(SimpleBalancer::Random));
    spec.endpoints[2].priority = 1;
    spec.endpoints[3].priority = 1;
    let cluster = rig.cluster(&spec);
    let before = shares(&cluster, 200);
    assert_eq!(share(&before, 3) + share(&before, 4), 0);
    eject(&cluster, 2, 1);
    // Half of the first tier carries 70 %.
    let after = shares(&cluster, 4000);
    assert_eq!(share(&after, 1), 0);
    assert!((2650..=2950).contains(&share(&after, 2)), "{after:?}");
}

#[tokio::test]
async fn localities_get_their_shares_and_less_when_their_endpoints_fail() {
    let rig = Rig::new();
    let mut spec = balanced(4, rule(SimpleBalancer::RoundRobin));
    let zone = |zone: &str| Locality { zone: zone.to_owned(), ..Locality::default() };
    for (endpoint, name) in spec.endpoints.iter_mut().zip(["a", "a", "b", "b"]) {
        endpoint.locality = zone(name);
    }
    spec.settings.locality_shares = [(zone("a"), 80), (zone("b"), 20)].into();
    let cluster = rig.cluster(&spec);
    let before = shares(&cluster, 1000);
    let in_a = share(&before, 1) + share(&before, 2);
    assert!((798..=802).contains(&in_a), "{before:?}");
    eject(&cluster, 4, 1);
    // 80 times 70 % against 20.
    let after = shares(&cluster, 1000);
    assert_eq!(share(&after, 1), 0);
    assert!((734..=740).contains(&share(&after, 2)), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_gets_its_share_step_by_step() {
    let warmup =
        Warmup { duration: Duration::from_secs(100), minimum_percent: 10, aggression: 1000 };
    for simple in [SimpleBalancer::RoundRobin, SimpleBalancer::LeastRequest] {
        let rig = Rig::new();
        let mut spec = balanced(1, LoadBalancer { warmup: Some(warmup), ..rule(simple) });
        rig.cluster(&spec);
        advance(Duration::from_secs(200)).await;
        spec.endpoints.push(endpoint(2));
        let cluster = rig.cluster(&spec);
        let cold = share(&shares(&cluster, 1100), 2);
        assert!((90..=110).contains(&cold), "{simple:?}: {cold} of 1100");
        advance(Duration::from_secs(50)).await;
        let half = share(&shares(&cluster, 1500), 2);
        assert!((480..=515).contains(&half), "{simple:?}: {half} of 1500");
        advance(Duration::from_secs(60)).await;
        let warm = share(&shares(&cluster, 1000), 2);
        assert!((400..=600).contains(&warm), "{simple:?}: {warm} of 1000");
    }
}

#[tokio::test]
async fn a_key_stays_with_its_endpoint_and_few_move_when_others_come_and_go() {
    const KEYS: u64 = 2000;
    for ring in [Ring::Ring { minimum: 4096 }, Ring::Maglev { size: 65_537 }] {
        let rig = Rig::new();
        let ten = rig.cluster(&balanced(10, by_hash(ring)));
        let before: Vec<_> = (0..KEYS).map(|key| owner(&ten, key)).collect();
        assert!((0..KEYS).all(|key| owner(&ten, key) == before[key as usize]));
        let spread: std::collections::HashSet<_> = before.iter().collect();
        assert_eq!(spread.len(), 10);
        let nine = rig.cluster(&balanced(9, by_hash(ring)));
        let moved = |key: &u64| owner(&nine, *key) != before[*key as usize];
        let gone = before.iter().filter(|owner| **owner == address(10)).count();
        let moved = (0..KEYS).filter(moved).count();
        // A tenth has to move; some more may.
        assert!(moved >= gone && moved <= KEYS as usize / 6, "{ring:?}: {moved} moved of {gone}");
    }
}

#[tokio::test]
async fn keys_of_an_ejected_endpoint_move_and_come_back() {
    let rig = Rig::new();
    let cluster = rig.cluster(&balanced(5, by_hash(Ring::Ring { minimum: 1024 })));
    let before: Vec<_> = (0..500).map(|key| owner(&cluster, key)).collect();
    eject(&cluster, 5, 3);
    for (key, before) in (0..).zip(&before) {
        let now = owner(&cluster, key);
        assert_ne!(now, address(3));
        assert!(now == *before || *before == address(3));
    }
}

#[tokio::test]
async fn connections_of_a_client_stay_together() {
    let rig = Rig::new();
    let cluster = rig.cluster(&balanced(9, by_hash(Ring::Maglev { size: 1009 })));
    let to = |client: u8| {
        let pick = Pick { client: [10, 9, 9, client].into(), ..pick() };
        cluster.admit_connection(&pick).unwrap().endpoint().address
    };
    assert!((0..20).all(|client| to(client) == to(client)));
    assert!((1..20).any(|client| to(client) != to(0)));
}

#[tokio::test]
async fn all_agents_send_a_key_to_the_same_endpoint() {
    for ring in [Ring::Ring { minimum: 1024 }, Ring::Maglev { size: 1009 }] {
        let spec = balanced(7, by_hash(ring));
        let (one, other) = (Rig::new(), Rig::new());
        let (one, other) = (one.cluster(&spec), other.cluster(&spec));
        assert!((0..200).all(|key| owner(&one, key) == owner(&other, key)));
    }
}

#[tokio::test]
async fn keys_follow_weights() {
    for ring in [Ring::Ring { minimum: 8192 }, Ring::Maglev { size: 65_537 }] {
        let mut spec = balanced(2, by_hash(ring));
        spec.endpoints[1].weight = 3;
        let rig = Rig::new();
        let cluster = rig.cluster(&spec);
        let heavy = (0..4000).filter(|key| owner(&cluster, *key) == address(2)).count();
        assert!((2750..=3250).contains(&heavy), "{ring:?}: {heavy} of 4000");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn an_ejected_endpoint_gets_nothing_while_another_is_healthy(
        weights in prop::collection::vec((1_u32..5, 0_u32..3), 2..7),
        ejected in prop::collection::vec(any::<bool>(), 7),
        which in 0_usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let rules = [
                rule(SimpleBalancer::RoundRobin),
                rule(SimpleBalancer::Random),
                rule(SimpleBalancer::LeastRequest),
                by_hash(Ring::Ring { minimum: 64 }),
                by_hash(Ring::Maglev { size: 101 }),
            ];
            let count = weights.len() as u8;
            let mut spec = balanced(count, rules[which].clone());
            for (endpoint, (weight, priority)) in spec.endpoints.iter_mut().zip(&weights) {
                (endpoint.weight, endpoint.priority) = (*weight, *priority);
            }
            let rig = Rig::new();
            let cluster = rig.cluster(&spec);
            let detector = cluster.detector().unwrap();
            let out: Vec<_> = cluster.members().iter().zip(&ejected).filter(|(_, out)| **out).collect();
            for (member, _) in &out {
                let failure = Outcome::Status(StatusCode::BAD_GATEWAY);
                detector.record(member.health.as_ref().unwrap(), failure);
            }
            let healthy = count as usize - out.len();
            for hash in 0..50 {
                let pick = Pick { hash: Some(hash::mix(hash)), ..pick() };
                match cluster.admit(&pick) {
                    Ok(lease) => assert!(lease.member.is_healthy()),
                    Err(refusal) => assert_eq!((refusal, healthy), (Refusal::NoHealthy, 0)),
                }
            }
        });
    }
}
