//! Which ports rules are about, and for whom.

use undermesh_ebpf_common::service_flags;
use undermesh_model::traffic::{AllowedOrigins, Cors, L4Rule, PathRewrite, Retries, TextPattern};

use super::*;
use crate::{compile::tests::key, traffic::AppProtocol};

#[test]
fn a_service_without_a_rule_stays_in_the_kernel() {
    let compiled = run(&world());
    assert!(port(&compiled, CART_VIP).traffic.is_empty());
    assert_eq!(compiled.snapshot.tables.services[&key(CART_VIP)].flags, 0);
    assert_eq!(findings(&compiled), []);
}

#[test]
fn a_route_leads_a_service_through_the_proxy_for_all_clients_of_the_node_alike() {
    let mut cluster = world();
    cluster.routes.push(virtual_service("split", CART));
    let compiled = run(&cluster);
    let port = port(&compiled, CART_VIP);
    assert_eq!(port.traffic.keys().collect::<Vec<_>>(), ["other", "shop"]);
    assert!(Arc::ptr_eq(&port.traffic["shop"], &port.traffic["other"]));
    assert_eq!(order(&port.traffic["shop"]), ["split"]);
    assert_eq!(port.traffic["shop"].protocol, AppProtocol::Http);
    let entry = compiled.snapshot.tables.services[&key(CART_VIP)];
    assert_eq!((entry.flags, entry.backends), (service_flags::PROXY, 2));
    assert_eq!(findings(&compiled), []);
}

#[test]
fn a_service_without_meshed_endpoints_is_compiled_where_a_rule_is_about_it() {
    let mut cluster = world();
    cluster.workloads.retain(|name, _| name.name != "cart-1");
    assert!(!run(&cluster).snapshot.services.contains_key(&socket(CART_VIP)));
    cluster.routes.push(virtual_service("split", CART));
    let compiled = run(&cluster);
    assert_eq!(addresses(&traffic(&compiled, "shop").default), ["10.1.1.1:8080", "10.1.1.2:8080"]);
    assert!(traffic(&compiled, "shop").default.endpoints.iter().all(|one| one.workload.is_none()));
}

#[test]
fn an_annotation_is_enough() {
    let mut cluster = world();
    cluster.services.values_mut().for_each(|service| service.l7 = true);
    let compiled = run(&cluster);
    let traffic = traffic(&compiled, "shop");
    assert!(traffic.http.is_empty() && traffic.l4.is_empty());
    assert_eq!(traffic.default.key.host, CART);
}

#[test]
fn nodes_without_clients_have_no_traffic() {
    let mut cluster = world();
    cluster.routes.push(virtual_service("split", CART));
    cluster.workloads.values_mut().for_each(|pod| pod.node = Some("b".to_owned()));
    assert!(port(&run(&cluster), CART_VIP).traffic.is_empty());
}

#[test]
fn a_route_is_seen_by_those_that_it_is_exported_to() {
    let mut cluster = world();
    let scope = Scope::Namespaces(["other".to_owned()].into());
    cluster.routes.push(RouteSet { scope, ..virtual_service("split", CART) });
    let compiled = run(&cluster);
    assert_eq!(port(&compiled, CART_VIP).traffic.keys().collect::<Vec<_>>(), ["other"]);
}

#[test]
fn a_match_for_another_port_is_left_out_and_so_is_a_rule_with_no_other() {
    let at = |port| HttpMatch { port: Some(port), ..HttpMatch::default() };
    let mut cluster = world();
    let mut split = virtual_service("split", CART);
    split.http = vec![
        rule("elsewhere", vec![at(8080)], cart()),
        rule("both", vec![at(8080), at(80)], cart()),
    ];
    cluster.routes.push(split.clone());
    assert_eq!(order(traffic(&run(&cluster), "shop")), ["both"]);
    split.http.pop();
    cluster.routes = vec![split];
    let compiled = run(&cluster);
    assert!(port(&compiled, CART_VIP).traffic.is_empty());
    assert_eq!(findings(&compiled)[0].0, "VirtualService shop/split route-without-port");
}

