//! `undermesh trace` follows one real connection: the next one of a pod, or one that is made in its name.

use std::{
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use undermesh_tests::{
    PORT, PodSpec, Rig, ServiceSpec, cgroup2_mount, locate,
    pod::{
        http::{Ask, PLAN, Speaks},
        protocol::Behaviour,
    },
    wait_for,
};

const SOON: Duration = Duration::from_secs(20);

fn command(rig: &Rig, args: &[&str]) -> Result<Command> {
    let mut command = rig.undermesh_on("a")?;
    command.args(["trace", "-o", "json", "--timeout", "10"]).args(args);
    Ok(command)
}

fn trace(rig: &Rig, args: &[&str]) -> Result<(Option<i32>, Value)> {
    told(&command(rig, args)?.output()?)
}

fn told(output: &Output) -> Result<(Option<i32>, Value)> {
    let trace = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), trace))
}

/// `MAP key -> value` of a step of the kernel.
fn lookups(trace: &Value, step: usize) -> Vec<String> {
    let word = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let lookups = trace["kernel"][step]["lookups"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value| {
        format!("{} {} -> {}", word(one, "map"), word(one, "key"), word(one, "value"))
    };
    lookups.iter().map(text).collect()
}

/// The proxy's steps, by name.
fn steps(trace: &Value) -> Vec<String> {
    let steps = trace["proxy"].as_array().cloned().unwrap_or_default();
    steps.iter().map(|step| step["step"].as_str().unwrap_or_default().to_owned()).collect()
}

/// In its pod, the agent sees the node's cgroups read-only, and so does what it starts.
#[test]
fn a_probe_gets_into_a_pod_where_cgroups_are_mounted_read_only() -> Result<()> {
    let rig = Rig::started()?;
    let near = rig.pod("near")?;
    near.listen(format!("[::]:{PORT}").parse()?, Behaviour::Echo)?;
    let client = rig.place("client")?;
    let root = cgroup2_mount()?;
    // The probe is the last step of a shell that sees them so, and has tried.
    let script = "mount -o remount,bind,ro \"$1\" && ! echo 0 2>/dev/null >\"$2/cgroup.procs\"\n\
                  shift 2 && exec \"$@\"";
    let mut shell = rig.command_on("a")?;
    shell.args(["unshare", "--mount", "sh", "-ec", script, "sh"]).arg(root);
    shell.arg(&client.cgroup).arg(locate("undermesh")?).arg("probe");
    shell.arg("--netns").arg(client.netns.path()).arg("--cgroup").arg(&client.cgroup);
    shell.args(["--timeout", "10000", "--to", &rig.vip("near", 80)?.to_string()]);
    let output = shell.output()?;
    let probed: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    assert_eq!(probed["error"], "", "{probed:#}");
    assert_eq!(probed["cgroup"], client.cgroup.display().to_string());
    assert!(probed["connectedUs"].is_u64(), "{probed:#}");
    Ok(())
}

#[test]
fn a_probe_is_a_connection_of_the_pod_on_every_path() -> Result<()> {
    let rig = Rig::started()?;
    let (_client, near, server) = (rig.pod("client")?, rig.pod("near")?, rig.pod("server")?);
    let at_near = near.listen(format!("[::]:{PORT}").parse()?, Behaviour::Echo)?;
    server.listen_many(format!("[::]:{PORT}").parse()?, 1, Behaviour::Echo)?;

    let (code, local) = trace(&rig, &["shop/client", "--to", "near:80", "--send"])?;
    assert_eq!((code, &local["state"]), (Some(0), &"ended".into()), "{local:#}");
    assert_eq!(local["kernel"][0]["outcome"], "local", "{local:#}");
    assert_eq!(local["kernel"][1]["outcome"], "inbound_local", "{local:#}");
    let looked_up = lookups(&local, 0).join("\n");
    let vip = rig.vip("near", 80)?;
    assert!(looked_up.contains(&format!("SERVICES {vip} -> 1 slots")), "{looked_up}");
    assert!(looked_up.contains(&format!("PODS {} -> ", local["netnsCookie"])), "{looked_up}");
    assert!(steps(&local).is_empty(), "{local:#}");
    assert_eq!(local["records"][0]["transport"], "local");
    assert_ne!(local["probe"]["socketCookie"], 0);
    let source = local["source"].as_str().context("no source")?;
    let canonical = |peer: SocketAddr| SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let seen: Vec<String> =
        at_near.accepted()?.iter().map(|one| canonical(one.peer).to_string()).collect();
    assert_eq!(seen, [source], "the application has another client than the trace");

    let (code, far) = trace(&rig, &["shop/client", "--to", "far:80", "--send"])?;
    assert_eq!(code, Some(0), "{far:#}");
    assert_eq!(far["kernel"][0]["outcome"], "proxied", "{far:#}");
    let expected =
        ["accepted", "planned", "endpoint", "wire", "handshake", "pool", "session", "connected"];
    let found = steps(&far);
    for step in expected.iter().filter(|step| **step != "wire") {
        assert!(found.iter().any(|one| one == step), "no {step} in {found:?}");
    }
    let peer = "spiffe://cluster.local/ns/shop/sa/server";
    assert!(far["proxy"].to_string().contains(peer), "{far:#}");
    let close = far["records"].as_array().and_then(|records| records.last()).context("none")?;
    assert_eq!(
        (&close["event"], &close["destination"]["identity"]),
        (&"close".into(), &peer.into())
    );
    // By which `--all-nodes` finds it at the other end.
    let page = "/flows?reporter=destination&pod=shop/server";
    let same = format!("\"source\":{{\"address\":{}", far["source"]);
    wait_for("the other end's record", SOON, || {
        Ok(rig.agent("b")?.admin(page)?.contains(&same).then_some(()))
    })?;

    rig.apply(
        "no-client",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: no-client, namespace: shop}\n\
         spec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [client]}}]}]}\n",
    )?;
    let (code, denied) = trace(&rig, &["shop/client", "--to", "near:80", "--send"])?;
    assert_eq!(code, Some(1), "{denied:#}");
    assert_eq!(denied["kernel"][1]["outcome"], "policy_denied", "{denied:#}");
    // An answer that is not there denies.
    let asked = lookups(&denied, 1);
    assert!(
        asked.iter().any(|one| one.starts_with("POLICY") && one.ends_with("-> none")),
        "{asked:?}"
    );
    let records = denied["records"].to_string();
    assert!(records.contains("denied by AuthorizationPolicy shop/no-client"), "{records}");
    assert!(denied["rules"].to_string().contains("no-client"), "{denied:#}");
    Ok(())
}

