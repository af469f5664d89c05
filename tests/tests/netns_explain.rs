//! `undermesh explain` and reality agree: what a running agent says of a connection or request is what then becomes of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use undermesh_tests::{
    Conn, PORT, Pod, PodSpec, Rig, ServiceSpec, pod::protocol::Behaviour, wait_for,
};

const SOON: Duration = Duration::from_secs(20);

const RULES: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: shop}
spec: {host: shop, subsets: [{name: v1, labels: {app: one}}, {name: v2, labels: {app: two}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec:
  hosts: [shop]
  http:
  - name: second
    match: [{uri: {prefix: /items}, headers: {version: {exact: v2}}}]
    route: [{destination: {host: shop, subset: v2}}]
  - name: first
    match: [{uri: {prefix: /items}}, {uri: {prefix: /admin}}]
    route: [{destination: {host: shop, subset: v1}}]
  - name: moved
    match: [{uri: {prefix: /old}}]
    redirect: {uri: /items}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-client, namespace: shop}
spec:
  selector: {matchLabels: {app: near}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [client]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-near, namespace: shop}
spec:
  selector: {matchLabels: {app: server}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [near]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  selector: {matchLabels: {app: one}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin*]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {selector: {matchLabels: {app: server}}, mtls: {mode: STRICT}}
";

/// What is tried, and explained before.
struct Case {
    from: &'static str,
    to: &'static str,
    /// Its path, and a header.
    request: Option<(&'static str, &'static str)>,
}

const fn bytes(from: &'static str, to: &'static str) -> Case {
    Case { from, to, request: None }
}

const fn get(path: &'static str, header: &'static str) -> Case {
    Case { from: "client", to: "shop:80", request: Some((path, header)) }
}

fn rig() -> Result<Rig> {
    let mut rig = Rig::builder()
        .node(
            "a",
            [PodSpec::new("client"), PodSpec::new("near"), PodSpec::new("outsider").listed()],
        )
        .node("b", [PodSpec::new("server"), PodSpec::new("one"), PodSpec::new("two")])
        .service(ServiceSpec::new("far", 80, PORT, &["server"]))
        .service(ServiceSpec::new("near", 80, PORT, &["near"]))
        .service(ServiceSpec::new("nobody", 80, PORT, &[]))
        .service(ServiceSpec::new("shop", 80, PORT, &["one", "two"]).app_protocol(80, "http"))
        .build()?;
    rig.manifests.write("rules", RULES)?;
    rig.start()?;
    Ok(rig)
}

fn explain(rig: &Rig, case: &Case) -> Result<Value> {
    explain_on(rig, "a", case)
}

/// What the agent of a node says.
fn explain_on(rig: &Rig, node: &str, case: &Case) -> Result<Value> {
    let mut command = rig.undermesh_on(node)?;
    command.args(["explain", "-o", "json"]);
    command.args([&format!("shop/{}", case.from), case.to]);
    if let Some((path, header)) = case.request {
        command.args(["GET", path, "-H", header]);
    }
    let output = command.output()?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let code = match answer["verdict"].as_str() {
        Some("carried") => 0,
        Some("refused") => 1,
        _ => 2,
    };
    ensure!(output.status.code() == Some(code), "{}: {answer:#}", output.status);
    Ok(answer)
}

/// What became of it: the status of a request, else whether bytes came back.
fn attempt(rig: &Rig, pod: &Pod, case: &Case) -> Result<Option<u16>> {
    let (service, port) = case.to.split_once(':').context("no port")?;
    let to = rig.vip(service, port.parse()?)?;
    let tried = pod.connect(to);
    let Some((path, header)) = case.request else {
        let echoed = tried.and_then(|conn| conn.exchange(b"hello"));
        return Ok(echoed.is_ok_and(|echo| echo == b"hello").then_some(200));
    };
    let conn = tried?;
    conn.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{header}\r\n\r\n").as_bytes())?;
    status(&conn).map(Some)
}

fn status(conn: &Conn<'_>) -> Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(conn.receive(1)?);
    }
    let head = String::from_utf8(head)?;
    Ok(head.split(' ').nth(1).context("no status")?.parse()?)
}

/// The flow record that says why something was refused, or who has answered, at the node that has decided.
fn record(rig: &Rig, node: &str, after: u64, case: &Case) -> Result<Value> {
    let wanted = if case.request.is_some() { "request" } else { "denied" };
    wait_for(&format!("a flow record on node {node}"), SOON, || {
        let page = rig.agent(node)?.admin(&format!("/flows?after={after}"))?;
        let records = page.lines().map(serde_json::from_str::<Value>);
        let records: Vec<Value> = records.collect::<Result<_, _>>()?;
        Ok(records.into_iter().find(|record| record["event"] == wanted))
    })
}

fn next(rig: &Rig, node: &str) -> Result<u64> {
    let page = rig.agent(node)?.admin("/flows?cursor=1&last=0")?;
    let last: Value = serde_json::from_str(page.lines().last().context("no cursor")?)?;
    last["next"].as_u64().context("no cursor")
}

#[test]
fn what_is_explained_is_what_happens() -> Result<()> {
    let rig = rig()?;
    let mut pods = Vec::new();
    for name in ["client", "near", "outsider", "server", "one", "two"] {
        pods.push((name, rig.pod(name)?));
    }
    let pod = |name: &str| pods.iter().find(|(of, _)| *of == name).map(|(_, pod)| pod);
    for name in ["near", "server"] {
        let at = format!("[::]:{PORT}").parse()?;
        pod(name).context("no pod")?.listen_many(at, 1, Behaviour::Echo)?;
    }
    for name in ["one", "two"] {
        let at = format!("[::]:{PORT}").parse()?;
        pod(name).context("no pod")?.listen_many(at, 1, Behaviour::Http(name.to_owned()))?;
    }
    let cases = [
        bytes("client", "far:80"),
        bytes("client", "near:80"),
        bytes("near", "far:80"),
        bytes("outsider", "far:80"),
        bytes("outsider", "near:80"),
        bytes("client", "nobody:80"),
        get("/items", "version: v2"),
        get("/items", "version: v1"),
        get("/admin", "version: v2"),
        get("/items/../admin", "version: v1"),
        get("/old", "version: v1"),
        get("/elsewhere", "version: v1"),
    ];
    let mut seen = Vec::new();
    for case in cases {
        let what = format!("{} -> {} {:?}", case.from, case.to, case.request);
        let told = explain(&rig, &case)?;
        // A service's address is nobody's to somebody outside the mesh, without a kube-proxy.
        let node =
            told["decidedAt"].as_str().and_then(|at| at.rsplit(' ').next()).context("where?")?;
        let after = next(&rig, node)?;
        let happened = if case.from == "outsider" {
            let to = rig.at(if case.to == "far:80" { "server" } else { "near" }, PORT)?;
            let echoed = pod(case.from).context("no pod")?.connect(to);
            let echoed = echoed.and_then(|conn| conn.exchange(b"hello"));
            echoed.is_ok().then_some(200)
        } else {
            attempt(&rig, pod(case.from).context("no pod")?, &case)?
        };
        let status = told["status"].as_u64().map(|status| status as u16);
        let carried = told["verdict"] == "carried";
        let expected =
            if case.request.is_some() { status.or(Some(200)) } else { carried.then_some(200) };
        assert_eq!(happened, expected, "{what}: {told:#}");
        if !carried {
            let record = record(&rig, node, after, &case)?;
            assert_eq!(record["reason"], told["reason"], "{what}: {record:#} {told:#}");
            let said = record["detail"].as_str().unwrap_or_default();
            assert_eq!(said, told["detail"].as_str().unwrap_or_default(), "{what}");
        }
        seen.push(format!("{} {}", told["verdict"], told["reason"]).replace('"', ""));
    }
    let expected = [
        "carried proxied",
        "refused policy_denied",
        "refused policy_denied",
        "refused strict_plaintext",
        "carried not_enrolled",
        "refused no_endpoint",
        "carried proxied",
        "carried proxied",
        "refused policy_denied",
        "refused policy_denied",
        "carried redirect",
        "refused no_route",
    ];
    assert_eq!(seen, expected);
    Ok(())
}

#[test]
fn a_running_agent_knows_who_is_ejected() -> Result<()> {
    let mut rig = Rig::builder()
        .node("a", [PodSpec::new("client")])
        .node("b", [PodSpec::new("one"), PodSpec::new("two")])
        .service(ServiceSpec::new("shop", 80, PORT, &["one", "two"]).app_protocol(80, "http"))
        .build()?;
    rig.manifests.write(
        "rule",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop, namespace: shop}\n\
         spec: {host: shop, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, interval: 1h, \
         baseEjectionTime: 1h, maxEjectionPercent: 50}}}\n",
    )?;
    rig.start()?;
    // Nobody serves in `two`.
    let (client, one) = (rig.pod("client")?, rig.pod("one")?);
    one.listen_many(format!("[::]:{PORT}").parse()?, 1, Behaviour::Http("one".to_owned()))?;
    let case = Case { from: "client", to: "shop:80", request: Some(("/", "x: y")) };
    let two = rig.at("two", PORT)?.to_string();
    let lost = wait_for("an ejection that is explained", SOON, || {
        attempt(&rig, &client, &case)?;
        let told = explain(&rig, &case)?;
        let steps = told["ways"][0]["steps"].as_array().cloned().unwrap_or_default();
        let balance =
            steps.into_iter().find(|step| step["step"] == "balance").context("no step")?;
        let mut lost = balance["lost"].as_array().cloned().unwrap_or_default().into_iter();
        Ok(lost.find(|endpoint| endpoint["name"] == two.as_str()))
    })?;
    let why = lost["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("ejected, "), "{why}");
    Ok(())
}

