//! What DestinationRules protect from, under load and while configuration changes, through two real agents.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use undermesh_tests::{
    Pod, Rig, ServiceSpec,
    cases::Shop,
    pod::{
        http::{Ask, Load, LoadReport, MARK, PLAN, Reply, Speaks},
        protocol::Behaviour,
    },
    wait_for,
};

/// Generous: a busy machine answers slowly.
const WITHIN: Duration = Duration::from_secs(30);

/// A DestinationRule for a host of the namespace `shop`.
fn rule(host: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: rule-{host}, namespace: shop}}\n\
         spec: {{host: {host}, trafficPolicy: {policy}}}\n"
    )
}

/// A request of a service's port 80, for which servers have this plan.
fn to(shop: &Shop, service: &str, plan: &str) -> Result<Ask> {
    Ok(Ask {
        to: Some(shop.rig.vip(service, 80)?),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        authority: service.to_owned(),
        headers: [(PLAN.to_owned(), plan.to_owned()), (MARK.to_owned(), plan.to_owned())].into(),
        ..Ask::default()
    })
}

/// Who has answered each of so many requests.
fn pods(client: &Pod, ask: Ask, times: u32) -> Result<Vec<String>> {
    let replies = client.ask(Ask { times, ..ask })?;
    let pod = |reply: &Reply| reply.header("x-pod").unwrap_or_default().to_owned();
    Ok(replies.iter().map(pod).collect())
}

fn answered_by(pods: &[String], name: &str) -> usize {
    pods.iter().filter(|pod| *pod == name).count()
}