/// Has requests of `shop` looked at.
const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: shop}
spec: {hosts: [shop], http: [{name: all, route: [{destination: {host: shop}}]}]}
";

/// A client, and on another node a server whose port speaks this, with rules about it.
fn shop(protocol: &str, rules: &str) -> Result<Rig> {
    let mut rig = Rig::builder()
        .node("a", [PodSpec::new("client")])
        .node("b", [PodSpec::new("one")])
        .service(ServiceSpec::new("shop", 80, PORT, &["one"]).app_protocol(80, protocol))
        .build()?;
    rig.manifests.write("rules", rules)?;
    rig.start()?;
    Ok(rig)
}

#[test]
fn a_request_is_followed_through_its_route() -> Result<()> {
    let rig = shop("http", ROUTE)?;
    let (_client, one) = (rig.pod("client")?, rig.pod("one")?);
    one.listen_many(format!("[::]:{PORT}").parse()?, 1, Behaviour::Http("one".to_owned()))?;
    let args = ["shop/client", "--to", "shop:80", "--send", "--http", "GET", "/items"];
    let (code, trace) = trace(&rig, &args)?;
    assert_eq!((code, &trace["probe"]["status"]), (Some(0), &200.into()), "{trace:#}");
    let proxy = trace["proxy"].to_string();
    for part in ["VirtualService shop/shop rule all", "\"answered\"", "\"endpoint\""] {
        assert!(proxy.contains(part), "{part} is not in {proxy}");
    }
    assert_eq!(trace["records"][0]["event"], "request", "{trace:#}");
    assert!(trace["probe"]["firstByteUs"].as_u64().is_some(), "{trace:#}");
    Ok(())
}