/// Each of its lines that has this part.
fn lines(told: &Value, field: &str, part: &str) -> Vec<String> {
    let lines = told[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    lines.filter(|line| line.contains(part)).map(str::to_owned).collect()
}

#[test]
fn a_running_agent_says_how_budgets_and_limits_stand_and_takes_nothing_from_them() -> Result<()> {
    let mut rig = Rig::builder()
        .node("a", [PodSpec::new("client")])
        .node("b", [PodSpec::new("server")])
        .service(ServiceSpec::new("shop", 80, PORT, &["server"]).app_protocol(80, "http"))
        .build()?;
    rig.manifests.write(
        "rules",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: shop, namespace: shop}\n\
         spec: {host: shop, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http2MaxRequests: 7}}}}\n\
         ---\n\
         apiVersion: undermesh.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {name: few, namespace: shop}\n\
         spec: {selector: {matchLabels: {app: server}}, rules: [{name: each, key: ['request.headers[x-user]'], \
         requests: {count: 2, per: 12h}}]}\n",
    )?;
    rig.start()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen_many(format!("[::]:{PORT}").parse()?, 1, Behaviour::Http("server".to_owned()))?;
    let (alice, bob) = (
        Case { from: "client", to: "shop:80", request: Some(("/", "x-user: alice")) },
        Case { from: "client", to: "shop:80", request: Some(("/", "x-user: bob")) },
    );
    let budget = |case: &Case| -> Result<Vec<String>> {
        Ok(lines(&explain_on(&rig, "b", case)?, "now", "RateLimitPolicy"))
    };
    let left =
        |left: u32| format!("RateLimitPolicy shop/few, rule each: {left} of 2 requests left");
    // Asking takes nothing.
    for _ in 0..3 {
        assert_eq!(budget(&alice)?, [left(2)]);
    }
    assert_eq!(attempt(&rig, &client, &alice)?, Some(200));
    assert_eq!((budget(&alice)?, budget(&bob)?), (vec![left(1)], vec![left(2)]));
    assert_eq!(attempt(&rig, &client, &alice)?, Some(200));
    assert_eq!(attempt(&rig, &client, &alice)?, Some(429));
    let used_up = budget(&alice)?.pop().context("nothing is said")?;
    assert!(used_up.starts_with(&format!("{}; the next one in 2", left(0))), "{used_up}");
    // Who has no part in it knows who has.
    let told = explain(&rig, &alice)?;
    assert_eq!(lines(&told, "now", "RateLimitPolicy"), Vec::<String>::new(), "{told:#}");
    let assumed = "the budget of RateLimitPolicy shop/few, rule each, is not used up; the agent of node b knows";
    assert_eq!(lines(&told, "assumptions", "RateLimitPolicy"), [assumed]);
    let name = "outbound|80||shop.shop.svc.cluster.local";
    let elsewhere = format!("the limits of {name} are not reached; the agent of node a knows");
    let told = explain_on(&rig, "b", &bob)?;
    assert_eq!(lines(&told, "assumptions", "limits of"), [elsewhere]);

    // The connection of the last request is kept for the next.
    let held = |line: &str| -> Result<()> {
        wait_for(line, SOON, || {
            let now = lines(&explain(&rig, &bob)?, "now", name);
            Ok(now.iter().any(|one| *one == format!("{name}: {line}")).then_some(()))
        })
    };
    held("1 of 1 maxConnections, which is all")?;
    held("0 of 7 http2MaxRequests")
}