#[test]
fn a_rule_that_no_port_takes_is_reported_where_others_of_its_object_hold() {
    let at = |port| HttpMatch { port: Some(port), ..HttpMatch::default() };
    let mut cluster = world();
    let mut split = virtual_service("split", CART);
    split.http = vec![
        rule("typo", vec![at(8080)], cart()),
        rule("raw", vec![at(90)], cart()),
        rule("", vec![at(91)], cart()),
        rule("rest", Vec::new(), cart()),
    ];
    let service = cluster.services.values_mut().next().unwrap();
    let mut raw = service.ports[0].clone();
    (raw.name, raw.port, raw.app_protocol) = ("tcp-raw".to_owned(), 90, None);
    service.ports.push(raw);
    cluster.routes.push(split);
    let found = findings(&run(&cluster));
    let messages: Vec<_> = found.iter().map(|(_, message)| message.as_str()).collect();
    assert!(found.iter().all(|(code, _)| code == "VirtualService shop/split rule-without-port"));
    assert_eq!(messages.len(), 3, "{messages:?}");
    for (message, part) in messages.iter().zip([
        "rule 1 of http (typo), which is for port 8080",
        "rule 2 of http (raw), which is for port 90",
        "rule 3 of http, which is for port 91",
    ]) {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_rule_for_requests_is_reported_where_only_those_for_connections_hold() {
    let mut cluster = world();
    let service = cluster.services.values_mut().next().unwrap();
    service.ports[0].app_protocol = Some("tcp".to_owned());
    let mut both = virtual_service("both", CART);
    both.tcp = vec![L4Rule { name: String::new(), matches: Vec::new(), backends: Vec::new() }];
    cluster.routes.push(both);
    let found = findings(&run(&cluster));
    assert!(
        found.iter().any(|(code, message)| code == "VirtualService shop/both rule-without-port"
            && message.contains("of http")),
        "{found:?}"
    );
}

#[test]
fn rules_about_what_cannot_be_dialled_are_reported() {
    let mut cluster = world();
    cluster.routes.push(virtual_service("lost", "nowhere.example.com"));
    let service = cluster.services.values_mut().next().unwrap();
    service.ports[0].app_protocol = Some("tcp".to_owned());
    cluster.routes.push(virtual_service("opaque", CART));
    let compiled = run(&cluster);
    let found: Vec<_> = findings(&compiled).into_iter().map(|(code, _)| code).collect();
    assert_eq!(
        found,
        [
            "VirtualService shop/lost route-without-address",
            "VirtualService shop/opaque route-without-port"
        ]
    );
    assert!(port(&compiled, CART_VIP).traffic.is_empty());
}

#[test]
fn what_leads_nowhere_gets_the_answer_of_its_api_and_a_diagnostic() {
    let to = [
        (host("none.example.com", Some(80), None), "there is no Service"),
        (host(CART, Some(81), None), "no such TCP port"),
        (host(CART, None, Some("v9")), "has this subset"),
        (BackendRef::Invalid("not granted".to_owned()), "not granted"),
    ];
    for (to, why) in to {
        for (kind, status) in [("VirtualService", 503), ("HTTPRoute", 500)] {
            let mut cluster = world();
            let base = match kind {
                "HTTPRoute" => gateway_route(kind, "r", Vec::new()),
                _ => virtual_service("r", CART),
            };
            let http = vec![rule("r", Vec::new(), to.clone())];
            cluster.routes.push(RouteSet { http, ..base });
            let compiled = run(&cluster);
            let labels = BTreeMap::new();
            let client = Client { namespace: "shop", labels: &labels };
            assert_eq!(led(traffic(&compiled, "shop"), &client, "cart"), Err(status));
            let found = findings(&compiled);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, format!("{kind} shop/r unusable-destination"));
            assert!(found[0].1.contains(why), "{found:?}");
        }
    }
}

#[test]
fn a_route_whose_weights_are_all_zero_is_unusable() {
    let mut cluster = world();
    let mut split = virtual_service("split", CART);
    split.http[0].action = HttpAction::Forward(vec![Backend { weight: 0, ..backend(cart()) }]);
    cluster.routes.push(split);
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    assert_eq!(led(traffic(&run(&cluster), "shop"), &client, "cart"), Err(503));
}

#[test]
fn a_match_that_cannot_be_compiled_never_matches_and_is_reported() {
    let mut cluster = world();
    let wrong =
        HttpMatch { authority: Some(TextPattern::Regex("(".to_owned())), ..HttpMatch::default() };
    let mut split = virtual_service("split", CART);
    split.http.insert(0, rule("wrong", vec![wrong], cart()));
    cluster.routes.push(split);
    let compiled = run(&cluster);
    assert_eq!(order(traffic(&compiled, "shop")), ["split"]);
    assert_eq!(findings(&compiled)[0].0, "VirtualService shop/split unusable-match");
}

#[test]
fn patterns_of_rewrites_and_origins_that_are_no_re2_are_reported_and_left_out() {
    let mut cluster = world();
    let mut split = virtual_service("split", CART);
    let path = PathRewrite::Regex { pattern: "(".to_owned(), replacement: "/".to_owned() };
    split.http[0].rewrite.path = Some(path);
    let origins = [TextPattern::Regex("[".to_owned()), TextPattern::Exact("a".to_owned())];
    split.http[0].cors =
        Some(Cors { origins: AllowedOrigins(origins.to_vec()), ..Cors::default() });
    cluster.routes.push(split);
    let compiled = run(&cluster);
    let (_, route) = traffic(&compiled, "shop").http.entries().next().unwrap();
    assert_eq!(route.path, None);
    assert_eq!(route.cors.as_ref().unwrap().origins.0, origins[1..]);
    let found = findings(&compiled);
    let codes: Vec<_> = found.iter().map(|finding| finding.0.as_str()).collect();
    assert_eq!(codes, ["VirtualService shop/split unusable-pattern"; 2]);
}

#[test]
fn a_time_limit_for_attempts_holds_without_retries() {
    let mut cluster = world();
    let mut split = virtual_service("split", CART);
    let limit = Some(std::time::Duration::from_secs(1));
    let istio = Retries::istio_default();
    split.http[0].retries = Some(Retries { attempts: 0, per_try_timeout: limit, ..istio });
    cluster.routes.push(split);
    let compiled = run(&cluster);
    let (_, route) = traffic(&compiled, "shop").http.entries().next().unwrap();
    let retries = route.retries.as_ref().unwrap();
    assert_eq!((retries.attempts, retries.per_try_timeout), (0, limit));
}

#[test]
fn istio_retries_where_nothing_is_said_and_the_gateway_api_does_not() {
    let retries = |set: RouteSet| {
        let mut cluster = world();
        cluster.routes.push(set);
        let compiled = run(&cluster);
        let (_, route) = traffic(&compiled, "shop").http.entries().next().unwrap();
        route.retries.clone()
    };
    let said = retries(virtual_service("split", CART)).unwrap();
    assert_eq!((said.attempts, said.avoid_previous), (2, None));
    assert!(said.on.connect_failure && said.on.refused_stream && !said.on.server_errors);
    assert_eq!(retries(gateway_route("HTTPRoute", "r", Vec::new())), None);
    let mut none = virtual_service("split", CART);
    none.http[0].retries = Some(Retries { attempts: 0, ..said });
    assert_eq!(retries(none), None);
}

#[test]
fn the_header_host_is_the_authority_and_a_rewrite_beats_it() {
    let compiled_authority = |rewrite: Option<&str>| {
        let mut cluster = world();
        let mut split = virtual_service("split", CART);
        split.http[0].headers.request_set = vec![
            ("Host".into(), "h".into()),
            ("x-a".into(), "1".into()),
            ("a b".into(), "".into()),
        ];
        split.http[0].headers.request_remove = vec!["host".into(), "x-b".into()];
        split.http[0].rewrite.authority = rewrite.map(str::to_owned);
        cluster.routes.push(split);
        let compiled = run(&cluster);
        let (_, route) = traffic(&compiled, "shop").http.entries().next().unwrap();
        assert_eq!(route.headers.request_set.len(), 1);
        assert_eq!(route.headers.request_remove, ["x-b"]);
        assert_eq!(findings(&compiled)[0].0, "VirtualService shop/split unusable-header");
        route.authority.clone().unwrap()
    };
    assert_eq!(compiled_authority(None), "h");
    assert_eq!(compiled_authority(Some("r")), "r");
}

/// The service `away`, which stands for `host`.
fn external(host: &str) -> undermesh_model::ExternalName {
    undermesh_model::ExternalName {
        origin: ResourceRef::namespaced("Service", "shop", "away"),
        name: NamespacedName::new("shop", "away"),
        host: host.to_owned(),
        ports: vec![undermesh_model::ServicePort {
            name: "http".to_owned(),
            port: 81,
            target_port: undermesh_model::TargetPort::Number(8081),
            protocol: undermesh_model::Protocol::Tcp,
            app_protocol: None,
        }],
    }
}

fn led_to_external(host_name: &str, at: u16) -> Result<Arc<ClusterSpec>, u16> {
    let mut cluster = world();
    let external = external(host_name);
    cluster.external_names.insert(external.name.clone(), external);
    let to = host("away.shop.svc.cluster.local", Some(at), None);
    let mut set = virtual_service("v", CART);
    set.http = vec![rule("v", Vec::new(), to)];
    cluster.routes.push(set);
    let labels = BTreeMap::new();
    let client = Client { namespace: "shop", labels: &labels };
    led(traffic(&run(&cluster), "shop"), &client, CART)
}

#[test]
fn a_route_may_lead_to_an_external_name_which_is_resolved_unless_it_is_known() {
    let spec = led_to_external("api.example.com", 81).unwrap();
    assert_eq!(spec.key.host, "away.shop.svc.cluster.local");
    let dns: Vec<_> = spec.dns.iter().map(|one| (one.name.as_str(), one.port)).collect();
    assert_eq!(dns, [("api.example.com", 8081)]);
    assert!(spec.endpoints.is_empty());
    let spec = led_to_external(CART, 80).unwrap();
    assert_eq!((spec.key.host.as_str(), spec.endpoints.len()), (CART, 2));
    assert!(led_to_external("away.shop.svc.cluster.local", 81).is_err(), "a circle");
    assert!(led_to_external("api.example.com", 82).is_err(), "no such port");
}