/// What a command says that runs beside the agent of node a.
fn undermesh(rig: &Rig, args: &[&str]) -> Result<String> {
    let output = rig.undermesh_on("a")?.args(args).output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

/// How so many requests fare of which `two` fails each that it gets.
fn share_of_failures(shop: &Shop, policy: &str) -> Result<f64> {
    const REQUESTS: u64 = 900;
    shop.rig.apply("rule", &rule("trio", policy))?;
    let client = shop.client("client")?;
    let load = Load { ask: to(shop, "trio", "two:503")?, askers: 4, pause: 1 };
    client.begin_load(load)?;
    wait_for("enough requests", 3 * WITHIN, || {
        Ok((client.load_so_far()?.asked() >= REQUESTS).then_some(()))
    })?;
    let report = client.end_load()?;
    assert_eq!(report.errors.len(), 0, "{report:?}");
    Ok(report.failed() as f64 / report.asked() as f64)
}

#[test]
fn ejection_keeps_two_thirds_of_the_failures_from_clients_and_more() -> Result<()> {
    let shop = Shop::open()?;
    let without = share_of_failures(&shop, "{loadBalancer: {simple: ROUND_ROBIN}}")?;
    let with = share_of_failures(
        &shop,
        "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 5, \
         interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50}}",
    )?;
    println!("one of three endpoints fails: {:.1} % of requests without ejection", 100.0 * without);
    println!("                              {:.1} % with it", 100.0 * with);
    assert!((0.25..0.42).contains(&without), "a third of {without}");
    assert!(with <= 0.33 * without, "{with} with ejection, {without} without");
    Ok(())
}

/// Objects that are all about `shop`, one after the other.
fn rules_of_shop(nth: usize) -> String {
    let routes = [
        "[{route: [{destination: {host: shop}}]}]",
        "[{route: [{destination: {host: shop, subset: v1}, weight: 50}, \
          {destination: {host: shop, subset: v2}, weight: 50}]}]",
        "[{match: [{uri: {prefix: /}}], timeout: 9s, retries: {attempts: 1, retryOn: gateway-error}, \
          route: [{destination: {host: shop}}]}]",
        "[{headers: {request: {set: {x-a: b}}}, route: [{destination: {host: trio}}]}]",
    ];
    let policies = [
        "{loadBalancer: {simple: ROUND_ROBIN}}",
        "{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}",
        "{connectionPool: {tcp: {maxConnections: 8}, http: {maxRequestsPerConnection: 3}}}",
        "{loadBalancer: {consistentHash: {useSourceIp: true}}, outlierDetection: {}}",
        "{connectionPool: {http: {idleTimeout: 5ms, useClientProtocol: true}}}",
    ];
    let (routes, policy) = (routes[nth % routes.len()], policies[nth % policies.len()]);
    format!(
        "{}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: shop, namespace: shop}}\nspec: {{hosts: [shop], http: {routes}}}\n",
        rule("shop", policy)
    )
}

fn assert_nothing_was_lost(report: &LoadReport, what: &str) {
    println!("{what}: {} requests over {} connections", report.asked(), report.connections);
    assert_eq!(report.failed(), 0, "{what}: {report:?}");
    assert!(report.asked() > 500, "{what}: {report:?}");
    let pods: BTreeSet<&str> = report.pods.keys().map(String::as_str).collect();
    assert_eq!(pods, ["one", "three", "two"].into(), "{what}: {report:?}");
}

#[test]
fn changes_of_rules_and_endpoints_under_load_lose_no_request() -> Result<()> {
    let mut shop = Shop::open()?;
    shop.rig.apply("rules", &rules_of_shop(0))?;
    let clients = [
        (Speaks::Http1, shop.rig.pod("client")?, "HTTP/1.1"),
        (Speaks::Http2, shop.rig.pod("client")?, "HTTP/2"),
    ];
    for (speaks, client, _) in &clients {
        let ask = Ask { speaks: *speaks, ..to(&shop, "shop", "wait=5")? };
        client.begin_load(Load { ask, askers: 4, pause: 2 })?;
    }
    for nth in 1..=60 {
        if nth % 3 == 0 {
            let backends: &[&str] =
                if nth % 2 == 0 { &["one", "two"] } else { &["one", "two", "three"] };
            let spec = ServiceSpec::new("shop", 80, 8080, backends).port(80, 8080, "http-80");
            shop.rig.set_service(&spec)?;
        }
        // Now and then, no rule is about it.
        match nth % 15 {
            14 => shop.rig.apply("rules", &format!("# {nth}\n"))?,
            _ => shop.rig.apply("rules", &rules_of_shop(nth))?,
        }
    }
    for (_, client, what) in &clients {
        assert_nothing_was_lost(&client.end_load()?, what);
    }
    Ok(())
}

#[test]
fn connections_of_tcp_have_a_limit_a_longest_time_and_a_longest_silence() -> Result<()> {
    let shop = Shop::open()?;
    let client = shop.client("client")?;
    let service = shop.rig.vip("one", 90)?;
    let overflow = || {
        let agent = shop.rig.agent("a")?;
        agent.metric("undermesh_upstream_overflow_total", "limit=\"maxConnections\"")
    };
    shop.rig.apply("rule", &rule("one", "{connectionPool: {tcp: {maxConnections: 1}}}"))?;
    let first = client.connect(service)?;
    first.send(b"x")?;
    assert_eq!(first.receive(4)?, b"one\n");
    // The reset may come before `connect` has returned.
    let second = client.connect(service).and_then(|second| second.exchange(b"x"));
    assert!(second.is_err(), "the second connection was served");
    assert_eq!(overflow()?, 1);
    shop.rig.agent("a")?.access_log().wait(&[("response_flags", "UO")])?;
    first.close()?;
    wait_for("room for another", WITHIN, || {
        let third = client.connect(service)?;
        third.send(b"x")?;
        Ok(Some(third.receive(4)?).filter(|heard| heard == b"one\n"))
    })?;

    for policy in ["{maxConnectionDuration: 300ms}", "{idleTimeout: 300ms}"] {
        shop.rig.apply("rule", &rule("one", &format!("{{connectionPool: {{tcp: {policy}}}}}")))?;
        let connection = client.connect(service)?;
        connection.send(b"x")?;
        assert_eq!(connection.receive(4)?, b"one\n");
        let ended = connection.receive_to_end();
        let ended = ended.map_or_else(|failure| failure.errno, |bytes| format!("{bytes:?}"));
        assert_eq!(ended, "ECONNRESET", "{policy}");
        shop.rig.agent("a")?.access_log().wait(&[("response_flags", "UT")])?;
    }
    Ok(())
}

#[test]
fn connections_out_of_the_mesh_are_kept_alive_as_the_rule_says() -> Result<()> {
    let shop = Shop::open()?;
    let outside = shop.rig.process_on("b", "outside")?;
    let at = shop.rig.node("b")?.addresses[0];
    let listener = outside.listen((at, 0).into(), Behaviour::Echo)?;
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
         metadata: {{name: outside, namespace: shop}}\nspec:\n  hosts: [outside.example]\n  \
         addresses: [240.0.3.1]\n  resolution: STATIC\n  endpoints: [{{address: {at}}}]\n  \
         ports: [{{number: 90, name: tcp, protocol: TCP, targetPort: {}}}]\n---\n",
        listener.address().port()
    );
    let policy = "{connectionPool: {tcp: {tcpKeepalive: {time: 50s, interval: 5s, probes: 3}}}}";
    let rule = rule("outside.example", policy).replace("rule-outside.example", "outside");
    shop.rig.apply("outside", &format!("{entry}{rule}"))?;
    let connection = shop.client("client")?.connect("240.0.3.1:90".parse()?)?;
    assert_eq!(connection.exchange(b"hello")?, b"hello");
    let mut command = shop.rig.command_in("client")?;
    let said = command.args(["ss", "-Htno", "dst", &at.to_string()]).output()?.stdout;
    let said = String::from_utf8(said)?;
    let timer = said.split("timer:(keepalive,").nth(1).and_then(|rest| rest.split("sec").next());
    let seconds: u64 = timer.with_context(|| format!("no keepalive in {said}"))?.parse()?;
    assert!((30..=50).contains(&seconds), "{said}");
    Ok(())
}

