//! Who wins, and what is said to those who lose.

use undermesh_model::traffic::{PathMatch, TextPattern};

use super::*;

fn compile(routes: Vec<RouteSet>) -> Compiled {
    let mut cluster = world();
    cluster.routes = routes;
    run(&cluster)
}

/// The winner's rules for clients of `shop`, and who is told to have lost, and why.
fn contest(routes: Vec<RouteSet>) -> (Vec<String>, Vec<String>) {
    let compiled = compile(routes);
    let won = order(traffic(&compiled, "shop")).into_iter().map(str::to_owned).collect();
    let lost = findings(&compiled).into_iter().map(|(what, why)| {
        assert!(what.ends_with("route-overridden"), "{what}");
        format!("{}: {}", what.split(' ').nth(1).unwrap(), why.rsplit(", ").next().unwrap())
    });
    (won, lost.collect())
}

fn path(pattern: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(pattern), ..HttpMatch::default() }
}

fn elements(text: &str) -> HttpMatch {
    path(PathMatch::Elements(text.to_owned()))
}

fn with_headers(count: usize, from: HttpMatch) -> HttpMatch {
    let header = |number| (format!("x-{number}"), TextPattern::Present);
    HttpMatch { headers: (0..count).map(header).collect(), ..from }
}

#[test]
fn a_virtual_services_rules_stay_in_order() {
    let mut split = virtual_service("split", CART);
    split.http = vec![
        rule("2", vec![elements("/")], cart()),
        rule("1", vec![path(PathMatch::Exact("/a".to_owned()))], cart()),
    ];
    assert_eq!(contest(vec![split]).0, ["2", "1"]);
}

#[test]
fn of_two_virtual_services_for_a_host_the_older_one_holds_alone() {
    let young = RouteSet { created: 2, ..virtual_service("a", CART) };
    let old = RouteSet { created: 1, ..virtual_service("b", CART) };
    let (won, lost) = contest(vec![young, old]);
    assert_eq!((won, lost), (vec!["b".to_owned()], vec!["shop/a: it is older".to_owned()]));
}

#[test]
fn virtual_services_of_one_age_go_by_name_and_then_by_namespace() {
    let mut a = virtual_service("a", CART);
    a.name.namespace = "z".to_owned();
    let b = virtual_service("b", CART);
    let (won, lost) = contest(vec![b, a]);
    assert_eq!(
        (won, lost),
        (vec!["a".to_owned()], vec!["shop/b: it comes first by name".to_owned()])
    );
}

#[test]
fn the_most_specific_host_holds_whoever_is_older() {
    let all = RouteSet { created: 1, ..virtual_service("all", "*") };
    let shop = RouteSet { created: 2, ..virtual_service("shop", "*.shop.svc.cluster.local") };
    let cart = RouteSet { created: 3, ..virtual_service("cart", CART) };
    let (won, lost) = contest(vec![all, shop, cart]);
    assert_eq!(won, ["cart"]);
    let why = "its host is more specific";
    assert_eq!(lost, [format!("shop/all: {why}"), format!("shop/shop: {why}")]);
}

#[test]
fn precedence_comes_before_everything_else() {
    let old = RouteSet { created: 1, ..virtual_service("old", CART) };
    let chosen = RouteSet { created: 2, precedence: 1, ..virtual_service("chosen", "*") };
    let route = gateway_route("HTTPRoute", "route", Vec::new());
    let (won, lost) = contest(vec![old, chosen, route]);
    assert_eq!(won, ["chosen"]);
    let why = "its precedence is higher";
    assert_eq!(lost, [format!("shop/route: {why}"), format!("shop/old: {why}")]);
}

#[test]
fn the_gateway_api_comes_before_virtual_services() {
    let old = RouteSet { created: 1, ..virtual_service("old", CART) };
    let route = RouteSet { created: 2, ..gateway_route("HTTPRoute", "route", Vec::new()) };
    let (won, lost) = contest(vec![old, route]);
    assert_eq!(won, ["route"]);
    assert_eq!(lost, ["shop/old: routes of the Gateway API come before VirtualServices"]);
}

#[test]
fn only_the_most_specific_kind_of_route_holds() {
    let http = RouteSet { created: 1, ..gateway_route("HTTPRoute", "http", Vec::new()) };
    let grpc = RouteSet { created: 2, ..gateway_route("GRPCRoute", "grpc", Vec::new()) };
    let (won, lost) = contest(vec![http, grpc]);
    assert_eq!(won, ["grpc"]);
    assert_eq!(lost, ["shop/http: only the most specific kind of route holds for a port"]);
}

