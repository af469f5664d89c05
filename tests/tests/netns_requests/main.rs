//! What is seen of requests, on both sides: lines of the access log, metrics, and flow records, for every way that a
//! request may end.

mod cases;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    Agent, LogLine,
    cases::Shop,
    pod::http::{Ask, MARK, PLAN, Speaks},
    wait_for,
};

use cases::{CASES, Case, OBJECTS, PLAIN};

const SOON: std::time::Duration = std::time::Duration::from_secs(20);

fn opened() -> Result<Shop> {
    let shop = Shop::open()?;
    shop.rig.apply("requests", OBJECTS)?;
    Ok(shop)
}

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
