//! Which DestinationRule holds, and what it makes of endpoints.

use std::time::Duration;

use undermesh_model::{
    Node,
    traffic::{
        ClientTls, ConnectionPool, HttpPool, KeyMaterial, LoadBalancer, LocalityBalance,
        OutlierDetection, SimpleBalancer, TcpPool, TlsMode, TlsSecret,
    },
};

use super::*;

/// A policy that can be told from others by its number.
fn numbered(number: u32) -> TrafficPolicy {
    let tcp = TcpPool { max_connections: Some(number), ..TcpPool::default() };
    let pool = ConnectionPool { tcp, http: HttpPool::default() };
    TrafficPolicy { pool: Some(pool), ..TrafficPolicy::default() }
}

fn number(cluster: &ClusterSpec) -> Option<u32> {
    cluster.settings.pool.tcp.max_connections
}

fn round_robin() -> TrafficPolicy {
    let balancer =
        LoadBalancer { simple: Some(SimpleBalancer::RoundRobin), ..LoadBalancer::default() };
    TrafficPolicy { balancer: Some(balancer), ..TrafficPolicy::default() }
}

/// Rules with a numbered policy each, as namespace, name, host and number.
fn with_rules(rules: &[(&str, &str, &str, u32)]) -> Cluster {
    let mut cluster = world();
    for (namespace, name, host, number) in rules {
        let policy = numbered(*number);
        add(&mut cluster, DestinationRule { policy, ..destination_rule(namespace, name, host) });
    }
    cluster
}

fn default(compiled: &Compiled, namespace: &str) -> Arc<ClusterSpec> {
    Arc::clone(&traffic(compiled, namespace).default)
}

#[test]
fn a_rule_with_a_setting_leads_its_host_through_the_proxy_and_one_without_does_not() {
    let with = |policy: TrafficPolicy| {
        let mut cluster = world();
        add(&mut cluster, DestinationRule { policy, ..destination_rule("shop", "r", CART) });
        let compiled = run(&cluster);
        assert_eq!(findings(&compiled), []);
        !port(&compiled, CART_VIP).traffic.is_empty()
    };
    let tls = |mode| TrafficPolicy {
        tls: Some(ClientTls { mode, ..ClientTls::default() }),
        ..TrafficPolicy::default()
    };
    assert!(!with(TrafficPolicy::default()));
    assert!(with(numbered(1)) && with(round_robin()));
    assert!(with(tls(TlsMode::Simple)) && with(tls(TlsMode::Mutual)));
    assert!(with(tls(TlsMode::IstioMutual)), "an endpoint is not enrolled");
    assert!(!with(tls(TlsMode::Disable)));
    let outlier = Some(OutlierDetection::default());
    assert!(with(TrafficPolicy { outlier, ..TrafficPolicy::default() }));
    let ports = [(81, numbered(1))].into();
    assert!(!with(TrafficPolicy { ports, ..TrafficPolicy::default() }), "another port");
}

#[test]
fn the_clients_namespace_comes_first_then_the_hosts_then_the_root() {
    let all = [
        ("other", "mine", CART, 1),
        ("shop", "theirs", CART, 2),
        ("istio-system", "everybodys", "*.local", 3),
    ];
    let root = |rules: &[(&str, &str, &str, u32)]| {
        let options = crate::Options {
            root_namespace: "istio-system".to_owned(),
            ..crate::compile::tests::options()
        };
        crate::compile(&with_rules(rules), &options, undermesh_model::Generation(1))
    };
    let compiled = root(&all);
    assert_eq!(number(&default(&compiled, "other")), Some(1));
    assert_eq!(number(&default(&compiled, "shop")), Some(2));
    assert_eq!(default(&compiled, "other").key.view, "other");
    assert_eq!(default(&compiled, "shop").key.view, "", "what everybody follows");
    let compiled = root(&all[1..]);
    assert!(Arc::ptr_eq(&default(&compiled, "other"), &default(&compiled, "shop")));
    assert_eq!(number(&default(&compiled, "other")), Some(2));
    assert_eq!(number(&default(&root(&all[2..]), "other")), Some(3));
}