#[test]
fn http_routes_of_a_service_are_read_together() {
    let a = gateway_route("HTTPRoute", "a", vec![elements("/a")]);
    let b = gateway_route("HTTPRoute", "b", vec![elements("/a/b")]);
    assert_eq!(contest(vec![a, b]), (vec!["b".to_owned(), "a".to_owned()], Vec::new()));
}

#[test]
fn a_match_that_two_http_routes_have_belongs_to_the_older_one() {
    let young = RouteSet { created: 2, ..gateway_route("HTTPRoute", "a", vec![elements("/a")]) };
    let old = RouteSet { created: 1, ..gateway_route("HTTPRoute", "b", vec![elements("/a")]) };
    let (won, lost) = contest(vec![young.clone(), old.clone()]);
    assert_eq!((won, lost), (vec!["b".into(), "a".into()], vec!["shop/a: it is older".into()]));
    let young = RouteSet { precedence: 1, ..young };
    let (won, lost) = contest(vec![young, old]);
    let why = "its precedence is higher";
    assert_eq!((won, lost), (vec!["a".into(), "b".into()], vec![format!("shop/b: {why}")]));
}

#[test]
fn the_gateway_api_reads_the_most_specific_match_first() {
    let get = |from| HttpMatch { method: Some(TextPattern::Exact("GET".to_owned())), ..from };
    let asks = |from| HttpMatch { query: vec![("q".to_owned(), TextPattern::Present)], ..from };
    // In falling importance.
    let matches = [
        path(PathMatch::Exact("/a".to_owned())),
        get(with_headers(2, elements("/a/b"))),
        with_headers(9, elements("/a/b")),
        get(elements("/a")),
        asks(with_headers(2, elements("/a"))),
        with_headers(2, elements("/a")),
        asks(with_headers(1, elements("/a"))),
        asks(elements("/a")),
        elements("/a"),
        elements("/"),
        get(with_headers(2, path(PathMatch::Regex("/a/b/c.*".to_owned())))),
    ];
    let names: Vec<String> = (0..matches.len()).map(|number| number.to_string()).collect();
    let mut rules: Vec<HttpRule> =
        names.iter().zip(matches).map(|(name, from)| rule(name, vec![from], cart())).collect();
    for turn in 0..rules.len() {
        rules.rotate_left(1);
        // Whatever the order in which they are written, and in however many objects.
        let (first, second) = rules.split_at(turn);
        let half = |name, rules: &[HttpRule]| RouteSet {
            http: rules.to_vec(),
            ..gateway_route("HTTPRoute", name, Vec::new())
        };
        assert_eq!(contest(vec![half("a", first), half("b", second)]), (names.clone(), Vec::new()));
    }
}

#[test]
fn equal_matches_of_one_http_route_stay_in_order() {
    let mut route = gateway_route("HTTPRoute", "r", Vec::new());
    route.http = vec![
        rule("1", vec![elements("/b"), elements("/a")], cart()),
        rule("2", vec![elements("/a")], cart()),
    ];
    assert_eq!(contest(vec![route]), (vec!["1".into(), "1".into(), "2".into()], Vec::new()));
}

#[test]
fn a_route_of_the_clients_namespace_is_for_these_clients_and_wins_there() {
    let producer = gateway_route("HTTPRoute", "producer", Vec::new());
    let mut consumer = gateway_route("HTTPRoute", "consumer", Vec::new());
    consumer.name.namespace = "other".to_owned();
    consumer.origin.namespace = "other".to_owned();
    let compiled = compile(vec![producer, consumer]);
    assert_eq!(order(traffic(&compiled, "shop")), ["producer"]);
    assert_eq!(order(traffic(&compiled, "other")), ["consumer"]);
    let found = findings(&compiled);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, "HTTPRoute shop/producer route-overridden");
    assert!(found[0].1.contains("towards clients of namespace other"), "{found:?}");
    assert!(found[0].1.contains("HTTPRoute other/consumer wins"), "{found:?}");
}

#[test]
fn a_route_for_one_port_is_about_that_port_alone() {
    let mut route = gateway_route("HTTPRoute", "r", Vec::new());
    let service = NamespacedName::new("shop", "cart");
    route.parents = vec![Parent::Service { service, port: Some(81) }];
    let compiled = compile(vec![route]);
    assert!(port(&compiled, CART_VIP).traffic.is_empty());
    assert_eq!(findings(&compiled)[0].0, "HTTPRoute shop/r route-without-port");
}
