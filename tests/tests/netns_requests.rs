//! What is seen of requests, on both sides: lines of the access log, metrics, and flow records, for every way that a
//! request may end.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    Agent, LogLine,
    cases::Shop,
    pod::http::{Ask, MARK, PLAN, Speaks},
    wait_for,
};

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

/// Routes of the service `two`, which is on another node; a limit for `three`, on the same one; destinations that cannot
/// answer; and policies that look at requests of `two` and of `one`, which is on the client's node.
const OBJECTS: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: two, namespace: shop}
spec:
  hosts: [two]
  http:
  - name: slow
    match: [{uri: {prefix: /slow}}]
    timeout: 0.2s
    route: [{destination: {host: two}}]
  - name: retried
    match: [{uri: {prefix: /retried}}]
    retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: two}}]
  - name: aborted
    match: [{uri: {prefix: /aborted}}]
    fault: {delay: {fixedDelay: 0.01s, percentage: {value: 100}}, abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: two}}]
  - name: direct
    match: [{uri: {prefix: /direct}}]
    directResponse: {status: 202, body: {string: here}}
  - name: moved
    match: [{uri: {prefix: /moved}}]
    redirect: {uri: /new}
  - name: mirrored
    match: [{uri: {prefix: /mirrored}}]
    mirror: {host: one}
    mirrorPercentage: {value: 100}
    route: [{destination: {host: two}}]
  - name: plain
    match: [{uri: {prefix: /plain}}, {uri: {prefix: /admin}}, {uri: {prefix: /pkg}}]
    route: [{destination: {host: two}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one, namespace: shop}
spec: {hosts: [one], http: [{name: near, route: [{destination: {host: one}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: empty, namespace: shop}
spec: {hosts: [empty], http: [{route: [{destination: {host: empty}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: dead, namespace: shop}
spec: {hosts: [dead], http: [{route: [{destination: {host: dead}}], retries: {attempts: 0}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: three, namespace: shop}
spec: {host: three, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard-two, namespace: shop}
spec: {selector: {matchLabels: {app: two}}, action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard-one, namespace: shop}
spec: {selector: {matchLabels: {app: one}}, action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}
";

fn opened() -> Result<Shop> {
    let shop = Shop::open()?;
    shop.rig.apply("requests", OBJECTS)?;
    Ok(shop)
}

/// A request of `client`, and what is to be known of it.
struct Case<'a> {
    /// Its `x-request-id`.
    id: &'a str,
    to: &'a str,
    path: &'a str,
    plan: &'a str,
    speaks: Speaks,
    status: u16,
    /// Fields of the source's line.
    source: &'a [(&'a str, &'a str)],
    /// Fields of the destination's lines, and how many of these there are.
    destination: (usize, &'a [(&'a str, &'a str)]),
}

const PLAIN: Case<'_> = Case {
    id: "plain",
    to: "two:80",
    path: "/plain?token=secret",
    plan: "",
    speaks: Speaks::Http1,
    status: 200,
    source: &[
        ("method", "GET"),
        ("authority", "two"),
        ("path", "/plain?token=*"),
        ("protocol", "HTTP/1.1"),
        ("status", "200"),
        ("reason", "answered"),
        ("response_flags", "-"),
        ("route", "VirtualService shop/two"),
        ("route_name", "plain"),
        ("cluster", "outbound|80||two.shop.svc.cluster.local"),
        ("service", "two.shop.svc.cluster.local"),
        ("attempts", "1"),
        ("source.pod", "client"),
        ("destination.pod", "two"),
        ("transport", "native"),
        ("security", "mutual_tls"),
        ("user_agent", "tester/1"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
    ],
    destination: (
        1,
        &[
            ("path", "/plain?token=*"),
            ("status", "200"),
            ("reason", "answered"),
            ("source.identity", "spiffe://cluster.local/ns/shop/sa/client"),
            ("destination.pod", "two"),
            ("service", "two.shop.svc.cluster.local"),
            ("security", "mutual_tls"),
            ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
        ],
    ),
};

const CASES: [Case<'_>; 12] = [
    PLAIN,
    Case {
        id: "none",
        path: "/nothing",
        status: 404,
        source: &[
            ("status", "404"),
            ("reason", "no_route"),
            ("response_flags", "NR"),
            ("attempts", "0"),
        ],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "slow",
        path: "/slow",
        plan: "wait=3000",
        status: 504,
        source: &[
            ("status", "504"),
            ("reason", "timeout"),
            ("response_flags", "UT"),
            ("route_name", "slow"),
        ],
        // Whether the application's late answer finds somebody is for the wire to say.
        destination: (1, &[("destination.pod", "two")]),
        ..PLAIN
    },
    Case {
        id: "retried",
        path: "/retried",
        plan: "503",
        status: 503,
        source: &[
            ("status", "503"),
            ("reason", "answered"),
            ("response_flags", "URX"),
            ("attempts", "3"),
        ],
        destination: (3, &[("status", "503"), ("reason", "answered"), ("response_flags", "-")]),
        ..PLAIN
    },
    Case {
        id: "aborted",
        path: "/aborted",
        status: 418,
        source: &[("status", "418"), ("reason", "fault_injected"), ("response_flags", "DI,FI")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "direct",
        path: "/direct",
        status: 202,
        source: &[("reason", "direct_response"), ("response_flags", "-"), ("bytes_sent", "4")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "moved",
        path: "/moved",
        status: 301,
        source: &[("status", "301"), ("reason", "redirect"), ("response_flags", "-")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "denied",
        path: "/admin",
        status: 403,
        source: &[("status", "403"), ("reason", "answered"), ("response_flags", "-")],
        destination: (
            1,
            &[
                ("status", "403"),
                ("reason", "policy_denied"),
                ("response_flags", "UAEX"),
                ("policy", "AuthorizationPolicy shop/guard-two"),
                ("attempts", "0"),
            ],
        ),
        ..PLAIN
    },
    Case {
        id: "call",
        to: "two:82",
        path: "/pkg.Service/Call",
        plan: "trailer=5",
        speaks: Speaks::Grpc,
        source: &[
            ("protocol", "HTTP/2"),
            ("status", "200"),
            ("grpc_status", "5"),
            ("reason", "answered"),
        ],
        destination: (1, &[("grpc_status", "5"), ("reason", "answered")]),
        ..PLAIN
    },
    Case {
        id: "empty",
        to: "empty:80",
        status: 503,
        source: &[("status", "503"), ("reason", "no_endpoints"), ("response_flags", "UH")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "dead",
        to: "dead:80",
        status: 503,
        // On the client's node the policy of `one` stands between: its judge cannot connect.
        source: &[("status", "503"), ("reason", "answered"), ("destination.pod", "one")],
        destination: (0, &[]),
        ..PLAIN
    },
    Case {
        id: "mirrored",
        path: "/mirrored",
        source: &[("reason", "answered"), ("destination.pod", "two")],
        destination: (1, &[("reason", "answered")]),
        ..PLAIN
    },
];

/// Makes a request, which is answered.
fn make(shop: &Shop, case: &Case<'_>) -> Result<()> {
    let (service, _) = case.to.split_once(':').context("no port")?;
    let headers = [
        ("x-request-id", case.id),
        (MARK, case.id),
        (PLAN, case.plan),
        ("user-agent", "tester/1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let given = headers.iter().filter(|(_, value)| !value.is_empty());
    let headers: BTreeMap<String, String> =
        given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let method = if case.speaks == Speaks::Grpc { "POST" } else { "GET" };
    let replies = shop.client("client")?.ask(Ask {
        speaks: case.speaks,
        to: Some(shop.address(case.to, false)?),
        method: method.to_owned(),
        path: case.path.to_owned(),
        authority: service.to_owned(),
        headers,
        body: if case.speaks == Speaks::Grpc { b"hello".to_vec() } else { Vec::new() },
        times: 1,
        ..Ask::default()
    })?;
    let status = replies.first().context("no reply")?.status;
    ensure!(status == case.status, "{}: {replies:?}", case.id);
    Ok(())
}

/// The lines that a reporter has written of a request, once there are so many.
fn lines(agent: &Agent, reporter: &str, id: &str, count: usize) -> Result<Vec<LogLine>> {
    let wanted = [("event", "request"), ("reporter", reporter), ("request_id", id)];
    wait_for(&format!("{count} lines of the {reporter} about {id}"), SOON, || {
        let found = agent.access_log().matching(&wanted)?;
        Ok((found.len() >= count).then_some(found))
    })
}

fn check(lines: &[LogLine], count: usize, fields: &[(&str, &str)]) -> Result<()> {
    ensure!(lines.len() == count, "{count} lines wanted, there are {lines:?}");
    for line in lines {
        for (field, value) in fields {
            ensure!(line.get(field) == *value, "{field} is not {value:?} in {}", line.0);
        }
    }
    Ok(())
}

/// The sum of a metric over the series that have all of these labels.
fn counted(agent: &Agent, name: &str, labels: &[&str]) -> Result<u64> {
    let text = agent.metrics()?;
    let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let wanted = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    Ok(wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
}

fn count(agent: &Agent, name: &str, labels: &[&str], expected: u64) -> Result<()> {
    let found = counted(agent, name, labels)?;
    ensure!(found == expected, "{name} with {labels:?} is {found} instead of {expected}");
    Ok(())
}

#[test]
fn every_end_of_a_request_is_logged_and_counted_by_both_sides() -> Result<()> {
    let shop = opened()?;
    let (near, far) = (shop.rig.agent("a")?, shop.rig.agent("b")?);
    for case in &CASES {
        make(&shop, case)?;
        check(&lines(near, "source", case.id, 1)?, 1, case.source).context(case.id)?;
        let (count, fields) = case.destination;
        check(&lines(far, "destination", case.id, count)?, count, fields).context(case.id)?;
    }
    // The copy is seen where it arrives, on the client's node, and not where it is sent from.
    let copy = lines(near, "destination", "mirrored", 1)?;
    check(&copy, 1, &[("destination.pod", "one"), ("authority", "two-shadow")])?;
    // Whose requests are looked at has no lines of its own.
    for agent in [near, far] {
        ensure!(
            agent
                .access_log()
                .matching(&[("event", "open"), ("reporter", "destination")])?
                .is_empty()
        );
    }
    ensure!(near.access_log().matching(&[("event", "open"), ("reporter", "source")])?.is_empty());

    let requests = "istio_requests_total";
    let source =
        ["reporter=\"source\"", "source_workload=\"client\"", "destination_service_name=\"two\""];
    for (labels, expected) in [
        (
            &["response_code=\"404\"", "response_flags=\"NR\"", "destination_workload=\"unknown\""]
                [..],
            1,
        ),
        (&["response_code=\"504\"", "response_flags=\"UT\"", "destination_workload=\"two\""], 1),
        (&["response_code=\"503\"", "response_flags=\"URX\""], 1),
        (&["response_code=\"418\"", "response_flags=\"DI,FI\""], 1),
        (&["request_protocol=\"grpc\"", "grpc_response_status=\"5\""], 1),
        (
            &[
                "response_code=\"200\"",
                "request_protocol=\"http\"",
                "connection_security_policy=\"mutual_tls\"",
            ],
            2,
        ),
    ] {
        count(near, requests, &[&source[..], labels].concat(), expected)?;
    }
    count(near, requests, &source, 10)?;
    count(near, "istio_request_duration_milliseconds_count", &source, 10)?;
    count(near, requests, &["response_flags=\"UH\"", "destination_service_name=\"empty\""], 1)?;
    let destination =
        ["reporter=\"destination\"", "source_workload=\"client\"", "destination_workload=\"two\""];
    for (labels, expected) in [
        (&["response_code=\"403\"", "response_flags=\"UAEX\""][..], 1),
        (&["response_code=\"503\""], 3),
        (&["request_protocol=\"grpc\"", "grpc_response_status=\"5\""], 1),
        (&["destination_service=\"two.shop.svc.cluster.local\""], 8),
    ] {
        count(far, requests, &[&destination[..], labels].concat(), expected)?;
    }
    for (agent, reporter) in [(near, "source"), (far, "destination")] {
        let labels = [&format!("reporter=\"{reporter}\"")[..], "destination_workload=\"two\""];
        for name in ["istio_request_messages_total", "istio_response_messages_total"] {
            count(agent, name, &labels, 1)?;
        }
        let tcp = [&format!("reporter=\"{reporter}\"")[..]];
        count(agent, "istio_tcp_connections_opened_total", &tcp, 0)?;
    }
    flows_find_requests(&shop)
}

/// `undermesh flows`, by what requests are about.
fn flows_find_requests(shop: &Shop) -> Result<()> {
    for (node, filters, expected) in [
        ("a", &["--status", "4xx", "--path", "/nothing"][..], "GET two/nothing 404 NR no_route"),
        ("a", &["--reason", "timeout"], "GET two/slow 504 UT timeout"),
        ("b", &["--verdict", "denied"], "GET two/admin 403 UAEX policy_denied"),
        ("b", &["--method", "POST"], "POST two/pkg.Service/Call 200/5 - answered"),
    ] {
        let mut command = shop.rig.undermesh_on(node)?;
        command.arg("flows").args(filters);
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{filters:?}: {output:?}");
        ensure!(text.lines().count() == 1 && text.contains(expected), "{filters:?}: {text}");
    }
    Ok(())
}

#[test]
fn a_request_within_the_node_is_counted_once_by_each_reporter() -> Result<()> {
    let shop = opened()?;
    let agent = shop.rig.agent("a")?;
    let requests = "istio_requests_total";
    for (id, path, status, fields) in [
        ("near", "/plain", 200, [("reason", "answered"), ("response_flags", "-")]),
        ("near-denied", "/admin", 403, [("reason", "policy_denied"), ("response_flags", "UAEX")]),
    ] {
        make(&shop, &Case { id, to: "one:80", path, status, ..PLAIN })?;
        let local = [("transport", "local"), ("security", "none"), ("destination.pod", "one")];
        check(&lines(agent, "source", id, 1)?, 1, &local)?;
        check(&lines(agent, "destination", id, 1)?, 1, &[&local[..], &fields].concat())?;
        let code = format!("response_code=\"{status}\"");
        for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
            let labels = [reporter, "destination_workload=\"one\"", &code];
            count(agent, requests, &labels, 1)?;
        }
    }
    count(shop.rig.agent("b")?, requests, &[], 0)
}

#[test]
fn limits_and_clients_that_leave_are_told_apart() -> Result<()> {
    let shop = opened()?;
    let agent = shop.rig.agent("a")?;
    let conn = shop.client("client")?.connect(shop.address("three:80", false)?)?;
    let request = format!(
        "GET /long HTTP/1.1\r\nHost: three\r\n{MARK}: long\r\nx-request-id: long\r\n{PLAN}: wait=60000\r\n\r\n"
    );
    conn.send(request.as_bytes())?;
    wait_for("the request to be under way", SOON, || {
        Ok((!shop.server("three")?.heard("long")?.is_empty()).then_some(()))
    })?;
    make(&shop, &Case { id: "second", to: "three:80", path: "/", status: 503, ..PLAIN })?;
    let overflow =
        [("reason", "overflow"), ("response_flags", "UO"), ("detail", "http2MaxRequests")];
    check(&lines(agent, "source", "second", 1)?, 1, &overflow)?;
    conn.reset()?;
    let gone = [("reason", "client_reset"), ("response_flags", "DC"), ("status", "")];
    check(&lines(agent, "source", "long", 1)?, 1, &gone)?;
    let labels = ["response_code=\"0\"", "response_flags=\"DC\"", "destination_workload=\"three\""];
    count(agent, "istio_requests_total", &labels, 1)?;
    count(agent, "istio_requests_total", &["response_flags=\"UO\""], 1)?;
    // What is no request.
    let conn = shop.client("client")?.connect(shop.address("three:80", false)?)?;
    conn.send(
        b"GET / HTTP/1.1\r\nHost: three\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    ensure!(conn.receive(12)? == b"HTTP/1.1 400");
    let line = agent.access_log().wait(&[("event", "request"), ("reason", "bad_request")])?;
    ensure!(
        line.matches(&[("response_flags", "DPE"), ("status", "400"), ("reporter", "source")]),
        "{line:?}"
    );
    // Of a server's node that does not look at requests there are its connections.
    let tcp = shop
        .rig
        .agent("b")?
        .metric("istio_tcp_connections_opened_total", "destination_workload=\"three\"")?;
    ensure!(tcp >= 1, "{tcp}");
    Ok(())
}