#[test]
fn the_most_specific_host_of_a_namespace_holds() {
    let rules = [
        ("shop", "a", "*", 1),
        ("shop", "b", "*.shop.svc.cluster.local", 2),
        ("shop", "c", "*.local", 3),
    ];
    assert_eq!(number(&default(&run(&with_rules(&rules)), "other")), Some(2));
    let own = [("other", "a", "*", 1), ("shop", "b", CART, 2)];
    assert_eq!(number(&default(&run(&with_rules(&own)), "other")), Some(1));
}

#[test]
fn a_higher_precedence_beats_namespaces_and_hosts() {
    let mut cluster = with_rules(&[("other", "mine", CART, 1), ("shop", "b", "*.local", 2)]);
    cluster.destination_rules.get_mut(&NamespacedName::new("shop", "b")).unwrap().precedence = 1;
    let compiled = run(&cluster);
    assert_eq!(number(&default(&compiled, "other")), Some(2));
}

#[test]
fn a_rule_is_followed_by_those_that_it_is_exported_to() {
    let mut cluster = with_rules(&[("shop", "r", CART, 1)]);
    cluster.destination_rules.values_mut().next().unwrap().scope =
        Scope::Namespaces(["shop".to_owned()].into());
    cluster.routes.push(virtual_service("split", CART));
    let compiled = run(&cluster);
    assert_eq!(number(&default(&compiled, "shop")), Some(1));
    assert_eq!(number(&default(&compiled, "other")), None);
    assert_eq!(default(&compiled, "shop").key.view, "shop");
    assert_eq!(default(&compiled, "other").key.view, "");
}

#[test]
fn rules_of_one_namespace_for_one_host_are_put_together() {
    let mut cluster = world();
    let older = DestinationRule {
        created: 1,
        subsets: vec![subset("v1", "v1")],
        ..destination_rule("shop", "z", CART)
    };
    let younger = DestinationRule {
        created: 2,
        subsets: vec![subset("v1", "other"), subset("v2", "v2")],
        policy: numbered(7),
        ..destination_rule("shop", "a", CART)
    };
    add(&mut cluster, older);
    add(&mut cluster, younger);
    let mut split = virtual_service("split", CART);
    split.http = vec![rule("v2", Vec::new(), host(CART, None, Some("v2")))];
    cluster.routes.push(split);
    let compiled = run(&cluster);
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    let led = led(traffic(&compiled, "shop"), &client, "cart").unwrap();
    assert_eq!((addresses(&led), number(&led)), (vec!["10.1.1.2:8080".to_owned()], Some(7)));
    assert_eq!(led.rule.as_ref().unwrap().name, "z");
    let found = findings(&compiled);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "DestinationRule shop/a route-overridden");
    assert!(found[0].1.starts_with("its subset \"v1\""), "{found:?}");
}

#[test]
fn a_second_policy_for_a_host_has_no_effect_and_says_so() {
    let compiled = run(&with_rules(&[("shop", "a", CART, 1), ("shop", "b", CART, 2)]));
    assert_eq!(number(&default(&compiled, "shop")), Some(1));
    let found = findings(&compiled);
    assert_eq!(found[0].0, "DestinationRule shop/b route-overridden");
    assert!(found[0].1.starts_with("its trafficPolicy"), "{found:?}");
}

