//! Pages in, rows out.

use undermesh_telemetry::{Bytes, Connections, Edges, HttpRequests, Source};

use super::*;

/// An edge of a page that is `name` to service `to`.
pub(in crate::top) fn edge(reporter: &str, from: &str, to: &str, requests: u64) -> Edge {
    let id = |name: &str| format!("spiffe://cluster.local/ns/shop/sa/{name}");
    Edge {
        reporter: reporter.to_owned(),
        source: Source {
            workload: from.to_owned(),
            namespace: "shop".to_owned(),
            principal: id(from),
            cluster: "Kubernetes".to_owned(),
        },
        destination: Destination {
            service: format!("{to}.shop.svc.cluster.local"),
            service_name: to.to_owned(),
            service_namespace: "shop".to_owned(),
            workload: to.to_owned(),
            namespace: "shop".to_owned(),
            principal: id(to),
            cluster: "Kubernetes".to_owned(),
        },
        protocol: "http".to_owned(),
        security: "mutual_tls".to_owned(),
        bytes: Bytes { received: requests, sent: 3000 * requests },
        connections: None,
        requests: Some(HttpRequests {
            total: requests,
            failed: requests / 10,
            duration_counts: vec![requests, 0, 0],
            ..HttpRequests::default()
        }),
        messages: None,
    }
}

/// Those edges, counted up within two seconds.
pub(in crate::top) fn rates(edges: Vec<Edge>) -> Rates {
    let page = |at, edges| Edges {
        start_time_seconds: 1.0,
        monotonic_seconds: at,
        duration_bounds_milliseconds: vec![10.0, 100.0],
        edges,
    };
    Rates::between("a", &page(5.0, Vec::new()), &page(7.0, edges))
}

pub(in crate::top) fn pod(name: &str) -> PodStatus {
    PodStatus {
        namespace: "shop".to_owned(),
        name: format!("{name}-0"),
        addresses: Vec::new(),
        identity: format!("spiffe://cluster.local/ns/shop/sa/{name}"),
        state: PodState::Enrolled,
        netns_cookie: Some(1),
        detail: String::new(),
    }
}

fn names(view: View, rates: &Rates, namespace: Option<&str>, sort: Sort) -> Vec<String> {
    let rows = rows(view, rates, &[pod("web"), pod("cart")], namespace, sort);
    rows.iter().map(|row| row.names.join(" ")).collect()
}

#[test]
fn services_are_seen_from_either_side_and_never_added_up_twice() {
    let edges = vec![
        edge("source", "web", "cart", 10),
        edge("source", "admin", "cart", 20),
        edge("destination", "web", "cart", 10),
    ];
    let rates = rates(edges);
    let found = rows(View::Services, &rates, &[], None, Sort::Rate);
    let rate = |row: &Row| (row.names.join(" "), row.measures.requests_per_second);
    let found: Vec<_> = found.iter().map(rate).collect();
    assert_eq!(
        found,
        [("client shop cart".to_owned(), 15.0), ("server shop cart".to_owned(), 5.0)]
    );
}

#[test]
fn what_no_service_was_meant_by_is_called_by_its_workload() {
    let mut direct = edge("source", "web", "cart", 1);
    for field in [
        &mut direct.destination.service,
        &mut direct.destination.service_name,
        &mut direct.destination.service_namespace,
    ] {
        UNKNOWN.clone_into(field);
    }
    assert_eq!(names(View::Services, &rates(vec![direct]), None, Sort::Rate), ["client shop cart"]);
}

#[test]
fn a_pod_is_counted_once_where_both_sides_have_counted() {
    let edges = vec![
        edge("source", "web", "cart", 10),
        edge("destination", "web", "cart", 10),
        edge("source", "web", "far", 4),
    ];
    let found = rows(View::Pods, &rates(edges), &[pod("web"), pod("cart")], None, Sort::Name);
    let rate = |row: &Row| (row.names.join(" "), row.measures.requests_per_second);
    let found: Vec<_> = found.iter().map(rate).collect();
    let wanted = [
        ("shop/cart-0 enrolled in", 5.0),
        ("shop/cart-0 enrolled out", 0.0),
        ("shop/web-0 enrolled in", 0.0),
        ("shop/web-0 enrolled out", 7.0),
    ];
    assert_eq!(found, wanted.map(|(name, rate)| (name.to_owned(), rate)));
}