#[test]
fn an_endpoint_that_is_new_gets_its_share_step_by_step() -> Result<()> {
    let shop = Shop::open()?;
    let client = shop.client("client")?;
    let at = |name: &str| anyhow::Ok(shop.rig.at(name, 0)?.ip());
    let (one, two) = (at("one")?, at("two")?);
    let entry = |endpoints: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: warm, namespace: shop}}\nspec:\n  hosts: [warm.example]\n  \
             addresses: [240.0.4.1]\n  resolution: STATIC\n  endpoints: [{endpoints}]\n  \
             ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]\n---\n{}",
            rule(
                "warm.example",
                // An endpoint has a tenth of its share, and nearly all of it in the end only.
                "{loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 6s, aggression: 0.1}}}"
            )
            .replace("rule-warm.example", "warm")
        )
    };
    let (to, authority) = (Some("240.0.4.1:80".parse()?), "warm.example".to_owned());
    let ask =
        Ask { to, authority, method: "GET".to_owned(), path: "/".to_owned(), ..Ask::default() };
    shop.rig.apply("warm", &entry(&format!("{{address: {one}}}")))?;
    assert_eq!(pods(client, ask.clone(), 1)?, ["one"]);
    // As long as it takes to be warm; a shorter time would show nothing.
    thread::sleep(Duration::from_secs(7));
    shop.rig.apply("warm", &entry(&format!("{{address: {one}}}, {{address: {two}}}")))?;
    let cold = answered_by(&pods(client, ask.clone(), 60)?, "two");
    assert!((1..=18).contains(&cold), "{cold} of 60 went to an endpoint that is new");
    wait_for("both to have the same share", WITHIN, || {
        let warm = answered_by(&pods(client, ask.clone(), 20)?, "two");
        Ok((9..=11).contains(&warm).then_some(()))
    })
}