#[test]
fn a_request_over_a_connection_of_another_has_a_record_at_the_other_end_by_its_identifier()
-> Result<()> {
    let judge = "---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: judge, namespace: shop}\n\
         spec: {action: DENY, rules: [{to: [{operation: {paths: [/nowhere]}}]}]}\n";
    let rig = shop("http", &[ROUTE, judge].concat())?;
    let (_client, one) = (rig.pod("client")?, rig.pod("one")?);
    one.listen_many(format!("[::]:{PORT}").parse()?, 1, Behaviour::Http("one".to_owned()))?;
    let ask = || {
        let args = ["shop/client", "--to", "shop:80", "--send", "--http", "GET", "/items"];
        let (code, trace) = trace(&rig, &args)?;
        assert_eq!((code, &trace["probe"]["status"]), (Some(0), &200.into()), "{trace:#}");
        Ok::<_, anyhow::Error>(trace)
    };
    let first = ask()?;
    assert!(steps(&first).iter().any(|step| step == "session"), "{first:#}");
    let second = ask()?;
    let took = steps(&second);
    assert!(took.iter().any(|step| step == "reused"), "{took:?}");
    assert!(!took.iter().any(|step| step == "session"), "{took:?}");

    // By which `--all-nodes` finds it.
    let id = second["records"][0]["request_id"].as_str().context("no identifier")?;
    let page = "/flows?reporter=destination&pod=shop/one";
    let records = wait_for("the other end's record", SOON, || {
        let lines = rig.agent("b")?.admin(page)?;
        let records = lines.lines().filter(|line| line.contains(id));
        let records: Vec<Value> = records.map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok((!records.is_empty()).then_some(records))
    })?;
    let [request] = &records[..] else { bail!("not one record: {records:?}") };
    assert_eq!((&request["event"], &request["path"]), (&"request".into(), &"/items".into()));
    assert_eq!(request["source"]["pod"], "client", "{request:#}");
    assert_eq!(request["source"]["address"], first["source"], "{request:#}");
    assert_ne!(first["source"], second["source"]);
    Ok(())
}