#[test]
fn subsets_override_setting_by_setting_and_ports_replace_all() {
    let settings = |rule: DestinationRule| {
        let mut cluster = world();
        add(&mut cluster, rule);
        let mut split = virtual_service("split", CART);
        split.http = vec![rule_to_v1()];
        cluster.routes.push(split);
        let compiled = run(&cluster);
        let labels = BTreeMap::new();
        let client = Client { namespace: "shop", labels: &labels };
        let led = led(traffic(&compiled, "shop"), &client, "cart").unwrap();
        assert_eq!(addresses(&led), ["10.1.1.1:8080"]);
        assert!(led.endpoints[0].workload.is_some());
        (number(&led), led.settings.balancer.simple, led.settings.outlier.is_some())
    };
    fn rule_to_v1() -> HttpRule {
        rule("v1", Vec::new(), host(CART, Some(80), Some("v1")))
    }
    let rule = |top: TrafficPolicy, own: TrafficPolicy| DestinationRule {
        policy: top,
        subsets: vec![Subset { policy: own, ..subset("v1", "v1") }],
        ..destination_rule("shop", "r", CART)
    };
    let simple = Some(SimpleBalancer::RoundRobin);
    let top = || TrafficPolicy { balancer: round_robin().balancer, ..numbered(1) };
    let at_80 = |policy: TrafficPolicy, top: TrafficPolicy| TrafficPolicy {
        ports: [(80, policy)].into(),
        ..top
    };
    let none = TrafficPolicy::default;
    assert_eq!(settings(rule(top(), none())), (Some(1), simple, false));
    assert_eq!(settings(rule(top(), numbered(2))), (Some(2), simple, false));
    // What is said about the port knows nothing of what is said above it.
    assert_eq!(settings(rule(at_80(numbered(3), top()), none())), (Some(3), None, false));
    assert_eq!(settings(rule(at_80(numbered(3), top()), round_robin())), (Some(3), simple, false));
    assert_eq!(settings(rule(top(), at_80(round_robin(), numbered(2)))), (None, simple, false));
    let outlier = TrafficPolicy { outlier: Some(OutlierDetection::default()), ..none() };
    assert_eq!(settings(rule(top(), outlier)), (Some(1), simple, true));
}