#[test]
fn an_endpoint_that_fails_again_is_out_for_longer() -> Result<()> {
    let shop = Shop::open()?;
    let client = shop.client("client")?;
    shop.rig.apply(
        "rule",
        &rule(
            "trio",
            "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 1, \
             interval: 2s, baseEjectionTime: 1s, maxEjectionPercent: 50}}",
        ),
    )?;
    let ejections = || {
        let agent = shop.rig.agent("a")?;
        agent.metric("undermesh_upstream_ejections_total", "cause=\"consecutive_5xx\"")
    };
    // It fails whenever it is asked.
    wait_for("a third ejection", WITHIN, || {
        pods(client, to(&shop, "trio", "one:500")?, 3)?;
        Ok((ejections()? >= 3).then_some(()))
    })?;
    let log = shop.rig.agent("a")?.log();
    let times: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("endpoint ejected"))
        .filter_map(|line| line.split("time=").nth(1)?.split_whitespace().next())
        .collect();
    assert_eq!(times[..3], ["1s", "2s", "3s"], "{log}");
    Ok(())
}

#[test]
fn status_shows_who_is_ejected_which_limits_are_reached_and_what_is_open() -> Result<()> {
    let shop = Shop::open()?;
    let client = shop.client("client")?;
    shop.rig.apply(
        "rules",
        &format!(
            "{}---\n{}",
            rule(
                "trio",
                "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 1, \
                 baseEjectionTime: 600s, maxEjectionPercent: 50}}"
            ),
            rule(
                "three",
                "{connectionPool: {http: {http2MaxRequests: 1}, tcp: {maxConnections: 5}}}"
            )
        ),
    )?;
    pods(client, to(&shop, "trio", "two:500")?, 3)?;
    let (other, held) = (shop.rig.pod("client")?, to(&shop, "three", "hold")?);
    let (text, json) = thread::scope(|scope| {
        let asked = scope.spawn(|| other.ask(held));
        let reached = wait_for("the limit to be reached", WITHIN, || {
            let text = undermesh(&shop.rig, &["status"])?;
            Ok(text.contains("REACHED").then_some(text))
        });
        let json = undermesh(&shop.rig, &["status", "-o", "json"]);
        shop.server("three")?.release("hold")?;
        let replies = asked.join().ok().context("whoever asked has panicked")??;
        ensure!(replies[0].status == 200, "{replies:?}");
        anyhow::Ok((reached?, json?))
    })?;
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let (trio, three) =
        ("outbound|80||trio.shop.svc.cluster.local", "outbound|80||three.shop.svc.cluster.local");
    let two = shop.rig.at("two", 8080)?.to_string();
    let ejected = rows.iter().find(|row| row.first() == Some(&trio));
    let ejected = ejected.with_context(|| format!("nobody is ejected in\n{text}"))?;
    assert_eq!(ejected[1..4], [&two, "consecutive_5xx", "1"], "{text}");
    assert!(ejected.ends_with(&["DestinationRule", "shop/rule-trio"]), "{text}");
    for row in [
        vec!["shop/client", three, "http2MaxRequests", "1", "1", "REACHED"],
        vec!["shop/client", three, "maxConnections", "1", "5"],
        vec!["shop/client", three, "1", "1", "1"],
    ] {
        assert!(rows.contains(&row), "{row:?} is missing in\n{text}");
    }
    let json: serde_json::Value = serde_json::from_str(&json)?;
    let all = json["destinations"].as_array().context("no destinations")?;
    let trio = all.iter().find(|one| one["destination"] == trio).context("no trio")?;
    let left = trio["ejected"][0]["secondsLeft"].as_u64().context("not ejected")?;
    assert!((500..=600).contains(&left), "{json:#}");
    Ok(())
}