#[test]
fn the_next_connection_is_waited_for_and_the_time_is_limited() -> Result<()> {
    let rig = Rig::started()?;
    let (client, server) = (rig.pod("client")?, rig.pod("server")?);
    server.listen_many(format!("[::]:{PORT}").parse()?, 1, Behaviour::Echo)?;
    let waiting = command(&rig, &["shop/client", "--to", "far:80"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Until the trace has begun, connections are nobody's: each of these may be the one.
    let agent = rig.agent("a")?;
    wait_for("a trace to begin", SOON, || Ok(agent.admin("/trace?id=1").ok().map(drop)))?;
    let conn = client.connect(rig.vip("far", 80)?)?;
    conn.exchange(b"hello")?;
    wait_for("the first byte to be noted", SOON, || {
        Ok(agent.admin("/trace?id=1")?.contains("first-byte").then_some(()))
    })?;
    conn.close()?;
    let (code, trace) = told(&waiting.wait_with_output()?)?;
    assert_eq!((code, &trace["state"]), (Some(0), &"ended".into()), "{trace:#}");
    assert!(trace["probe"].is_null());
    assert!(steps(&trace).contains(&"first-byte".to_owned()), "{trace:#}");
    let close = trace["records"].as_array().and_then(|records| records.last()).context("none")?;
    assert_eq!((&close["bytes_received"], &close["bytes_sent"]), (&5.into(), &5.into()));

    let (code, none) = trace_for(&rig, "0.5")?;
    assert_eq!((code, &none["state"]), (Some(1), &"timed-out".into()), "{none:#}");
    Ok(())
}

#[test]
fn requests_of_one_connection_of_http2_are_followed_side_by_side() -> Result<()> {
    let items = ROUTE.replace("name: all,", "name: all, match: [{uri: {prefix: /items}}],");
    let rig = shop("http2", &items)?;
    let (client, one) = (rig.pod("client")?, rig.pod("one")?);
    one.listen_many(format!("[::]:{PORT}").parse()?, 1, Behaviour::Http("one".to_owned()))?;
    let to = rig.vip("shop", 80)?;
    type Steps = Vec<(u64, String, String)>;
    let begin = || -> Result<Child> {
        let mut waiting = command(&rig, &["shop/client", "--to", "shop:80"])?;
        let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let agent = rig.agent("a")?;
        wait_for("a trace to begin", SOON, || {
            let mut pages = (1..=9).flat_map(|id| agent.admin(&format!("/trace?id={id}")));
            Ok(pages.any(|page| page.contains("\"waiting\"")).then_some(()))
        })?;
        Ok(waiting)
    };
    let end = |waiting: Child| -> Result<Steps> {
        let (_, trace) = told(&waiting.wait_with_output()?)?;
        assert_eq!(trace["state"], "ended", "{trace:#}");
        let word = |step: &Value, name: &str| step[name].as_str().unwrap_or_default().to_owned();
        let steps = trace["proxy"].as_array().context("no steps")?.iter();
        let steps = steps.map(|step| {
            (step["stream"].as_u64().unwrap_or(0), word(step, "step"), word(step, "detail"))
        });
        Ok(steps.collect())
    };
    let follow = |ask: Ask| -> Result<Steps> {
        let waiting = begin()?;
        client.ask(ask)?;
        end(waiting)
    };
    let ask = |path: &str, speaks| Ask {
        speaks,
        to: Some(to),
        method: "GET".to_owned(),
        path: path.to_owned(),
        authority: "shop".to_owned(),
        times: 1,
        ..Ask::default()
    };
    let of = |steps: &[(u64, String, String)], stream| -> Vec<String> {
        steps.iter().filter(|it| it.0 == stream).map(|it| it.1.clone()).collect()
    };
    let steps = follow(ask("/items", Speaks::Http2))?;
    assert_eq!(of(&steps, 0)[..2], ["accepted", "planned"], "{steps:?}");
    let first = of(&steps, 1);
    for step in ["request", "route", "endpoint", "handshake", "session", "answered"] {
        assert!(first.iter().any(|it| it == step), "{step}: {steps:?}");
    }
    let steps = follow(ask("/elsewhere;session=secret?token=secret", Speaks::Grpc))?;
    let said: Vec<_> = steps.iter().filter(|it| it.0 == 1).map(|it| &*it.2).collect();
    assert_eq!(said.first(), Some(&"GET /elsewhere;session=*"), "{steps:?}");
    assert!(said.last().is_some_and(|it| it.ends_with("by the mesh: no_route")), "{steps:?}");

    // Two over one connection, of which none is answered before the other has come.
    let waiting = begin()?;
    let conn = client.connect(to)?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    for stream in [1, 3] {
        // HPACK, without a table: GET, http, and literals.
        let mut head = vec![0x82, 0x86];
        for (index, value) in [(0x04, "/items"), (0x01, "shop")] {
            head.extend([index, value.len() as u8]);
            head.extend(value.as_bytes());
        }
        head.push(0);
        for literal in [PLAN, "wait=300"] {
            head.push(literal.len() as u8);
            head.extend(literal.as_bytes());
        }
        bytes.extend(frame(1, 0x5, stream, &head));
    }
    conn.send(&bytes)?;
    let steps = end(waiting)?;
    for stream in [1, 2] {
        let own = of(&steps, stream);
        assert_eq!(own.first().map(String::as_str), Some("request"), "{steps:?}");
    }
    Ok(())
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    [&head[..], payload].concat()
}

fn trace_for(rig: &Rig, seconds: &str) -> Result<(Option<i32>, Value)> {
    let mut command = rig.undermesh_on("a")?;
    command.args(["trace", "-o", "json", "shop/client", "--timeout", seconds]);
    told(&command.output()?)
}

#[test]
fn traces_are_few_and_about_pods_of_the_node() -> Result<()> {
    let rig = Rig::started()?;
    let mut running = Vec::new();
    for number in 1..=4 {
        running.push(command(&rig, &["shop/client"])?.stdout(Stdio::null()).spawn()?);
        let agent = rig.agent("a")?;
        let page = format!("/trace?id={number}");
        wait_for("a trace to begin", SOON, || Ok(agent.admin(&page).ok().map(drop)))?;
    }
    let refused = command(&rig, &["shop/client"])?.output()?;
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    for mut process in running {
        process.kill()?;
        process.wait()?;
    }
    assert_eq!(refused.status.code(), Some(2));
    assert!(complaint.contains("4 traces are running already"), "{complaint}");
    for (args, part) in [
        (
            &["shop/server"][..],
            "shop/server is no enrolled pod of this node; there are shop/client",
        ),
        (&["shop/client", "--to", "farr:80"], "is it far"),
        (&["client"], "pod is NAMESPACE/NAME"),
    ] {
        let output = command(&rig, args)?.output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(complaint.contains(part), "{args:?}: {complaint}");
    }
    Ok(())
}