#[test]
fn a_rule_for_some_clients_is_for_those_of_its_namespace_alone() {
    let mut cluster = world();
    let mut gold = workload("gold", "a", &["10.1.0.2"]);
    gold.labels.insert("tier".to_owned(), "gold".to_owned());
    cluster.workloads.insert(gold.name.clone(), gold);
    let selector = BTreeMap::from([("tier".to_owned(), "gold".to_owned())]);
    let rule = |name, number| DestinationRule {
        policy: numbered(number),
        ..destination_rule("shop", name, CART)
    };
    add(&mut cluster, DestinationRule { selector: selector.clone(), ..rule("gold", 1) });
    add(&mut cluster, rule("all", 2));
    let seen = |compiled: &Compiled, namespace: &str, labels: &BTreeMap<String, String>| {
        let client = Client { namespace, labels };
        let traffic = traffic(compiled, namespace);
        let http = number(&led(traffic, &client, "cart").unwrap());
        let route = traffic.l4_route(None, "10.96.0.1".parse().unwrap(), &client);
        let l4 = match route.map(|route| &route.targets[0].target) {
            Some(Target::Cluster(cluster)) => number(cluster),
            None => number(&traffic.default),
            other => panic!("{other:?}"),
        };
        assert_eq!(http, l4);
        http
    };
    let none = BTreeMap::new();
    let compiled = run(&cluster);
    assert_eq!(seen(&compiled, "shop", &selector), Some(1));
    assert_eq!(seen(&compiled, "shop", &none), Some(2));
    assert_eq!(seen(&compiled, "other", &selector), Some(2), "selectors stay in their namespace");
    cluster.routes.push(virtual_service("split", CART));
    let compiled = run(&cluster);
    assert_eq!(seen(&compiled, "shop", &selector), Some(1));
    assert_eq!(seen(&compiled, "shop", &none), Some(2));
    let views: Vec<_> = traffic(&compiled, "shop")
        .http
        .entries()
        .map(|(_, route)| match &route.action {
            RouteAction::Forward(all) => match &all[0].target {
                Target::Cluster(cluster) => cluster.key.view.clone(),
                Target::Unusable(status) => panic!("{status}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(views, ["shop?tier=gold", ""]);
}

#[test]
fn endpoints_come_in_tiers_by_the_nodes_where_they_are() {
    let node = |zone: &str| Node {
        origin: ResourceRef::cluster_scoped("Node", zone),
        addresses: Vec::new(),
        labels: [
            ("topology.kubernetes.io/region".to_owned(), "r".to_owned()),
            ("topology.kubernetes.io/zone".to_owned(), zone.to_owned()),
        ]
        .into(),
    };
    let mut cluster = world();
    cluster.nodes.insert("a".to_owned(), node("z1"));
    cluster.nodes.insert("b".to_owned(), node("z1"));
    cluster.nodes.insert("c".to_owned(), node("z2"));
    let far = NamespacedName::new("shop", "cart-1");
    cluster.workloads.get_mut(&far).unwrap().node = Some("c".to_owned());
    cluster.workloads.get_mut(&NamespacedName::new("shop", "cart-2")).unwrap().weight = 3;
    let outlier =
        OutlierDetection { interval: Some(Duration::from_secs(1)), ..OutlierDetection::default() };
    let policy = TrafficPolicy { outlier: Some(outlier), ..TrafficPolicy::default() };
    add(&mut cluster, DestinationRule { policy, ..destination_rule("shop", "r", CART) });
    let endpoints = |cluster: &Cluster| {
        let found = default(&run(cluster), "shop");
        let endpoint = |one: &crate::traffic::ClusterEndpoint| {
            (one.address.to_string(), one.locality.zone.clone(), one.priority, one.weight)
        };
        found.endpoints.iter().map(endpoint).collect::<Vec<_>>()
    };
    let all = [
        ("10.1.1.1:8080".to_owned(), "z2".to_owned(), 1, 1),
        ("10.1.1.2:8080".to_owned(), "z1".to_owned(), 0, 3),
    ];
    assert_eq!(endpoints(&cluster), all);
    // The Service's own preference holds where no rule about localities says otherwise.
    cluster.services.values_mut().next().unwrap().distribution =
        undermesh_model::Distribution::PreferSameZone;
    cluster.endpoint_slices.values_mut().for_each(|slice| {
        slice.endpoints[0].node = Some("c".to_owned());
        slice.endpoints[1].node = Some("b".to_owned());
    });
    assert_eq!(endpoints(&cluster).len(), 1);
    let rule = cluster.destination_rules.values_mut().next().unwrap();
    rule.policy.balancer = Some(LoadBalancer {
        locality: Some(LocalityBalance::default()),
        ..LoadBalancer::default()
    });
    assert_eq!(endpoints(&cluster).len(), 2);
}

#[test]
fn a_rule_for_what_cannot_be_dialled_says_so() {
    let mut cluster =
        with_rules(&[("shop", "lost", "nowhere.example.com", 1), ("shop", "r", CART, 1)]);
    let found = |cluster: &Cluster| {
        findings(&run(cluster)).into_iter().map(|(code, _)| code).collect::<Vec<_>>()
    };
    assert_eq!(found(&cluster), ["DestinationRule shop/lost rule-without-address"]);
    cluster.services.values_mut().next().unwrap().cluster_ips.clear();
    let both =
        ["lost", "r"].map(|name| format!("DestinationRule shop/{name} rule-without-address"));
    assert_eq!(found(&cluster), both);
}

#[test]
fn an_address_that_nobody_has_is_not_passed_through_to() {
    let mut cluster = world();
    let simple = Some(SimpleBalancer::Passthrough);
    let balancer = Some(LoadBalancer { simple, ..LoadBalancer::default() });
    let policy = TrafficPolicy { balancer, ..TrafficPolicy::default() };
    add(&mut cluster, DestinationRule { policy, ..destination_rule("shop", "r", CART) });
    let compiled = run(&cluster);
    assert_eq!(default(&compiled, "shop").settings.balancer.simple, None);
    assert_eq!(findings(&compiled)[0].0, "DestinationRule shop/r no-effect");
}

fn with_tls(tls: ClientTls) -> TrafficPolicy {
    TrafficPolicy { tls: Some(tls), ..TrafficPolicy::default() }
}

fn tls_of(spec: &ClusterSpec) -> ClientTls {
    spec.settings.tls.clone().unwrap()
}

#[test]
fn certificates_of_the_mesh_are_shown_by_the_proxy_to_endpoints_that_are_not_enrolled() {
    let mut cluster = world();
    let policy = with_tls(ClientTls { mode: TlsMode::IstioMutual, ..ClientTls::default() });
    let mut rule = DestinationRule { policy, ..destination_rule("shop", "r", CART) };
    rule.subsets = vec![subset("v2", "v2")];
    add(&mut cluster, rule);
    let compiled = run(&cluster);
    let tls = tls_of(&default(&compiled, "shop"));
    assert_eq!(tls.sni.as_deref(), Some(format!("outbound_.80_._.{CART}").as_str()));
    let accounts: Vec<_> = tls.subject_alt_names.iter().map(String::as_str).collect();
    let expected: std::collections::BTreeSet<_> = cluster
        .workloads
        .values()
        .filter(|pod| pod.name.name.starts_with("cart-"))
        .map(|pod| format!("spiffe://cluster.local/ns/shop/sa/{}", pod.service_account))
        .collect();
    assert_eq!(accounts, expected.iter().map(String::as_str).collect::<Vec<_>>());
    // Where all are enrolled, the kernel does it.
    for pod in cluster.workloads.values_mut() {
        pod.enrolment = undermesh_model::Enrolment::Enrolled("test".to_owned());
    }
    assert!(port(&run(&cluster), CART_VIP).traffic.is_empty());
}

#[test]
fn credentials_are_those_of_the_clients_namespace() {
    let mut cluster = world();
    let credential = Some("s".to_owned());
    let tls = ClientTls { mode: TlsMode::Mutual, credential, ..ClientTls::default() };
    let policy = with_tls(tls.clone());
    add(&mut cluster, DestinationRule { policy, ..destination_rule("shop", "r", CART) });
    let secret = |name: &str, ca: &str| TlsSecret {
        origin: ResourceRef::namespaced("Secret", "shop", name),
        certificate: Some(b"certificate".to_vec().into()),
        key: None,
        ca: Some(ca.as_bytes().to_vec().into()),
        crl: Some(b"crl".to_vec().into()),
    };
    for (name, ca) in [("s", "own"), ("s-cacert", "companion")] {
        cluster.tls_secrets.insert(NamespacedName::new("shop", name), secret(name, ca));
    }
    let compiled = run(&cluster);
    let (own, other) = (default(&compiled, "shop"), default(&compiled, "other"));
    assert_eq!((own.key.view.as_str(), other.key.view.as_str()), ("shop", "other"));
    let missing = |why: &str| KeyMaterial::Missing(why.to_owned());
    let tls = tls_of(&own);
    assert_eq!(
        (tls.ca, tls.crl),
        (Some(KeyMaterial::inline("companion")), Some(KeyMaterial::inline("crl")))
    );
    let key = missing("Secret shop/s has no tls.key");
    assert_eq!(tls.client, Some((KeyMaterial::inline("certificate"), key)));
    assert_eq!(tls_of(&other).ca, Some(missing("Secret other/s does not exist")));
    cluster.tls_secrets.remove(&NamespacedName::new("shop", "s-cacert"));
    assert_eq!(tls_of(&default(&run(&cluster), "shop")).ca, Some(KeyMaterial::inline("own")));
}