#[test]
fn rows_are_of_a_namespace_and_in_the_order_that_is_asked_for() {
    let mut slow = edge("source", "web", "slow", 2);
    if let Some(requests) = &mut slow.requests {
        requests.duration_counts = vec![0, 2, 0];
    }
    let mut failing = edge("source", "web", "failing", 4);
    if let Some(requests) = &mut failing.requests {
        requests.failed = 4;
    }
    let mut other = edge("source", "web", "busy", 50);
    for namespace in [&mut other.destination.namespace, &mut other.destination.service_namespace] {
        "bank".clone_into(namespace);
    }
    let mut heavy = edge("source", "web", "heavy", 1);
    heavy.bytes.received = 1 << 40;
    let rates = rates(vec![slow, failing, other, heavy]);
    for (sort, first) in [
        (Sort::Rate, "client bank busy"),
        (Sort::Success, "client shop failing"),
        (Sort::P99, "client shop slow"),
        (Sort::Bytes, "client shop heavy"),
        (Sort::Name, "client bank busy"),
    ] {
        assert_eq!(names(View::Services, &rates, None, sort)[0], first, "{sort:?}");
    }
    let of = |view, namespace| names(view, &rates, Some(namespace), Sort::Name).len();
    assert_eq!((of(View::Services, "bank"), of(View::Services, "shop")), (1, 3));
    assert_eq!((of(View::Edges, "bank"), of(View::Edges, "shop")), (1, 4));
    assert_eq!((of(View::Pods, "bank"), of(View::Pods, "shop")), (0, 4));
}

#[test]
fn figures_are_short_and_have_a_unit() {
    let measures = Measures {
        requests_per_second: 3.25,
        connections_per_second: 1234.5,
        open_connections: 7,
        success: Some(0.9987),
        p50_milliseconds: Some(0.42),
        p95_milliseconds: Some(123.4),
        p99_milliseconds: Some(12_345.0),
        received_bytes_per_second: 999.0,
        sent_bytes_per_second: 1_234_567.0,
    };
    let wanted = ["3.2", "1234", "7", "99.9%", "0.4 ms", "123 ms", "12 s", "999 B", "1.2 MB"];
    assert_eq!(cells(&measures), wanted);
    assert_eq!(cells(&Measures::default())[..4], ["0", "0", "0", "-"]);
}

#[test]
fn json_has_the_columns_as_fields_and_the_figures_beside_them() {
    let rates = rates(vec![edge("source", "web", "cart", 10)]);
    let row = &rows(View::Edges, &rates, &[], None, Sort::Rate)[0];
    let found = json(View::Edges, row);
    for (field, value) in [
        ("side", serde_json::json!("client")),
        ("source", "shop/web".into()),
        ("destination", "shop/cart".into()),
        ("service", "cart.shop.svc.cluster.local".into()),
        ("protocol", "http".into()),
        ("security", "mutual_tls".into()),
        ("requestsPerSecond", 5.0.into()),
        ("success", 0.9.into()),
        ("p50Milliseconds", 5.0.into()),
        ("sentBytesPerSecond", 15_000.0.into()),
    ] {
        assert_eq!(found[field], value, "{field} of {found}");
    }
}

#[test]
fn a_connection_that_is_open_is_shown_although_nothing_moves() {
    let mut idle = edge("source", "web", "cart", 0);
    (idle.requests, idle.protocol) = (None, "tcp".to_owned());
    idle.connections = Some(Connections { opened: 3, closed: 1, ..Connections::default() });
    let row = &rows(View::Edges, &rates(vec![idle]), &[], None, Sort::Rate)[0];
    assert_eq!(row.measures.open_connections, 2);
}
